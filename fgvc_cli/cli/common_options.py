"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from fgvc_cli.errors import FgvcError
from fgvc_cli.specs import KINDS, Kind


def component_names(kind: Kind) -> Callable[[str], list[tuple[str, str]]]:
    """Return the completion of the names of a kind, for `typer.Option(autocompletion=component_names("head"))`."""

    def complete(incomplete: str) -> list[tuple[str, str]]:
        return _names(kind, incomplete)

    return complete


def kinds_and_settings(incomplete: str) -> list[str]:
    """Complete the first argument of `fgvc show`."""
    return [name for name in (*KINDS, "settings") if name.startswith(incomplete)]


def names_of_kind_given(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Complete the name after a kind that is on the command line already."""
    kind = context.params.get("kind")
    return next((_names(known, incomplete) for known in KINDS if known == kind), [])


def plugins_and_components(incomplete: str) -> list[tuple[str, str]]:
    """Complete the argument of `fgvc check-plugin`: a distribution with a plugin, or a component of any kind."""
    from fgvc_cli.registry import get_registry

    components = {name: summary for kind in KINDS for name, summary in _names(kind, incomplete)}
    try:
        plugins = get_registry().plugins
    except FgvcError:
        return []
    distributions = {p.distribution: "a distribution" for p in plugins if p.distribution.startswith(incomplete)}
    return [*distributions.items(), *components.items()]


def _names(kind: Kind, incomplete: str) -> list[tuple[str, str]]:
    from fgvc_cli.registry import get_registry

    try:
        registry = get_registry()
    except FgvcError:  # completion has nowhere to say it; the command itself will
        return []
    clashing = registry.clashes(kind)
    names = [(c.reference if c.name in clashing else c.name, c.spec.summary) for c in registry.components(kind)]
    names += [(f.family.prefix, f.family.summary) for f in registry.families(kind)]
    return [(name, summary) for name, summary in names if name.startswith(incomplete)]


COMPUTING = "Computing"
SEVERAL = "May be given several times."

IMAGE_SIZE = "Side of the images that the backbone sees, pixels."
EPOCHS = "Passes over the training images."
BATCH_SIZE = "Images in a forward pass."
WORKERS = "Processes that read images."
DEVICE, PRECISION = "auto, cpu, cuda, cuda:N or mps.", "auto, fp32 or bf16."
"""What these settings are, wherever they can be set."""

Device = Annotated[str, typer.Option(help=DEVICE, rich_help_panel=COMPUTING)]
Precision = Annotated[str, typer.Option(help=PRECISION, rich_help_panel=COMPUTING)]
BatchSize = Annotated[int, typer.Option(min=1, help=BATCH_SIZE, rich_help_panel=COMPUTING)]
Workers = Annotated[
    int, typer.Option(min=-1, help="Processes that read images; -1 chooses by device.", rich_help_panel=COMPUTING)
]

Run = Annotated[
    Path | None, typer.Option(help="Run folder or model.safetensors.", show_default="the newest finished run")
]


def data_option(panel: str) -> Any:
    """Return `--data` for a command that takes another dataset than the run's own."""
    return typer.Option(
        help="Another folder of class folders, or a CSV or TSV of path and label; classes are matched by name.",
        rich_help_panel=panel,
        show_default="the run's own dataset",
    )


def dataset_option(panel: str) -> Any:
    """Return `--dataset` for such a command."""
    return typer.Option(
        help="Another dataset, by name.",
        autocompletion=component_names("dataset"),
        rich_help_panel=panel,
        show_default=False,
    )


def split_option(panel: str, verb: str, default: str = "test, or val where there is none") -> Any:
    """Return `--split`; `verb` says what is done to it."""
    return typer.Option(help=f"Split to {verb}.", rich_help_panel=panel, show_default=default)


def ignore_unknown_option(panel: str) -> Any:
    """Return `--ignore-unknown`."""
    return typer.Option(
        "--ignore-unknown", help="Leave out classes that the classifier does not know.", rich_help_panel=panel
    )


def named_option(kind: Kind, panel: str, default: str) -> Any:
    """Return `--backbone` and its like for a command that takes several of them."""
    return typer.Option(
        help=f"{kind.capitalize()}, by name. {SEVERAL}",
        show_default=default,
        autocompletion=component_names(kind),
        rich_help_panel=panel,
    )


def trained_dataset_option(panel: str) -> Any:
    """Return `--dataset` for a command that trains."""
    return typer.Option(
        help="Dataset, by name.",
        show_default="demo",
        autocompletion=component_names("dataset"),
        rich_help_panel=panel,
    )


def trained_data_option(panel: str) -> Any:
    """Return `--data` for a command that trains."""
    return typer.Option(
        help="A folder of class folders, with or without train, val and test; or a CSV or TSV of path, label "
        "and, if it has them, splits.",
        show_default=False,
        rich_help_panel=panel,
    )


def weights_option(panel: str) -> Any:
    """Return `--weights`."""
    return typer.Option(
        help="auto, imagenet, none, a file, or a tag of the backbone's weights.",
        show_default="auto",
        rich_help_panel=panel,
    )


def recipe_option(panel: str) -> Any:
    """Return `--recipe` for a command that trains."""
    return typer.Option(
        help="Named settings to begin from.",
        show_default="finetune with weights, scratch without",
        autocompletion=component_names("recipe"),
        rich_help_panel=panel,
    )


def setting_option(help: str, panel: str, default: str = "by recipe") -> Any:
    """Return an option that sets one setting of a training; where it is not given, `default` says what holds."""
    return typer.Option(help=help, show_default=default, rich_help_panel=panel)
