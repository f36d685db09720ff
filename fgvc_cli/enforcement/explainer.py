"""What the host expects of an explainer."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fgvc_cli.contracts import Explainer
from fgvc_cli.enforcement.attribution import Broken, Check, described
from fgvc_cli.enforcement.head import lines


def _explain(explainer: Explainer, result: Any, classifier: Any, images: Tensor, targets: Any) -> Tensor:  # noqa: ARG001
    shape = (len(images), *images.shape[-2:])
    if not isinstance(result, Tensor) or result.shape != shape or not result.is_floating_point():
        raise Broken(f"floating-point maps of shape {shape}", described(result))
    return result


def _check(explainer: Explainer, result: Any, classifier: Any) -> None:
    """Any result will do: it is the errors that count."""


CALLS: dict[str, Check] = {"explain": _explain, "check": _check, "notes": lines}
"""Checks by method."""
