"""The built-in optimizers."""

from fgvc_cli import OptimizerSpec, hookimpl


@hookimpl
def fgvc_optimizers() -> list[OptimizerSpec]:
    """Register the built-in optimizers."""
    return [
        OptimizerSpec(
            "sgd",
            "fgvc_optimizers.sgd:Sgd",
            "Stochastic gradient descent with momentum",
            "fgvc_optimizers.options:SgdOptions",
            "Sutskever et al. 2013, On the importance of initialization and momentum in deep learning",
        ),
        OptimizerSpec(
            "adamw",
            "fgvc_optimizers.adamw:AdamW",
            "Adam with decoupled weight decay",
            "fgvc_optimizers.options:AdamWOptions",
            "Loshchilov, Hutter 2019, Decoupled Weight Decay Regularization, arXiv 1711.05101",
        ),
        OptimizerSpec(
            "muon",
            "fgvc_optimizers.muon:Muon",
            "Momentum with orthogonal updates for the backbone's matrices, AdamW for the rest",
            "fgvc_optimizers.options:MuonOptions",
            "Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; Liu et al. 2025, arXiv 2502.16982",
        ),
        OptimizerSpec(
            "sam",
            "fgvc_optimizers.sam:Sam",
            "Sharpness-aware minimization on top of another optimizer: flat minima, two passes per step",
            "fgvc_optimizers.options:SamOptions",
            "Foret et al. 2021, arXiv 2010.01412; adaptive: Kwon et al. 2021, arXiv 2102.11600",
            passes=2,
            base="sgd",
        ),
    ]
