"""What the host expects of a launcher."""

from __future__ import annotations

from typing import Any

from fgvc_cli.contracts import Launcher, RunEnded
from fgvc_cli.enforcement.attribution import Check, expect_type


def _ended(launcher: Launcher, result: Any, seconds: float) -> Any:  # noqa: ARG001
    expect_type(result, list, "a list of RunEnded")
    for each in result:
        expect_type(each, RunEnded, "a RunEnded")
    return result


def _nothing(launcher: Launcher, result: Any, *arguments: Any) -> Any:
    """Any result will do: it is the errors that count."""


CALLS: dict[str, Check] = {
    "start": _nothing,
    "submit": _nothing,
    "ended": _ended,
    "cancel": _nothing,
    "close": _nothing,
}
"""Checks by method."""
