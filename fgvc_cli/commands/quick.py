"""Options that were not given cost nothing."""

from __future__ import annotations

from functools import partial
from typing import Any

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
