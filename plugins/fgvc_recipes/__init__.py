"""The built-in recipes (named sets of training settings) and studies (for `fgvc sweep`), each a TOML file here."""

from fgvc_cli import RecipeSpec, StudySpec, hookimpl

REPORT = "The {count} combinations of the June 2024 report on {images}, ten epochs each, one seed"


@hookimpl
def fgvc_recipes() -> list[RecipeSpec]:
    """Register the built-in recipes."""
    return [
        RecipeSpec("finetune", "fgvc_recipes:finetune.toml", "Fine-tune pretrained weights; the default with weights"),
        RecipeSpec("scratch", "fgvc_recipes:scratch.toml", "Train from scratch; the default without weights"),
        RecipeSpec(
            "probe",
            "fgvc_recipes:probe.toml",
            "Fit a head to the frozen backbone's features, without epochs; the default of such heads",
        ),
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


@hookimpl
def fgvc_studies() -> list[StudySpec]:
    """Register the built-in studies."""
    return [
        StudySpec(
            "report-aircraft", "fgvc_recipes:report-aircraft.toml", REPORT.format(count=14, images="FGVC-Aircraft")
        ),
        StudySpec("report-flowers", "fgvc_recipes:report-flowers.toml", REPORT.format(count=14, images="Flowers-102")),
        StudySpec("report-mammalia", "fgvc_recipes:report-mammalia.toml", REPORT.format(count=11, images="Mammalia")),
    ]
