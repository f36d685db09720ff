"""The subcommands that a plugin adds, gathered on an application of its own so that it can spoil no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pluggy
import typer


def collect_commands(implementation: pluggy.HookImpl) -> Mapping[str, Any]:
    """Call a plugin's `fgvc_commands` and return the commands and groups that it added, by name.

    They are built here, not when the command line is read: a parameter of a type that Typer does not know fails now.
    """
    app = typer.Typer(add_completion=False)
    arguments = {"app": app} if "app" in implementation.argnames else {}
    implementation.function(**arguments)
    if not (app.registered_commands or app.registered_groups):
        return {}
    commands: Mapping[str, Any] = typer.main.get_group(app).commands
    return commands
