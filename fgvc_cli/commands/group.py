"""The root of the command line: subcommands that are imported when they are used, those of plugins, and errors."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from fgvc_cli import settings
from fgvc_cli.commands.failures import exit_code_of
from fgvc_cli.commands.global_options import take_global_options
from fgvc_cli.commands.lazy import LazyCommand, builtin_commands
from fgvc_cli.commands.quick import QuickParameters
from fgvc_cli.display import console
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.launch import launched

if TYPE_CHECKING:
    from fgvc_cli.registry import Registry

WHILE_ANOTHER_SPEAKS = 10.0
"""Seconds that a silent process (see `fgvc_cli.launch`) stays after an error that all have: torchrun ends the others as
soon as one ends, and the first has to say what went wrong."""

PIPS_OWN = ("install", "uninstall")
"""What a person may look for here."""

PLUGIN_PANEL = "Commands of plugins"


class FgvcGroup(QuickParameters, TyperGroup):
    """The group of all subcommands; its `main` is where the program starts and where every error ends."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands.update(builtin_commands())

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,  # noqa: ARG002  (part of the signature; `sys.argv` is read here)
        **extra: Any,
    ) -> Any:
        """Run the command line and exit with its code, having said in one line what went wrong if anything did."""
        try:
            arguments, chosen = take_global_options(sys.argv[1:] if args is None else args, settings.current())
            others_speak = launched().rank > 0
            with settings.in_force(chosen), console.quiet(chosen.quiet), console.muted(others_speak):
                return self._run(arguments, prog_name, complete_var, standalone_mode, extra)
        except FgvcError as error:  # the global options themselves are wrong
            if not standalone_mode:
                raise
            sys.exit(exit_code_of(error, debug=False))

    def _run(
        self, args: list[str], prog_name: str | None, complete_var: str | None, standalone: bool, extra: dict[str, Any]
    ) -> Any:
        try:
            self._add_plugin_commands()
            # Never standalone: Typer would draw its errors as a box; here they are a line like any other.
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except (Exception, KeyboardInterrupt) as error:
            if not standalone:
                raise
            code = exit_code_of(error, debug=settings.current().debug)
            if console.is_muted():
                time.sleep(WHILE_ANOTHER_SPEAKS)
            sys.exit(code)
        if standalone:
            sys.exit(result if isinstance(result, int) else 0)
        return result

    def invoke(self, ctx: typer.Context) -> None:  # type: ignore[override]
        """Run the subcommand; what it returns is dropped, so that it is not taken for an exit code."""
        try:
            super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the subcommand that the arguments name, and import it."""
        if args and args[0] in PIPS_OWN and args[0] not in self.commands:
            what = " ".join(["pip", *args[:2], *(["NAME"] if len(args) == 1 else [])])
            raise UsageError(f"{args[0]}: that is pip's business: {what}. fgvc list-plugins shows what is installed.")
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.loaded() if isinstance(command, LazyCommand) else command, rest

    def _add_plugin_commands(self) -> None:
        from fgvc_cli.registry import get_registry

        for name, command in plugin_commands(get_registry(), builtin=self.commands).items():
            command.rich_help_panel = PLUGIN_PANEL
            self.commands[name] = command


def plugin_commands(registry: Registry, builtin: Mapping[str, Any]) -> dict[str, Any]:
    """Name the subcommands that plugins add.

    One that has the name of a built-in command, or of another plugin's, is reached as `distribution:name`.
    """
    offered = [(p.distribution, name, command) for p in registry.plugins for name, command in p.commands.items()]
    names = [name for _, name, _ in offered]
    return {
        f"{distribution}:{name}" if name in builtin or names.count(name) > 1 else name: command
        for distribution, name, command in offered
    }
