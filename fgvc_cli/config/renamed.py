"""Former names and values of settings, so that runs of older versions still load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = {
    ("train", "accumulate"): "grad_accum_steps",
    ("train", "crop_ratio"): "crop_pct",
    ("train", "fit"): "crop_mode",
    ("train", "validation_share"): "val_fraction",
    ("train", "validation_seed"): "val_seed",
    ("preprocessing", "fit"): "crop_mode",
    ("head", "idle"): "missing_grad",
}
"""Current name by section and former name."""

VALUES = {
    "crop_mode": {"short": "center", "stretch": "squash"},
    "missing_grad": {"coast": "zero"},
    "sampling": {"root": "sqrt"},
}
"""Current value by setting and former value."""


def current(section: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a section with current names and values."""
    renamed = {NAMES.get((section, name), name): value for name, value in settings.items()}
    return {
        name: VALUES[name].get(value, value) if name in VALUES and isinstance(value, str) else value
        for name, value in renamed.items()
    }
