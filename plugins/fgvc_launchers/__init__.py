"""The built-in launchers."""

from fgvc_cli import LauncherSpec, hookimpl


@hookimpl
def fgvc_launchers() -> list[LauncherSpec]:
    """Register the built-in launchers."""
    return [
        LauncherSpec(
            "local",
            "fgvc_launchers.local:LocalLauncher",
            "Processes of this machine",
        ),
        LauncherSpec(
            "ray",
            "fgvc_launchers.ray_cluster:RayLauncher",
            'Tasks on a Ray cluster; needs pip install "fgvc-cli[ray]"',
            "fgvc_launchers.options:RayOptions",
            "Moritz et al. 2018, Ray: A Distributed Framework for Emerging AI Applications (OSDI); ray.io",
        ),
        LauncherSpec(
            "slurm",
            "fgvc_launchers.slurm:SlurmLauncher",
            'Jobs on a Slurm cluster, through submitit; needs pip install "fgvc-cli[slurm]"',
            "fgvc_launchers.options:SlurmOptions",
            "Yoo et al. 2003, SLURM: Simple Linux Utility for Resource Management (JSSPP); submitit",
        ),
    ]
