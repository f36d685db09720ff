"""Every built-in component fulfills its contract."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from fgvc_cli.registry import get_registry
from fgvc_cli.specs import KINDS
from fgvc_cli.testing import contract

SMALL: dict[str, dict[str, Any]] = {
    "head pim": {"fpn_size": 16, "num_selects": 4, "joints_divisor": 4},
    "head cmal": {"expert_width": 16, "map_channels": 32, "hidden_width": 16},
    "dataset demo": {"train": 2, "val": 1, "test": 1, "size": 32},
    "dataset demo_unknown": {"train": 2, "val": 1, "test": 1, "size": 32},
    "explainer sliding_window": {"window": 0.5, "stride": 0.5},
    "launcher ray": {"address": "local"},
    "launcher slurm": {"cluster": "local", "gpus": 0},
}
"""Options that make for quick checks; slow ones take the defaults."""

ADVISED = {"optimizer muon": {"step does not synchronize with the device"}}
"""Advice that a component does not follow: timm's Muon cannot skip an update on the device."""

CLUSTERS = ("ray", "slurm")
"""Launchers that start services."""

FAMILY_MEMBERS = ("timm/test_resnet", "timm/test_vit")


def names(*kinds: str) -> list[tuple[str, str]]:
    """The built-in components of some kinds, and two members of a family that are quick to build."""
    found = [(kind, c.name) for kind in kinds for c in get_registry().components(kind) if c.builtin]
    return found + [("backbone", name) for name in FAMILY_MEMBERS if "backbone" in kinds]


def passed(kind: str, name: str, options: dict[str, Any] | None, partners: bool) -> Counter[str]:
    """Check a component and count the results by status."""
    results = {check.title: check.result() for check in contract(kind, name, options, partners=partners)}
    failed = {title: o.reason for title, o in results.items() if o.status in ("failed", "advice")}
    for title in ADVISED.get(f"{kind} {name}", ()):
        failed.pop(title)
    assert not failed, f"{kind} {name}: {failed}"
    return Counter(result.status for result in results.values())


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, marks=pytest.mark.slow) if kind == "exporter" or name in CLUSTERS else (kind, name)
        for kind, name in names(*(kind for kind in KINDS if kind != "backbone"))
    ],
)
def test_alone(kind, name):
    counts = passed(kind, name, SMALL.get(f"{kind} {name}"), partners=False)
    here = kind != "dataset" or name in ("demo", "demo_unknown", "folder", "table")
    trained = kind != "head" or not get_registry().find("head", name).spec.fitted
    assert counts["passed"] >= 6 and (counts["not applicable"] <= 8 or not here or not trained)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), names("backbone", "head", "optimizer", "explainer"))
def test_with_partners(kind, name):
    """What a backbone meets, it meets as the partner of heads and explainers; one is enough the other way round."""
    partners = kind != "backbone" or name == FAMILY_MEMBERS[0]
    assert passed(kind, name, SMALL.get(f"{kind} {name}"), partners)["passed"] >= 15


@pytest.mark.slow
@pytest.mark.parametrize("component", ["head pim", "head cmal", "explainer sliding_window"])
def test_by_default_options(component):
    kind, name = component.split()
    assert passed(kind, name, None, partners=False)["passed"] >= 6
