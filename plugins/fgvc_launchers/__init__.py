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
    ]
