"""What the host expects of an optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor

from fgvc_cli.contracts import Evaluation, Loss, Optimizer
from fgvc_cli.enforcement.attribution import Broken, Check, described, expect_type
from fgvc_cli.registry import Component


def check_options(component: Component) -> None:
    """Check that the options of an optimizer that wraps no other one have the learning rates.

    Raises:
        Broken: they do not.
    """
    if getattr(component.spec, "base", ""):
        return
    names = [field.name for field in fields(component.options_type())]
    missing = [name for name in ("lr", "head_lr") if name not in names]
    if missing:
        raise Broken(f"options `lr` and `head_lr` in {component.spec.options or 'its spec'}", _listed(names))


def _listed(names: list[str]) -> str:
    return f"only {', '.join(f'`{name}`' for name in names)}" if names else "none"


def _step(optimizer: Optimizer, result: Any, closure: Any) -> Any:  # noqa: ARG001
    expect_type(result, Evaluation, "the Evaluation that its first closure call returned")
    if not result.losses or not all(isinstance(loss, Loss) for loss in result.losses):
        raise Broken("an Evaluation with its losses", "one without")
    return result


def _rates(optimizer: Optimizer, result: Any) -> dict[str, float]:  # noqa: ARG001
    expect_type(result, Mapping, "a dict of learning rates by part")
    for part, rate in result.items():
        if not isinstance(rate, float | int) or not math.isfinite(rate):
            raise Broken(f"a number as the learning rate of {part}", described(rate))
    return {str(part): float(rate) for part, rate in result.items()}


def _state_dict(optimizer: Optimizer, result: Any) -> Any:  # noqa: ARG001
    expect_type(result, Mapping, "a dict")
    _check_savable(result, "state")
    return result


def _check_savable(value: Any, at: str) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key is not None and not isinstance(key, str | int | float | tuple):
                raise Broken(f"text or numbers as keys of {at}", described(key))
            _check_savable(inner, f"{at}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _check_savable(inner, f"{at}[{index}]")
    elif value is not None and not isinstance(value, Tensor | str | int | float):
        raise Broken(f"tensors, numbers and text, and lists or dicts of them, at {at}", described(value))


def _any(optimizer: Optimizer, result: Any, *_: Any) -> Any:  # noqa: ARG001
    return result


CALLS: dict[str, Check] = {
    "step": _step,
    "set_rate": _any,
    "rates": _rates,
    "state_dict": _state_dict,
    "load_state_dict": _any,
}
"""Checks by method."""
