"""The built-in heads."""

from fgvc_cli import HeadSpec, hookimpl


@hookimpl
def fgvc_heads() -> list[HeadSpec]:
    """Register the built-in heads."""
    return [
        HeadSpec(
            "linear",
            "fgvc_heads.linear:LinearHead",
            "One linear layer on the backbone's pooled embedding",
            "fgvc_heads.options:LinearOptions",
        ),
        HeadSpec(
            "probe",
            "fgvc_heads.probe:ProbeHead",
            "Multinomial logistic regression on the frozen embedding, fitted without epochs",
            "fgvc_heads.options:ProbeOptions",
            fitted=True,
        ),
        HeadSpec(
            "prototypes",
            "fgvc_heads.prototypes:PrototypesHead",
            "Cosine similarity to the mean embedding of each class; classes can be added without training",
            "fgvc_heads.options:PrototypesOptions",
            "Wang, Chao, Weinberger, van der Maaten 2019, SimpleShot: Revisiting Nearest-Neighbor Classification for "
            "Few-Shot Learning, arXiv 1911.04623",
            fitted=True,
        ),
        HeadSpec(
            "knn",
            "fgvc_heads.knn:KnnHead",
            "Weighted vote of the k nearest training images (cosine); classes can be added without training",
            "fgvc_heads.options:KnnOptions",
            "Wu, Xiong, Yu, Lin 2018, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, "
            "arXiv 1805.01978, section 3.4",
            fitted=True,
        ),
        HeadSpec(
            "pim",
            "fgvc_heads.pim:PimHead",
            "Plug-in module: selects the most discriminative points of each map and combines them",
            "fgvc_heads.options:PimOptions",
            "Chou, Lin, Kao 2022, A Novel Plug-in Module for Fine-Grained Visual Classification, arXiv 2202.03822",
            maps=1,
        ),
        HeadSpec(
            "cmal",
            "fgvc_heads.cmal:CmalHead",
            "Cross-layer mutual attention: three experts, each trained on the attention regions of the others",
            "fgvc_heads.options:CmalOptions",
            "Liu, Zhao, Wang, Kato 2023, Learn from Each Other to Classify Better: Cross-layer Mutual Attention "
            "Learning for Fine-grained Visual Classification, Pattern Recognition 140, 109550",
            maps=3,
        ),
    ]
