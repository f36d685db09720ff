"""The command line: global options, subcommands, and how errors end it."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from fgvc_cli import __version__, settings
from fgvc_cli.cli import console
from fgvc_cli.cli.lazy import FLAGS, LazyCommand, QuickParameters, as_options, builtin_commands
from fgvc_cli.errors import FgvcError, Terminated, UsageError
from fgvc_cli.launch import follow_parent, is_reporting
from fgvc_cli.registry.error_origin import describe_error
from fgvc_cli.settings import ALL_PLUGINS, Settings

if TYPE_CHECKING:
    from fgvc_cli.registry import Registry

INTERRUPTED = 130

WAIT_FOR_FIRST = 10.0
"""Seconds that a process which prints nothing stays after an error: torchrun ends all processes when one ends, and the
first one has to print the error."""

# Typer exports only leaf classes of its command-line errors; their base belongs to click before Typer 0.27.
ClickException = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def exit_code_of(error: BaseException, *, debug: bool) -> int:
    """Print an error, with its traceback if `debug`, and return the exit code.

    1: failed, 2: wrong command line, 130: interrupted.
    """
    if isinstance(error, BrokenPipeError):
        _close_stdout()
        return 1
    if debug:
        sys.stderr.write("".join(traceback.format_exception(error)))
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED
    if isinstance(error, ClickException):
        message, code = _usage_message(error), getattr(error, "exit_code", 2)
    else:
        message = describe_error(error, "--debug shows where")
        code = error.exit_code if isinstance(error, FgvcError) else 1
        if isinstance(error, FgvcError | OSError):  # the text of another error is not the library's
            message = as_options(message)
    if message:
        console.error(message)
    return code


def _usage_message(error: BaseException) -> str:
    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    if context is None or not message:
        return message
    stop = "" if message.endswith((".", "?")) else "."
    return f"{message}{stop} See {context.command_path} --help."


def _close_stdout() -> None:
    """Redirect standard output to the null device: its pipe is closed, and Python would raise again at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # a captured stream has no file number
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123


class FgvcGroup(QuickParameters, TyperGroup):
    """The group of all subcommands. Its `main` is the program."""

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
        """Run the command line, print any error in one line, and exit."""
        try:
            _refuse_empty(sys.argv[1:] if args is None else args)
            arguments, chosen = take_global_options(sys.argv[1:] if args is None else args, settings.current())
            with settings.override(chosen), console.active(quiet=chosen.quiet):
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
            # Never standalone: Typer would draw a box around its errors; here they are a line like any other.
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except (Exception, KeyboardInterrupt) as error:
            if not standalone:
                raise
            code = exit_code_of(error, debug=settings.current().debug)
            if not is_reporting():
                time.sleep(WAIT_FOR_FIRST)
            sys.exit(code)
        if standalone:
            sys.exit(result if isinstance(result, int) else 0)
        return result

    def invoke(self, ctx: typer.Context) -> None:  # type: ignore[override]
        """Run the subcommand; its return value is dropped, so that it is not taken for an exit code."""
        try:
            super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the subcommand in the arguments, and import it."""
        if args and args[0] in ("install", "uninstall") and args[0] not in self.commands:
            pip = " ".join(["pip", *args[:2], *(["NAME"] if len(args) == 1 else [])])
            raise UsageError(f"plugins are installed with pip: {pip}; fgvc list-plugins lists the installed ones")
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.loaded() if isinstance(command, LazyCommand) else command, rest

    def _add_plugin_commands(self) -> None:
        from fgvc_cli.registry import get_registry

        for name, command in plugin_commands(get_registry(), builtin=self.commands).items():
            command.rich_help_panel = "Commands of plugins"
            self.commands[name] = command


def plugin_commands(registry: Registry, builtin: Mapping[str, Any]) -> dict[str, Any]:
    """Return the subcommands that plugins add, by name.

    A command with the name of a built-in command or of another plugin's is called `distribution:name`.
    """
    offered = [(p.distribution, name, command) for p in registry.plugins for name, command in p.commands.items()]
    names = [name for _, name, _ in offered]
    return {
        f"{distribution}:{name}" if name in builtin or names.count(name) > 1 else name: command
        for distribution, name, command in offered
    }


WITH_VALUE = {"--" + name.replace("_", "-"): name for name in settings.VARIABLES}
"""Global options with a value, and the setting of each."""

EXAMPLES = {"--cache-limit": "50GB", "--disable-plugins": "NAME,NAME", "--only-plugins": "NAME,NAME"}
"""Values for messages."""


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse empty arguments, which an unset shell variable leaves: an empty path would be the current folder."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if argument == "--":
            return
        if not argument or EMPTY_OPTION.fullmatch(argument):
            name = argument.rstrip("=") or (before if before.startswith("-") else "")
            what = f"{name} has an empty value" if name else "an argument is empty"
            raise UsageError(f"{what}; leave it out, or check the shell variable that was to fill it")


EMPTY_OPTION = re.compile(r"--[a-z-]+=")


def take_global_options(arguments: Sequence[str], current: Settings) -> tuple[list[str], Settings]:
    """Take the global options out of the arguments; they may be anywhere before a `--`.

    Returns:
        The other arguments, and the settings with the options applied.

    Raises:
        UsageError: an option has no value, or an invalid amount of bytes.
    """
    rest: list[str] = []
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        name, equals, value = argument.partition("=")
        if argument == "--":
            return [*rest, argument, *pending], current
        if argument == "--no-external-plugins":
            current = current.changed(argument, disable_plugins=(ALL_PLUGINS,))
        elif argument in FLAGS:
            current = current.changed(argument, **{argument[2:].replace("-", "_"): True})
        elif name in WITH_VALUE:
            if not equals and (not pending or pending[0].startswith("-")):
                raise UsageError(f"{name} needs a value, as in {name} {EXAMPLES.get(name, 'DIR')}")
            current = current.parsed(WITH_VALUE[name], value if equals else pending.pop(0), name)
        else:
            rest.append(argument)
    return rest, current


def build_app() -> typer.Typer:
    """Build the Typer application. Plugins are loaded when it runs, because its arguments choose which."""
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
    follow_parent()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may have any bytes
    try:
        typer.main.get_command(build_app()).main(prog_name="fgvc")
    finally:  # what remains is the exit of Python, where an exception would print a traceback
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)


def _terminate(number: int, _: FrameType | None) -> None:
    """Exit with the code of a signal, after cleaning up; training handles the signal itself. A second one kills."""
    signal.signal(number, signal.SIG_DFL)
    raise Terminated(number)


def _in_panel(panel: str, help: str, metavar: str | None = None, flag: str | None = None) -> Any:
    return typer.Option(*([flag] if flag else []), metavar=metavar, help=help, rich_help_panel=panel)


def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Suppress notes and progress.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
    runs: Annotated[str | None, _in_panel("Folders", "Folder of run folders (FGVC_RUNS).", "DIR")] = None,
    data_root: Annotated[str | None, _in_panel("Folders", "Folder of named datasets (FGVC_DATA).", "DIR")] = None,
    weights_root: Annotated[
        str | None, _in_panel("Folders", "Folder of pretrained weights (FGVC_WEIGHTS).", "DIR")
    ] = None,
    cache: Annotated[str | None, _in_panel("Folders", "Cache directory (FGVC_CACHE).", "DIR")] = None,
    cache_limit: Annotated[
        str | None,
        _in_panel(
            "Folders",
            "Disk space for cached images, such as 50GB; 0: no caching (FGVC_CACHE_LIMIT; default 64GB).",
            "SIZE",
        ),
    ] = None,
    no_external_plugins: Annotated[
        bool, _in_panel("Plugins", "Use only the built-in plugins.", flag="--no-external-plugins")
    ] = False,
    disable_plugins: Annotated[
        str | None,
        _in_panel("Plugins", "Do not import plugins of these distributions (FGVC_DISABLE_PLUGINS).", "NAME,NAME"),
    ] = None,
    only_plugins: Annotated[
        str | None,
        _in_panel(
            "Plugins",
            "Import plugins of these distributions only, and the built-in ones (FGVC_ONLY_PLUGINS).",
            "NAME,NAME",
        ),
    ] = None,
    strict_plugins: Annotated[
        bool, _in_panel("Plugins", "Exit if a plugin fails to load.", flag="--strict-plugins")
    ] = False,
) -> None:
    """Fine-grained visual classification: train, evaluate and explain image classifiers.

    The options below may come before or after the subcommand.
    """
    # All but the version took effect in `FgvcGroup.main`, because they decide which plugins may add commands; they are
    # declared here for the help.
    del quiet, debug, runs, data_root, weights_root, cache, cache_limit
    del no_external_plugins, disable_plugins, only_plugins, strict_plugins
    if version:
        typer.echo(f"fgvc {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)
