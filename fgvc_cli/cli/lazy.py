"""Built-in subcommands, imported on first use."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class QuickParameters:
    """Mixed into a command class: a value that was not given is not converted.

    Typer builds a converter for each option, and imports pydantic to build it, even to convert nothing; that alone
    takes half as long as all of `fgvc --help`.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the command's options and arguments, the help option included."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            takes_one = not parameter.required and not parameter.multiple and parameter.nargs == 1
            if takes_one and "process_value" not in vars(parameter):
                parameter.process_value = partial(_processed, parameter, parameter.process_value)
        return parameters


class QuickCommand(QuickParameters, TyperCommand):
    """A subcommand that starts quickly."""


class QuickGroup(QuickParameters, TyperGroup):
    """A group of subcommands that starts quickly."""


def _processed(parameter: Any, convert: Any, context: Any, value: Any) -> Any:
    if value is not None:
        return convert(context, value)
    return parameter.callback(context, parameter, None) if parameter.callback else None


@dataclass(frozen=True)
class BuiltinCommand:
    """A subcommand: where its function (or Typer application) is, what `fgvc --help` says of it, under which heading.

    A module may say `EXAMPLE = "fgvc ..."`; it stands at the end of the command's help.
    """

    target: str
    summary: str
    panel: str


COMMANDS = {
    "train": BuiltinCommand(
        "fgvc_cli.cli.train:train",
        "Train a classifier; leave a run folder that every other command can use.",
        "Train and use a classifier",
    ),
    "evaluate": BuiltinCommand(
        "fgvc_cli.cli.evaluate:evaluate", "Score a run on a split or a folder.", "Train and use a classifier"
    ),
    "predict": BuiltinCommand(
        "fgvc_cli.cli.predict:predict",
        "Name the likeliest classes of images.",
        "Train and use a classifier",
    ),
    "explain": BuiltinCommand(
        "fgvc_cli.cli.explain:explain",
        "Show what a decision rests on.",
        "Train and use a classifier",
    ),
    "data": BuiltinCommand(
        "fgvc_cli.cli.data:data",
        "See what datasets there are, get them, check them, clear the cache.",
        "Data",
    ),
    "bench": BuiltinCommand(
        "fgvc_cli.cli.bench:bench",
        "Time combinations of backbone, head and optimizer on this machine.",
        "Measure",
    ),
    "sweep": BuiltinCommand(
        "fgvc_cli.cli.sweep:sweep",
        "Train every combination, each as an ordinary run, in one study folder; then compare them.",
        "Compare and report",
    ),
    "compare": BuiltinCommand(
        "fgvc_cli.cli.compare:compare",
        "Set runs beside each other, and tell their differences from noise.",
        "Compare and report",
    ),
    "report": BuiltinCommand(
        "fgvc_cli.cli.report:report",
        "Make one HTML page of what a run is and does, or of a whole study.",
        "Compare and report",
    ),
    "list-plugins": BuiltinCommand(
        "fgvc_cli.cli.list_plugins:list_plugins", "List what is installed, by kind.", "See what there is"
    ),
    "show": BuiltinCommand(
        "fgvc_cli.cli.show:show", "Show one component's options, source and partners.", "See what there is"
    ),
    "new-plugin": BuiltinCommand(
        "fgvc_cli.cli.new_plugin:new_plugin",
        "Write a plugin: a small, complete package to begin from.",
        "Write a plugin",
    ),
    "check-plugin": BuiltinCommand(
        "fgvc_cli.cli.check_plugin:check_plugin",
        "Check that a plugin's components keep their contracts.",
        "Write a plugin",
    ),
}


class LazyCommand(TyperCommand):
    """Stands for a subcommand in the list of commands until it is used."""

    def __init__(self, name: str, command: BuiltinCommand) -> None:
        super().__init__(name, help=command.summary, rich_help_panel=command.panel)
        self.target = command.target

    def loaded(self) -> Any:
        """Import the subcommand's module and return the command itself."""
        module_name, _, attribute = self.target.partition(":")
        module = importlib.import_module(module_name)
        found = getattr(module, attribute)
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        app = typer.Typer(add_completion=False, rich_markup_mode="rich")
        example = getattr(module, "EXAMPLE", "").replace("[", r"\[")  # a bracket would be taken for rich markup
        app.command(self.name, cls=QuickCommand, epilog=f"Example: {example}" if example else None)(found)
        return typer.main.get_command(app)


def builtin_commands() -> dict[str, LazyCommand]:
    """Return the built-in subcommands by name, in the order of the help."""
    return {name: LazyCommand(name, command) for name, command in COMMANDS.items()}
