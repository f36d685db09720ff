"""Options that several commands share, and their shell completion."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from fgvc_cli.config.train_options import AugmentOptions, TrainOptions
from fgvc_cli.errors import FgvcError
from fgvc_cli.options import OptionInfo, describe
from fgvc_cli.specs import KINDS, Kind


def component_names(kind: Kind) -> Callable[[str], list[tuple[str, str]]]:
    """Return the completion of component names, for `typer.Option(autocompletion=component_names("head"))`."""

    def complete(incomplete: str) -> list[tuple[str, str]]:
        return _names(kind, incomplete)

    return complete


def kinds(incomplete: str) -> list[str]:
    """Complete the kind of a component."""
    return [name for name in KINDS if name.startswith(incomplete)]


def kinds_and_settings(incomplete: str) -> list[str]:
    """Complete the first argument of `fgvc show`."""
    return [name for name in (*KINDS, "settings") if name.startswith(incomplete)]


def names_of_kind_given(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Complete a component's name after its kind."""
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
    except FgvcError:  # completion cannot show an error; the command itself will
        return []
    clashing = registry.clashes(kind)
    names = [(c.reference if c.name in clashing else c.name, c.spec.summary) for c in registry.components(kind)]
    names += [(f.family.prefix, f.family.summary) for f in registry.families(kind)]
    return [(name, summary) for name, summary in names if name.startswith(incomplete)]


COMPUTING, TAXONOMY = "Computing", "Taxonomy"
SEVERAL = "Can be given several times."

SETTINGS: dict[str, OptionInfo] = {
    f"{section}.{info.name}": info
    for section, options in (("train", TrainOptions), ("augment", AugmentOptions))
    for info in describe(options)
}


def setting(name: str, panel: str, shown_default: str | bool = "by recipe", **more: Any) -> Any:
    """Return the option of a setting such as "train.epochs"; help, choices and bounds come from its dataclass.

    Args:
        name: section and name of the setting.
        panel: heading in the command's help.
        shown_default: default that the help shows; True for that of the command's parameter.
        more: other arguments of `typer.Option`; a `help` is added to that of the setting.
    """
    info = SETTINGS[name]
    more["help"] = f"{info.help[0].upper()}{info.help[1:]}. {more.get('help', '')}".strip()
    if info.choices:
        more.setdefault("metavar", "|".join(info.choices))
    if info.minimum is not None or info.maximum is not None:
        more.update(min=info.minimum, max=info.maximum)
    return typer.Option("--" + info.name.replace("_", "-"), rich_help_panel=panel, show_default=shown_default, **more)


def option(panel: str, help: str, flag: str | None = None, default: str | bool = True, **more: Any) -> Any:
    """Return an option of one command, below a heading of its help.

    Args:
        panel: heading in the command's help.
        help: one line.
        flag: name, if it does not follow from the parameter's.
        default: default that the help shows; True for that of the command's parameter.
        more: other arguments of `typer.Option`.
    """
    return typer.Option(*([flag] if flag else []), help=help, rich_help_panel=panel, show_default=default, **more)


Device = Annotated[str, setting("train.device", COMPUTING, shown_default=True)]
Precision = Annotated[str, setting("train.precision", COMPUTING, shown_default=True)]
BatchSize = Annotated[int, setting("train.batch_size", COMPUTING, shown_default=True)]
Workers = Annotated[int, setting("train.workers", COMPUTING, shown_default=True)]

Tta = Annotated[
    str | None,
    option(
        COMPUTING,
        "Test-time augmentation, averaged: flip, crops, sizes, or several, such as flip,crops.",
        default=False,
        metavar="KINDS",
    ),
]

TaxonomyFile = Annotated[
    Path | None,
    option(
        TAXONOMY,
        "CSV file of the classes' groups: class, then a column per level, such as genus and family.",
        "--taxonomy",
        default="as in the model file",
        metavar="FILE",
    ),
]

CALIBRATION = "Calibration"
NoCalibration = Annotated[
    bool, option(CALIBRATION, "Ignore the run's calibration (fgvc calibrate).", "--no-calibration")
]

Run = Annotated[
    Path | None, typer.Option(help="Run folder or model.safetensors.", show_default="the latest finished run")
]


def sure_option(default: str | bool) -> Any:
    """Return `--sure`."""
    help = "Name the lowest class or group, such as a genus, with this probability or more."
    return option(TAXONOMY, help, default=default, metavar="PROBABILITY")


def data_option(panel: str) -> Any:
    """Return `--data` for a command that takes another dataset than the run's own."""
    return option(
        panel,
        "Another folder with one folder per class, or a CSV or TSV of path and label; classes match by name.",
        default="the run's own dataset",
    )


def dataset_option(panel: str) -> Any:
    """Return `--dataset` for such a command."""
    return component_option("dataset", panel, "Another dataset, by name.", False)


def split_option(panel: str, verb: str, default: str = "test, or val without one") -> Any:
    """Return `--split`; `verb` is what the command does with it."""
    return option(panel, f"Split to {verb}.", default=default, metavar="NAME")


def exclude_option(panel: str) -> Any:
    """Return `--exclude` for a command that does not train."""
    help = "CSV file of images to leave out, such as that of fgvc audit."
    return option(panel, help, default=False, metavar="FILE")


def ignore_unknown_option(panel: str) -> Any:
    """Return `--ignore-unknown`."""
    return option(panel, "Skip classes that the classifier does not know.", "--ignore-unknown")


def allow_changed_data_option(panel: str, help: str = "Use the run's own dataset even if it changed.") -> Any:
    """Return `--allow-changed-data`."""
    return option(panel, help, "--allow-changed-data")


def component_option(kind: Kind, panel: str, help: str, default: str | bool = "by recipe") -> Any:
    """Return an option that names a component, such as `--backbone`."""
    return option(panel, help, default=default, metavar="NAME", autocompletion=component_names(kind))


def named_option(kind: Kind, panel: str, default: str) -> Any:
    """Return `--backbone`, `--head` or `--optimizer` for a command that takes several."""
    return component_option(kind, panel, f"{kind.capitalize()}, by name. {SEVERAL}", default)


def trained_dataset_option(panel: str) -> Any:
    """Return `--dataset` for a command that trains."""
    return component_option("dataset", panel, "Dataset, by name.", "demo")


def trained_data_option(panel: str) -> Any:
    """Return `--data` for a command that trains."""
    return option(
        panel,
        "Folder with one folder per class, with or without train, val and test above them; or a CSV or TSV of path, "
        "label and optionally split.",
        default=False,
    )


def recipe_option(panel: str) -> Any:
    """Return `--recipe` for a command that trains."""
    help = "Recipe: named settings to start from."
    return component_option("recipe", panel, help, "finetune with weights, scratch without")


def set_option(panel: str, help: str = "A setting, as kind.option=value, such as head.fpn_size=1024.") -> Any:
    """Return `--set`."""
    return option(panel, f"{help} {SEVERAL}", "--set", False, metavar="SETTING")


def given_options(context: typer.Context, but: Collection[str] = ()) -> list[str]:
    """Return the options that are on the command line, such as "--epochs", except the parameters named in `but`."""
    sources = {parameter: context.get_parameter_source(parameter.name or "") for parameter in context.command.params}
    return [
        parameter.opts[0]
        for parameter, source in sources.items()
        if source is not None and source.name == "COMMANDLINE" and parameter.name not in but
    ]
