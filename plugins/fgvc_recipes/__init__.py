"""The built-in recipes: named sets of training settings, each a TOML file in this package."""

from fgvc_cli import RecipeSpec, hookimpl


@hookimpl
def fgvc_recipes() -> list[RecipeSpec]:
    """Register the built-in recipes."""
    return [
        RecipeSpec("finetune", "fgvc_recipes:finetune.toml", "Fine-tune pretrained weights; the default with weights"),
        RecipeSpec("scratch", "fgvc_recipes:scratch.toml", "Train from scratch; the default without weights"),
        RecipeSpec(
            "report",
            "fgvc_recipes:report.toml",
            "Learning rates, sizes and augmentation of the June 2024 report that this project implements",
        ),
        RecipeSpec(
            "pim-paper",
            "fgvc_recipes:pim-paper.toml",
            "PIM as published for CUB-200: Swin at 384 px, one learning rate, cosine schedule",
            source="Chou, Lin, Kao 2022, arXiv 2202.03822",
        ),
        RecipeSpec(
            "cmal-paper",
            "fgvc_recipes:cmal-paper.toml",
            "CMAL-Net as published for FGVC-Aircraft: ResNet-50 at 448 px, ten times the learning rate for the head",
            source="Liu et al. 2023, Pattern Recognition 140, 109550",
        ),
    ]
