"""The description in a model file: what it may contain. Such files come from strangers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgvc_cli.contracts.classifier import FILTERS
from fgvc_cli.contracts.taxonomy import Taxonomy
from fgvc_cli.errors import FgvcError
from fgvc_cli.files import mismatch

FIELDS: Mapping[str, Any] = {
    "format": int,
    "classes": Sequence[str],
    "components": Mapping[str, Mapping[str, Any]],
    "preprocessing": Mapping[str, Any],
    "dataset": Mapping[str, Any],
    "data": Mapping[str, Any],
    "weights": str,
    "versions": Mapping[str, str],
    "epoch": int,
    "taxonomy": Mapping[str, Any],
    "calibration": Mapping[str, Any],
    "export": Mapping[str, Any],
    "license": str,
}
TAXONOMY: Mapping[str, Any] = {"levels": Sequence[str], "ancestors": Mapping[str, Sequence[str]]}
COMPONENT: Mapping[str, Any] = {"name": str, "distribution": str, "version": str, "options": Mapping[str, Any]}
MAX_CLASSES = 10_000_000
MAX_SIDE = 65_536
"""Largest image side in pixels."""


def check_description(document: Mapping[str, Any], file: Path) -> None:
    """Check the types and ranges of what a description has; what it lacks is reported where it is needed.

    Raises:
        FgvcError: something has another type or is out of range.
    """
    wrong = _wrong_type(document, FIELDS, "")
    for kind, record in () if wrong else document.get("components", {}).items():
        wrong = wrong or _wrong_type(record, COMPONENT, f"components.{kind}.")
    if not wrong:
        wrong = _wrong_classes(document.get("classes", [""])) or _wrong_sizes(document.get("preprocessing", {}))
    if not wrong and "taxonomy" in document:
        wrong = _wrong_taxonomy(document["taxonomy"], document.get("classes", ()))
    if wrong:
        raise FgvcError(f"{file} is damaged: its metadata is invalid at {wrong}. Train again, or restore the file.")


def _wrong_type(table: Mapping[str, Any], fields: Mapping[str, Any], prefix: str) -> str:
    found = (mismatch(table[name], hint, f"{prefix}{name}") for name, hint in fields.items() if name in table)
    return next(filter(None, found), "")


def _wrong_classes(classes: Sequence[str]) -> str:
    unique = len(set(classes)) == len(classes)
    return "" if unique and 0 < len(classes) <= MAX_CLASSES else "classes"


def _wrong_taxonomy(document: Mapping[str, Any], classes: Sequence[str]) -> str:
    lacking = next((f"taxonomy.{name}" for name in TAXONOMY if name not in document), "")
    wrong = lacking or _wrong_type(document, TAXONOMY, "taxonomy.")
    fault = "" if wrong else Taxonomy.from_json(document).fault(classes)
    return f"taxonomy ({fault})" if fault else wrong


def _wrong_sizes(preprocessing: Mapping[str, Any]) -> str:
    for name in ("image_size", "resize"):
        value = preprocessing.get(name, 1)
        if type(value) is not int or not 0 < value <= MAX_SIDE:
            return f"preprocessing.{name}"
    for name in ("mean", "std"):
        values = preprocessing.get(name, [1.0] * 3)
        numbers = isinstance(values, list | tuple) and len(values) == 3 and not mismatch(list(values), Sequence[float])
        if not numbers or not all(map(math.isfinite, values)):
            return f"preprocessing.{name}"
    for name, known in (("crop_mode", ("center", "squash", "short", "stretch")), ("interpolation", tuple(FILTERS))):
        if preprocessing.get(name, known[0]) not in known:
            return f"preprocessing.{name}"
    return ""
