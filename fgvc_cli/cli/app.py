"""The command line: global options, subcommands, and how an error ends it."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from fgvc_cli import __version__, settings
from fgvc_cli.cli import console
from fgvc_cli.cli.common_options import as_options
from fgvc_cli.cli.global_options import take_global_options
from fgvc_cli.cli.lazy import LazyCommand, QuickParameters, builtin_commands
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.launch import launched
from fgvc_cli.registry.error_origin import describe_error

if TYPE_CHECKING:
    from fgvc_cli.registry import Registry


INTERRUPTED = 130


def exit_code_of(error: BaseException, *, debug: bool) -> int:
    """Say what went wrong, with the traceback under `--debug`, and return the exit code.

    0: done, 1: it could not be done, 2: the command line is wrong, 130: interrupted.
    """
    if isinstance(error, BrokenPipeError):
        _abandon_stdout()
        return 1
    if debug:
        sys.stderr.write("".join(traceback.format_exception(error)))
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED
    message, code = _message_and_code(error)
    if message:
        console.error(message)
    return code


def _message_and_code(error: BaseException) -> tuple[str, int]:
    if isinstance(error, ClickException):
        return _usage_message(error), getattr(error, "exit_code", 2)
    message, code = describe_error(error, "--debug shows where"), error.exit_code if isinstance(error, FgvcError) else 1
    # The text of an unexpected error is not the library's, and stays as it is.
    return (as_options(message) if isinstance(error, FgvcError | OSError) else message), code


# Typer exports only the ends of its family of command-line errors; the root of it is found from one of them, for it
# belongs to click in older releases of Typer and to Typer itself in newer ones.
ClickException = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def _usage_message(error: BaseException) -> str:
    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    if context is None or not message:
        return message
    stop = "" if message.endswith((".", "?")) else "."
    return f"{message}{stop} See {context.command_path} --help."


def _abandon_stdout() -> None:
    """Point standard output at nothing: who read it has gone, and Python would complain again when it exits."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # a captured stream has no file number
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123


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
            with settings.in_force(chosen), console.active(quiet=chosen.quiet, muted=others_speak):
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


FOLDERS_PANEL, PLUGINS_PANEL = "Folders", "Plugins"


def build_app() -> typer.Typer:
    """Make the Typer application; plugins are loaded when it is run, for its arguments say which may."""
    return typer.Typer(
        name="fgvc",
        cls=FgvcGroup,
        callback=root,
        invoke_without_command=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        epilog="Example: fgvc train --backbone swin_t --head pim",
    )


def main() -> None:
    """Run the command line; this is what `fgvc` and `python -m fgvc_cli` call."""
    signal.signal(signal.SIGTERM, _terminate)
    typer.main.get_command(build_app()).main(prog_name="fgvc")


def _terminate(number: int, _: FrameType | None) -> None:
    """End with the exit code of a signal, tidying up on the way; training hears it in its own way meanwhile."""
    sys.exit(128 + number)


def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Keep back notes and progress.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
    runs: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Where run folders are (FGVC_RUNS).", rich_help_panel=FOLDERS_PANEL),
    ] = None,
    data_root: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Where named datasets are (FGVC_DATA).", rich_help_panel=FOLDERS_PANEL),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Where to keep what can be made again (FGVC_CACHE).", rich_help_panel=FOLDERS_PANEL
        ),
    ] = None,
    cache_limit: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT",
            help="Disk space that decoded images may take, such as 50GB; 0: none (FGVC_CACHE_LIMIT; default 64GB).",
            rich_help_panel=FOLDERS_PANEL,
        ),
    ] = None,
    no_external_plugins: Annotated[
        bool,
        typer.Option("--no-external-plugins", help="Use the built-in plugins alone.", rich_help_panel=PLUGINS_PANEL),
    ] = False,
    disable_plugins: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Do not import the plugins of these distributions (FGVC_DISABLE_PLUGINS).",
            rich_help_panel=PLUGINS_PANEL,
        ),
    ] = None,
    only_plugins: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Import only the plugins of these distributions, beside the built-in ones (FGVC_ONLY_PLUGINS).",
            rich_help_panel=PLUGINS_PANEL,
        ),
    ] = None,
    strict_plugins: Annotated[
        bool,
        typer.Option(
            "--strict-plugins", help="A plugin that fails to load is an error.", rich_help_panel=PLUGINS_PANEL
        ),
    ] = False,
) -> None:
    """Fine-grained visual classification: train a classifier, score it, and see what it looks at.

    The options below stand before or after the subcommand.
    """
    # All but the version took effect before the command line was read (`FgvcGroup.main`), for it is they that say
    # which plugins may add to it; here they are declared, so that the help shows them.
    del quiet, debug, runs, data_root, cache, cache_limit
    del no_external_plugins, disable_plugins, only_plugins, strict_plugins
    if version:
        typer.echo(f"fgvc {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)
