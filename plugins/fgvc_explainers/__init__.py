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
            "finer-cam",
            "fgvc_explainers.cam:FinerCam",
            "Finer-CAM: Grad-CAM of what tells the class from its nearest others",
            "fgvc_explainers.options:FinerCamOptions",
            "Zhang et al. 2025, Finer-CAM, CVPR, arXiv 2501.11309",
        ),
        ExplainerSpec(
            "eigencam",
            "fgvc_explainers.cam:EigenCam",
            "Eigen-CAM: feature maps projected on their first principal component, for any class; no gradients",
            activations,
            "Muhammad, Yeasin 2020, Eigen-CAM, IJCNN, arXiv 2008.00299",
        ),
        ExplainerSpec(
            "legrad",
            "fgvc_explainers.attention:LeGrad",
            "LeGrad: sensitivity to each block's attention; plain transformers (ViT), heads on the embedding",
            "fgvc_explainers.options:LeGradOptions",
            "Bousselham et al. 2025, LeGrad, ICCV, arXiv 2404.03214",
        ),
        ExplainerSpec(
            "rollout",
            "fgvc_explainers.attention:Rollout",
            "Attention rollout, for any class: attention multiplied over the blocks; plain transformers (ViT)",
            source="Abnar, Zuidema 2020, Quantifying Attention Flow in Transformers, ACL, arXiv 2005.00928",
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
