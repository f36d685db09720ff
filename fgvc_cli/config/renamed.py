"""Former names, values and defaults of settings, so that runs of older versions still load and stay as they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fgvc_cli.errors import RENAMED

NAMES: dict[str, tuple[str, ...]] = {
    "train": ("accumulate", "crop_ratio", "fit", "validation_share", "validation_seed"),
    "preprocessing": ("fit",),
    "cmal": ("idle",),
}
"""Former names of settings by section or component."""

VALUES: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {"crop_mode": ("short", "stretch"), "sampling": ("root",)},
    "preprocessing": {"crop_mode": ("short", "stretch")},
    "cmal": {"missing_grad": ("coast",)},
}
"""Former values by section or component and by the current name of the setting."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "train": {
        "val_by": "position",
        "freeze": "none",
        "batch_norm": "batch",
        "head_init": "random",
        "layer_decay": 1.0,
        "ema": 0.0,
        "average_epochs": 0,
        "progressive_size": 0,
        "class_weights": "none",
        "logit_adjustment": 0.0,
        "group_by": "none",
        "folds": 0,
    },
    "folder": {"classes": "first"},
}
"""Values, by section or component, of settings that configurations written by older versions lack."""

NOT_OF_RECIPES = {("train", "val_by"), ("folder", "classes")}
"""Settings among them that no recipe sets."""


def current(section: str, settings: Mapping[str, Any], component: str = "") -> dict[str, Any]:
    """Return settings with current names and values.

    Args:
        section: "train", "preprocessing" or a kind of component.
        settings: by name.
        component: whose settings they are; the default is `settings["name"]`, or else the one with former names.
    """
    component = component or str(settings.get("name", "cmal"))
    owner = component.rpartition(":")[2] if section == "head" else section
    names, values = NAMES.get(owner, ()), VALUES.get(owner, {})
    renamed = {RENAMED[name] if name in names else name: value for name, value in settings.items()}
    return {name: RENAMED[value] if value in values.get(name, ()) else value for name, value in renamed.items()}


def current_document(document: Mapping[str, Any], resolved: bool = True) -> dict[str, Any]:
    """Return a configuration whose sections have current names and values; what is no section stays as it is.

    A file that the program wrote (it has the key "fgvc") keeps what settings meant when they did not exist yet.

    Args:
        document: by section.
        resolved: whether it has the values of every setting, as that of a run; else a recipe's are below it.
    """

    def added_to(section: str, table: Mapping[str, Any]) -> dict[str, Any]:
        if "fgvc" not in document:
            return {}
        owner = str(table.get("name", "")).rpartition(":")[2] if section == "dataset" else section
        added = DEFAULTS.get(owner, {})
        return {name: value for name, value in added.items() if resolved or (owner, name) in NOT_OF_RECIPES}

    return {
        name: {**added_to(name, table), **current(name, table)} if isinstance(table, dict) else table
        for name, table in document.items()
    }
