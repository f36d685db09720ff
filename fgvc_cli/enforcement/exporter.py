"""What the host expects of an exporter."""

from __future__ import annotations

from typing import Any

from fgvc_cli.contracts import ExportedModel, Exporter
from fgvc_cli.enforcement.attribution import Check, expect_type
from fgvc_cli.enforcement.head import lines


def _open(exporter: Exporter, result: Any, path: Any) -> Any:  # noqa: ARG001
    expect_type(result, ExportedModel, "an ExportedModel")
    return result


def _script(exporter: Exporter, result: Any, model: str) -> Any:  # noqa: ARG001
    expect_type(result, (str, type(None)), "a script as text, or None")
    return result


CALLS: dict[str, Check] = {"export": lines, "open": _open, "script": _script}
"""Checks by method."""
