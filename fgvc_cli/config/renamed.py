"""Former names and values of settings, so that runs of older versions still load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fgvc_cli.errors import RENAMED

NAMES = {
    "train": ("accumulate", "crop_ratio", "fit", "validation_share", "validation_seed"),
    "preprocessing": ("fit",),
    "cmal": ("idle",),
}
"""Former names of settings by section or component."""

VALUES = {
    "train": {"crop_mode": ("short", "stretch"), "sampling": ("root",)},
    "preprocessing": {"crop_mode": ("short", "stretch")},
    "cmal": {"missing_grad": ("coast",)},
}
"""Former values by section or component and by the current name of the setting."""


def current(section: str, settings: Mapping[str, Any], component: str = "") -> dict[str, Any]:
    """Return settings with current names and values.

    Args:
        section: "train", "preprocessing" or a kind of component.
        settings: by name.
        component: whose settings they are; the default is `settings["name"]`.
    """
    component = component or str(settings.get("name", ""))
    owner = component.rpartition(":")[2] if section == "head" else section
    names, values = NAMES.get(owner, ()), VALUES.get(owner, {})
    renamed = {RENAMED[name] if name in names else name: value for name, value in settings.items()}
    return {name: RENAMED[value] if value in values.get(name, ()) else value for name, value in renamed.items()}
