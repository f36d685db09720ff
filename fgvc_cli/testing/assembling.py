"""From the name of a component to the checks that it has to pass."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fgvc_cli.registry import get_registry
from fgvc_cli.registry.lookup import check_kind
from fgvc_cli.specs import Kind
from fgvc_cli.testing.check import Check
from fgvc_cli.testing.spec_checks import SPEC
from fgvc_cli.testing.subject import Subject

MODULES: dict[Kind, str] = {
    "backbone": "fgvc_cli.testing.backbone_checks",
    "head": "fgvc_cli.testing.head_checks",
    "optimizer": "fgvc_cli.testing.optimizer_checks",
    "dataset": "fgvc_cli.testing.dataset_checks",
    "explainer": "fgvc_cli.testing.explainer_checks",
    "tracker": "fgvc_cli.testing.tracker_checks",
    "recipe": "fgvc_cli.testing.recipe_checks",
    "study": "fgvc_cli.testing.study_checks",
}
"""Where the checks of each kind are: a function `checks(subject, partners)`. Most import torch."""


def contract(
    kind: str,
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    data: Path | str | None = None,
    partners: bool = True,
) -> list[Check]:
    """Return the checks of everything that a component of its kind must keep.

    They run on the CPU, in any order, and each stands alone. Small partners of the kit's own come first; then the
    component meets the built-in components that it has to work with.

    Args:
        kind: "backbone", "head", "optimizer", "dataset", "explainer", "tracker", "recipe" or
            "study".
        name: as a person types it: "bilinear", "fgvc-bilinear:bilinear", "timm/resnet18".
        options: values to set over the component's defaults, as `--set` would; small ones make for quick checks.
        data: for a data set that is made from a folder or a file: which (None: a small one of the kit's own).
        partners: whether to check it with the built-in partners too, which takes longer.

    Raises:
        UsageError: there is no such kind or component.
    """
    registry = get_registry()
    checked = check_kind(kind)
    component = registry.find(checked, name)
    return checks_of(Subject(component, registry, dict(options or {}), None if data is None else Path(data)), partners)


def checks_of(subject: Subject, partners: bool = True) -> list[Check]:
    """Return the checks of a component; see `contract`."""
    module = importlib.import_module(MODULES[subject.kind])
    checks: list[Check] = [*SPEC.of(subject), *module.checks(subject, partners)]
    return checks
