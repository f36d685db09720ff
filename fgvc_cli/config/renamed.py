"""Settings that older versions called something else, so that their runs still load."""

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
"""The current name by section and former name."""

VALUES = {
    "crop_mode": {"short": "center", "stretch": "squash"},
    "missing_grad": {"coast": "zero"},
    "sampling": {"root": "sqrt"},
}
"""The current value by setting and former value."""


def current(section: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under their current names, with current values."""
    renamed = {NAMES.get((section, name), name): value for name, value in settings.items()}
    return {
        name: VALUES[name].get(value, value) if name in VALUES and isinstance(value, str) else value
        for name, value in renamed.items()
    }
