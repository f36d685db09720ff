"""Built-in subcommands, each imported on first use, and how the library's messages name their options."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from dataclasses import dataclass
from functools import cache, partial
from itertools import takewhile
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from fgvc_cli.errors import UsageError
from fgvc_cli.settings import VARIABLES
from fgvc_cli.specs import KINDS

METAVARS = {"int": "N", "integer": "N", "float": "X", "path": "PATH"}
"""Placeholder for a value in the help, by typer's name of its type; TEXT for other types."""


class QuickParameters:
    """Mixin for commands that start quickly, and whose help looks the same with every version of typer."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the command's options and arguments, the help option included."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            _set_metavar(parameter)
            takes_one = not parameter.required and not parameter.multiple and parameter.nargs == 1
            if takes_one and "process_value" not in vars(parameter):
                parameter.process_value = partial(_process, parameter, parameter.process_value)
        return parameters

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line; of most options given twice the last counts, as usual."""
        before = list(takewhile("--".__ne__, args))
        for name in ONCE:
            if sum(argument == name or argument.startswith(f"{name}=") for argument in before) > 1:
                raise UsageError(f"{name} is given twice; it takes one folder, file or name, with all images")
        parsed: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        return parsed


ONCE = ("--data", "--dataset")
"""Options that one could take for lists."""


class QuickCommand(QuickParameters, TyperCommand):
    """A subcommand that starts quickly."""


class QuickGroup(QuickParameters, TyperGroup):
    """A group of subcommands that starts quickly."""


def _process(parameter: Any, convert: Any, context: Any, value: Any) -> Any:
    """Convert a value only if one was given.

    Typer builds a converter for each option, and imports pydantic to build it, even to convert nothing; that alone
    takes half as long as all of `fgvc --help`.
    """
    if value is not None:
        return convert(context, value)
    return parameter.callback(context, parameter, None) if parameter.callback else None


def _set_metavar(parameter: Any) -> None:
    """Show values in upper case, and none for a flag: typer 0.27 and later would show `--quiet <bool>`."""
    is_argument = parameter.param_type_name == "argument"
    if parameter.metavar is None and is_argument:
        parameter.metavar = parameter.name.upper()
    elif parameter.metavar is None:
        parameter.metavar = "" if parameter.is_flag else METAVARS.get(_type_name(parameter), "TEXT")
    if is_argument and hasattr(parameter, "display_type_rich"):  # its name suffices
        parameter.display_type_rich = lambda ctx: ""  # noqa: ARG005


def _type_name(parameter: Any) -> str:
    name = parameter.bare_type() if hasattr(parameter, "bare_type") else parameter.type.name  # before typer 0.27
    return str(name).lower().removeprefix("list[").removesuffix("]").removesuffix(" range")


@dataclass(frozen=True)
class BuiltinCommand:
    """A built-in subcommand.

    Its module may define `EXAMPLE = "fgvc ..."`, which is shown at the end of the command's help.

    Attributes:
        target: its function or Typer application, as "module:name".
        summary: first paragraph of its help, and its line in `fgvc --help`.
        panel: heading in `fgvc --help`.
    """

    target: str
    summary: str
    panel: str


CLASSIFIER, DATA, BENCHMARK = "Train and use a classifier", "Data", "Benchmark"
STUDIES, PLUGINS, AUTHORS = "Studies and reports", "Plugins", "For plugin authors"

COMMANDS = {
    "train": BuiltinCommand("fgvc_cli.cli.train:train", "Train a classifier into a run folder.", CLASSIFIER),
    "evaluate": BuiltinCommand(
        "fgvc_cli.cli.evaluate:evaluate", "Evaluate a run on a split or a folder of images.", CLASSIFIER
    ),
    "predict": BuiltinCommand("fgvc_cli.cli.predict:predict", "Predict the top-k classes of images.", CLASSIFIER),
    "explain": BuiltinCommand(
        "fgvc_cli.cli.explain:explain", "Explain predictions with saliency maps and occlusion.", CLASSIFIER
    ),
    "calibrate": BuiltinCommand(
        "fgvc_cli.cli.calibrate:calibrate", "Learn from validation images when a run should not answer.", CLASSIFIER
    ),
    "export": BuiltinCommand(
        "fgvc_cli.cli.export:export", "Export a run to ONNX or torch.export, and check the file.", CLASSIFIER
    ),
    "serve": BuiltinCommand(
        "fgvc_cli.cli.serve:serve", "Serve a run or an exported model over HTTP, with an upload page.", CLASSIFIER
    ),
    "embed": BuiltinCommand(
        "fgvc_cli.cli.embed:embed", "Compute the embeddings of images and write them to a file.", CLASSIFIER
    ),
    "classes": BuiltinCommand(
        "fgvc_cli.cli.classes:classes", "List the classes of a run, and add some without training.", CLASSIFIER
    ),
    "data": BuiltinCommand(
        "fgvc_cli.cli.data:data", "List, prepare and verify datasets, and manage the image cache.", DATA
    ),
    "audit": BuiltinCommand(
        "fgvc_cli.cli.audit:audit", "Find copies across splits, wrong labels, and odd or unusable photographs.", DATA
    ),
    "weights": BuiltinCommand("fgvc_cli.cli.weights:weights", "List, fetch and import pretrained weights.", DATA),
    "bench": BuiltinCommand(
        "fgvc_cli.cli.bench:bench", "Time combinations of backbone, head and optimizer on this machine.", BENCHMARK
    ),
    "sweep": BuiltinCommand(
        "fgvc_cli.cli.sweep:sweep", "Train every combination of components in one study, and compare them.", STUDIES
    ),
    "compare": BuiltinCommand(
        "fgvc_cli.cli.compare:compare", "Compare runs and test differences for significance.", STUDIES
    ),
    "report": BuiltinCommand(
        "fgvc_cli.cli.report:report", "Write a self-contained HTML report of a run or a study.", STUDIES
    ),
    "list-plugins": BuiltinCommand(
        "fgvc_cli.cli.list_plugins:list_plugins", "List installed components by kind.", PLUGINS
    ),
    "show": BuiltinCommand("fgvc_cli.cli.show:show", "Show a component's options, source and partners.", PLUGINS),
    "new-plugin": BuiltinCommand(
        "fgvc_cli.cli.new_plugin:new_plugin", "Create a small, complete plugin package.", AUTHORS
    ),
    "check-plugin": BuiltinCommand(
        "fgvc_cli.cli.check_plugin:check_plugin",
        "Check that a plugin's components satisfy their contracts.",
        AUTHORS,
    ),
}


class LazyCommand(TyperCommand):
    """Placeholder for a subcommand until it is used."""

    def __init__(self, name: str, command: BuiltinCommand) -> None:
        super().__init__(name, help=command.summary, rich_help_panel=command.panel)
        self.target = command.target

    def loaded(self) -> Any:
        """Import the subcommand's module and return the command."""
        module_name, _, attribute = self.target.partition(":")
        module = importlib.import_module(module_name)
        app = getattr(module, attribute)
        if not isinstance(app, typer.Typer):
            function, app = app, typer.Typer(add_completion=False, rich_markup_mode="rich")
            example = getattr(module, "EXAMPLE", "").replace("[", r"\[")  # a bracket would be taken for rich markup
            app.command(self.name, cls=QuickCommand, epilog=f"Example: {example}" if example else None)(function)
        command = typer.main.get_command(app)
        _, *details = (command.help or "").split("\n\n")  # the docstring's first paragraph is for its readers
        command.help = "\n\n".join([str(self.help), *details])
        return command


def builtin_commands() -> dict[str, LazyCommand]:
    """Return the built-in subcommands by name, in the order of the help."""
    return {name: LazyCommand(name, command) for name, command in COMMANDS.items()}


SECTIONS = (*KINDS, "train", "augment")
"""Sections of settings, before the dot of a name."""

FLAGS = ("--debug", "--quiet", "--strict-plugins", "--no-external-plugins")
"""Global options without a value."""

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
    if spelling in FLAGS and value is None:
        return spelling
    if name in VARIABLES:  # a global option
        return spelling if value is None else f"{spelling} {shlex.quote(value)}"
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
    """Import a built-in command and return its options, each with whether it is a flag."""
    pending: list[Any] = [builtin_commands()[name].loaded()]
    options: dict[str, bool] = {}
    while pending:
        command = pending.pop()
        pending += getattr(command, "commands", {}).values()
        options |= {opt: bool(getattr(p, "is_flag", False)) for p in command.params for opt in p.opts}
    return options
