"""The built-in explainers."""

from fgvc_cli import ExplainerSpec, hookimpl


@hookimpl
def fgvc_explainers() -> list[ExplainerSpec]:
    """Register the built-in explainers."""
    activations = "fgvc_explainers.options:ActivationOptions"
    return [
        ExplainerSpec(
            "gradcam",
            "fgvc_explainers.cam:GradCam",
            "Grad-CAM: feature maps weighted by the mean gradient of the score",
            activations,
            "Selvaraju et al. 2020, Grad-CAM, IJCV 128(2), arXiv 1610.02391",
        ),
        ExplainerSpec(
            "gradcam++",
            "fgvc_explainers.cam:GradCamPlusPlus",
            "Grad-CAM++: weights from positive gradients, for several objects",
            activations,
            "Chattopadhay et al. 2018, Grad-CAM++, WACV, arXiv 1710.11063",
        ),
        ExplainerSpec(
            "layercam",
            "fgvc_explainers.cam:LayerCam",
            "LayerCAM: each point weighted by its own gradient; also for shallow maps",
            activations,
            "Jiang et al. 2021, LayerCAM: Exploring Hierarchical Class Activation Maps for Localization, TIP 30",
        ),
        ExplainerSpec(
            "sliding_window",
            "fgvc_explainers.sliding_window:SlidingWindow",
            "Masks one patch after another and measures the drop in probability; slow, for any model",
            "fgvc_explainers.options:SlidingWindowOptions",
            "Zeiler, Fergus 2014, Visualizing and Understanding Convolutional Networks, ECCV, arXiv 1311.2901",
        ),
        ExplainerSpec(
            "native",
            "fgvc_explainers.native:Native",
            "The head's own attention, for any class: PIM's selected points, CMAL's attention",
        ),
        ExplainerSpec(
            "random",
            "fgvc_explainers.random_map:RandomMap",
            "Random noise, independent of the model: the baseline to beat",
            "fgvc_explainers.options:RandomOptions",
            baseline=True,
        ),
    ]
