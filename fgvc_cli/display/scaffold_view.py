"""A plugin package that was written, as text and as JSON."""

from __future__ import annotations

import shlex
from typing import Any

from fgvc_cli.display import console
from fgvc_cli.scaffolding import Scaffold


def show_scaffold(scaffold: Scaffold) -> None:
    """Print what was written, and the commands that come next, ready to paste."""
    names, out = scaffold.names, console.out()
    out.print(f"written: {scaffold.folder}, the plugin {names.distribution} with the {names.kind} '{names.component}'")
    for file in scaffold.files:
        out.print(f"  {file}", soft_wrap=True)
    for index, command in enumerate(_next_commands(scaffold)):
        out.print(f"{'' if index else 'next: ':6}{command}", soft_wrap=True)


def scaffold_document(scaffold: Scaffold) -> dict[str, Any]:
    """Return what `fgvc new-plugin --json` prints."""
    names = scaffold.names
    return {
        "kind": names.kind,
        "name": names.component,
        "distribution": names.distribution,
        "package": names.package,
        "folder": scaffold.folder,
        "files": scaffold.files,
        "next": _next_commands(scaffold),
    }


def _next_commands(scaffold: Scaffold) -> list[str]:
    return [f"cd {shlex.quote(str(scaffold.folder))}", *scaffold.commands]
