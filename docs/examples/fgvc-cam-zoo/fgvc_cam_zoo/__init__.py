"""Explainers of the grad-cam package, as explainers of fgvc."""

from fgvc_cli import ExplainerSpec, hookimpl


@hookimpl
def fgvc_explainers() -> list[ExplainerSpec]:
    """Register the explainers."""
    return [
        ExplainerSpec(
            "scorecam",
            "fgvc_cam_zoo.explainers:ScoreCam",
            "Score-CAM: channels weighted by the score of the image masked with each; slow",
            "fgvc_cam_zoo.options:ScoreCamOptions",
            "Wang et al. 2020, Score-CAM, CVPR workshops, arXiv 1910.01279",
        ),
        ExplainerSpec(
            "kpcacam",
            "fgvc_cam_zoo.explainers:KpcaCam",
            "KPCA-CAM: first kernel principal component of the feature maps, independent of the class",
            "fgvc_cam_zoo.options:CamOptions",
            "Karmani et al. 2024, KPCA-CAM, MIPR, arXiv 2410.00267",
        ),
    ]
