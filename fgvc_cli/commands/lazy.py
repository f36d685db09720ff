"""The built-in subcommands: a name and one line each, their modules imported when one is used."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand

from fgvc_cli.commands.quick import QuickCommand


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
        "fgvc_cli.commands.train:train",
        "Train a classifier; leave a run folder that every other command can use.",
        "Train and use a classifier",
    ),
    "evaluate": BuiltinCommand(
        "fgvc_cli.commands.evaluate:evaluate", "Score a run on a split or a folder.", "Train and use a classifier"
    ),
    "predict": BuiltinCommand(
        "fgvc_cli.commands.predict:predict",
        "Name the likeliest classes of images.",
        "Train and use a classifier",
    ),
    "explain": BuiltinCommand(
        "fgvc_cli.commands.explain:explain",
        "Show what a decision rests on.",
        "Train and use a classifier",
    ),
    "data": BuiltinCommand(
        "fgvc_cli.commands.data:data",
        "See what data sets there are, get them, check them, clear the cache.",
        "Data",
    ),
    "bench": BuiltinCommand(
        "fgvc_cli.commands.bench:bench",
        "Time combinations of backbone, head and optimizer on this machine.",
        "Measure",
    ),
    "sweep": BuiltinCommand(
        "fgvc_cli.commands.sweep:sweep",
        "Train every combination, each as an ordinary run, in one study folder; then compare them.",
        "Compare and report",
    ),
    "compare": BuiltinCommand(
        "fgvc_cli.commands.compare:compare",
        "Set runs beside each other, and tell their differences from noise.",
        "Compare and report",
    ),
    "report": BuiltinCommand(
        "fgvc_cli.commands.report:report",
        "Make one HTML page of what a run is and does, or of a whole study.",
        "Compare and report",
    ),
    "list-plugins": BuiltinCommand(
        "fgvc_cli.commands.list_plugins:list_plugins", "List what is installed, by kind.", "See what there is"
    ),
    "show": BuiltinCommand(
        "fgvc_cli.commands.show:show", "Show one component's options, source and partners.", "See what there is"
    ),
    "new-plugin": BuiltinCommand(
        "fgvc_cli.commands.new_plugin:new_plugin",
        "Write a plugin: a small, complete package to begin from.",
        "Write a plugin",
    ),
    "check-plugin": BuiltinCommand(
        "fgvc_cli.commands.check_plugin:check_plugin",
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
