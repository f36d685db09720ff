"""What the host expects of a head."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fgvc_cli.contracts import Head, Loss, Objective, PublishedState, Reads
from fgvc_cli.enforcement.attribution import RECORD, Broken, Check, Record, attributed, described, expect_type


def _record(head: Head) -> Record:
    found: Record = getattr(head, RECORD)
    return found


def _reads(head: Head, result: Any, part: str | None = None) -> Any:  # noqa: ARG001
    expect_type(result, Reads, "a Reads")
    maps = _record(head).facts["maps"]
    for index in result.maps:
        if index not in range(maps):
            raise Broken(f"indices of the {maps} maps of the backbone", described(index))
    return result


def _forward(head: Head, result: Any, features: Any, part: str | None = None) -> Any:  # noqa: ARG001
    if result is None:
        raise Broken("a tensor, or tensors in a tuple, list or dict", "None")
    return result


def _objectives(head: Head, result: Any, images: Tensor, targets: Tensor) -> Generator[Objective, Any, None]:  # noqa: ARG001
    expect_type(result, Generator, "a generator (`yield Objective(...)`)")
    return _checked_objectives(_record(head), result)


def _checked_objectives(record: Record, generator: Generator[Objective, Any, None]) -> Generator[Objective, Any, None]:
    """Yield the objectives of a generator, with losses that are checked too."""
    output, count = None, 0
    while True:
        with attributed(record.component, "objectives()"):
            try:
                objective = generator.send(output)
            except StopIteration:
                if not count:
                    raise Broken("at least one objective", "none") from None
                return
            expect_type(objective, Objective, "an Objective")
            expect_type(objective.images, Tensor, "a tensor as Objective.images")
        count += 1
        output = yield replace(objective, loss=_checked_loss(record, objective))


def _checked_loss(record: Record, objective: Objective) -> Callable[[Any], Loss]:
    compute, shape = objective.loss, (len(objective.images), record.facts["classes"])

    def loss(output: Any) -> Loss:
        with attributed(record.component, "the loss of an objective"):
            found: Any = compute(output)
            expect_type(found, Loss, "a Loss")
            value, scores = found.value, found.scores
            if not isinstance(value, Tensor) or value.ndim:
                raise Broken("a scalar tensor as Loss.value", described(value))
            if torch.is_grad_enabled() and not value.requires_grad:
                raise Broken("a Loss.value with a gradient", "one that is detached from the head's output")
            if scores is not None and (not isinstance(scores, Tensor) or scores.shape != shape):
                raise Broken(f"Loss.scores of shape {shape}, or None", described(scores))
            expect_type(found.parts, Mapping, "a dict of scalar tensors as Loss.parts")
            for name, part in found.parts.items():
                if not isinstance(part, Tensor) or part.ndim:
                    raise Broken(f"a scalar tensor as Loss.parts['{name}']", described(part))
            result: Loss = found
            return result

    return loss


def _predict(head: Head, result: Any, model: Any, images: Tensor) -> Tensor:  # noqa: ARG001
    shape = (len(images), _record(head).facts["classes"])
    if not isinstance(result, Tensor) or result.shape != shape or not result.is_floating_point():
        raise Broken(f"floating-point scores of shape {shape}", described(result))
    return result


def _attention(head: Head, result: Any, model: Any, images: Tensor) -> Tensor | None:  # noqa: ARG001
    shape = (len(images), *images.shape[-2:])
    if result is not None and (not isinstance(result, Tensor) or result.shape != shape):
        raise Broken(f"maps of shape {shape}, or None", described(result))
    return result


def _embedding_layer(head: Head, result: Any) -> Any:  # noqa: ARG001
    expect_type(result, (nn.Linear, type(None)), "a torch.nn.Linear or None")
    return result


def _cam_map(head: Head, result: Any) -> Any:
    if result is not None and result not in head.reads().maps:
        raise Broken(f"one of the maps that the head reads, {head.reads().maps}, or None", described(result))
    return result


def lines(component: Any, result: Any, *_: Any) -> list[str]:  # noqa: ARG001
    """Check notes for the user."""
    expect_type(result, list | tuple, "a list of lines")
    for line in result:
        expect_type(line, str, "a list of lines of text")
    return list(result)


def _published(head: Head, result: Any, state: Any) -> Any:  # noqa: ARG001
    expect_type(result, (PublishedState, type(None)), "a PublishedState or None")
    return result


def _fit(head: Head, result: Any, train: Any, val: Any) -> Sequence[str]:  # noqa: ARG001
    return lines(head, result)


def _add_classes(head: Head, result: Any, added: Any, classes: int) -> None:  # noqa: ARG001
    _record(head).facts["classes"] = classes


CALLS: dict[str, Check] = {
    "reads": _reads,
    "forward": _forward,
    "objectives": _objectives,
    "predict": _predict,
    "attention": _attention,
    "embedding_layer": _embedding_layer,
    "cam_map": _cam_map,
    "notes": lines,
    "published": _published,
    "fit": _fit,
    "add_classes": _add_classes,
}
"""Checks by method."""
