"""Options that several commands share; those that are settings take name, help, choices and bounds from there."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from fgvc_cli.cli.lazy import COMMANDS, builtin_commands
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


COMPUTING = "Computing"
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
    more = {**more, "help": " ".join([as_sentence(info.help), *([more["help"]] if "help" in more else [])])}
    if info.choices:
        more.setdefault("metavar", "|".join(info.choices))
    if info.minimum is not None or info.maximum is not None:
        more.update(min=info.minimum, max=info.maximum)
    return typer.Option("--" + info.name.replace("_", "-"), rich_help_panel=panel, show_default=shown_default, **more)


def as_sentence(help: str) -> str:
    """Write the help of a setting as that of an option."""
    return help[0].upper() + help[1:] + "."


Device = Annotated[str, setting("train.device", COMPUTING, shown_default=True)]
Precision = Annotated[str, setting("train.precision", COMPUTING, shown_default=True)]
BatchSize = Annotated[int, setting("train.batch_size", COMPUTING, shown_default=True)]
Workers = Annotated[int, setting("train.workers", COMPUTING, shown_default=True)]

Run = Annotated[
    Path | None, typer.Option(help="Run folder or model.safetensors.", show_default="the latest finished run")
]


def data_option(panel: str) -> Any:
    """Return `--data` for a command that takes another dataset than the run's own."""
    return typer.Option(
        help="Another folder with one folder per class, or a CSV or TSV of path and label; classes match by name.",
        rich_help_panel=panel,
        show_default="the run's own dataset",
    )


def dataset_option(panel: str) -> Any:
    """Return `--dataset` for such a command."""
    return typer.Option(
        metavar="NAME",
        help="Another dataset, by name.",
        autocompletion=component_names("dataset"),
        rich_help_panel=panel,
        show_default=False,
    )


def split_option(panel: str, verb: str, default: str = "test, or val without one") -> Any:
    """Return `--split`; `verb` is what the command does with it."""
    return typer.Option(metavar="NAME", help=f"Split to {verb}.", rich_help_panel=panel, show_default=default)


def ignore_unknown_option(panel: str) -> Any:
    """Return `--ignore-unknown`."""
    return typer.Option(
        "--ignore-unknown", help="Skip classes that the classifier does not know.", rich_help_panel=panel
    )


def component_option(kind: Kind, panel: str, help: str, default: str = "by recipe") -> Any:
    """Return an option that names a component, such as `--backbone`."""
    return typer.Option(
        metavar="NAME",
        help=help,
        show_default=default,
        autocompletion=component_names(kind),
        rich_help_panel=panel,
    )


def named_option(kind: Kind, panel: str, default: str) -> Any:
    """Return `--backbone`, `--head` or `--optimizer` for a command that takes several."""
    return component_option(kind, panel, f"{kind.capitalize()}, by name. {SEVERAL}", default)


def trained_dataset_option(panel: str) -> Any:
    """Return `--dataset` for a command that trains."""
    return component_option("dataset", panel, "Dataset, by name.", "demo")


def trained_data_option(panel: str) -> Any:
    """Return `--data` for a command that trains."""
    return typer.Option(
        help="Folder with one folder per class, with or without train, val and test above them; or a CSV or TSV of "
        "path, label and optionally split.",
        show_default=False,
        rich_help_panel=panel,
    )


def recipe_option(panel: str) -> Any:
    """Return `--recipe` for a command that trains."""
    return component_option(
        "recipe", panel, "Recipe: named settings to start from.", "finetune with weights, scratch without"
    )


def set_option(panel: str, help: str = "A setting, as kind.option=value, such as head.fpn_size=1024.") -> Any:
    """Return `--set`."""
    return typer.Option("--set", metavar="SETTING", help=f"{help} {SEVERAL}", show_default=False, rich_help_panel=panel)


def given_options(context: typer.Context, but: Collection[str] = ()) -> list[str]:
    """Return the options that are on the command line, such as "--epochs", except the parameters named in `but`."""
    sources = {parameter: context.get_parameter_source(parameter.name or "") for parameter in context.command.params}
    return [
        parameter.opts[0]
        for parameter, source in sources.items()
        if source is not None and source.name == "COMMANDLINE" and parameter.name not in but
    ]


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
