"""Options that several commands share."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from fgvc_cli.cli.lazy import COMMANDS, builtin_commands
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


SECTIONS = (*KINDS, "train", "augment")
"""What may come before the dot of a setting."""

SETTING = re.compile(r"`(?P<name>[a-z][a-z0-9_]*(?:\.[\w./-]+)?)(?:=(?P<value>[^`]*))?`", re.ASCII)


def as_options(message: str) -> str:
    """Write the settings in a message of the library as command-line options.

    The library names a setting in backticks, by its Python or TOML name. `` `batch_size=4` `` becomes `--batch-size 4`,
    `` `data` `` becomes `--data`, and `` `train.clip_norm=1` `` becomes `--set train.clip_norm=1`. Anything else in
    backticks stays as it is.
    """
    return SETTING.sub(lambda match: _as_option(match["name"], match["value"]) or match[0], message)


def _as_option(name: str, value: str | None) -> str | None:
    if "." in name:
        value = "" if value is None else f"={value}"
        return f"--set {shlex.quote(name + value)}" if name.partition(".")[0] in SECTIONS else None
    spelling = "--" + name.replace("_", "-")
    options = next((options for options in map(_options_of, _commands()) if spelling in options), None)
    if options is None:
        return None
    if value is None:
        return spelling
    if not options[spelling]:
        return f"{spelling} {shlex.quote(value)}"
    return spelling if value.lower() == "true" else None


def _commands() -> list[str]:
    """Return the built-in commands, those whose modules are imported (the running one is) first."""
    return sorted(COMMANDS, key=lambda name: COMMANDS[name].target.partition(":")[0] not in sys.modules)


@cache
def _options_of(name: str) -> dict[str, bool]:
    """Return the options of a built-in command, which this imports, and whether each is a flag."""
    pending: list[Any] = [builtin_commands()[name].loaded()]
    options: dict[str, bool] = {}
    while pending:
        command = pending.pop()
        pending += getattr(command, "commands", {}).values()
        options |= {opt: bool(getattr(p, "is_flag", False)) for p in command.params for opt in p.opts}
    return options
