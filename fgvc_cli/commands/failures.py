"""How a command that failed ends: one line on standard error, and an exit code."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from fgvc_cli.display import console
from fgvc_cli.display.failure_text import message_of
from fgvc_cli.errors import FgvcError

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
    code = error.exit_code if isinstance(error, FgvcError) else 1
    return message_of(error), code


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
