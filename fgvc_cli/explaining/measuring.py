"""Every figure of every image, for one classifier and one explainer: taken batch by batch, numbers alone are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from fgvc_cli.explaining.explainers import NamedExplainer, is_in_range
from fgvc_cli.explaining.faithfulness import (
    CurveEnds,
    Parts,
    average_drop,
    curve_passes,
    deletion_auc,
    hits,
    insertion_auc,
)
from fgvc_cli.explaining.masking import (
    Cover,
    Occlusion,
    class_probabilities,
    explained_maps,
    marked_probabilities,
    saliency_order,
)
from fgvc_cli.scoring.model import ReadyClassifier
from fgvc_cli.scoring.scores import Batch

WAITING_BATCHES = 64
"""Batches whose figures may wait on the device before they are copied: one synchronization for that many."""


@dataclass(frozen=True)
class Measured:
    """Figures of N images (tensors on the device while they are taken, then arrays); T = 1 + the number of coverings.

    Attributes:
        indices: int64 N, positions in the split.
        labels: int64 N, the true classes.
        targets: int64 N, the class that is explained: of the image as it is.
        predicted: int64 N,T, the most probable class at first, and after each covering.
        probability: float32 N,T, of the explained class.
        true_probability: float32 N,T, of the true class.
        covered: float32 N,T, share of the image that is covered.
        marked: float32 N, share of the image that the first map marks at all.
        in_range: bool N, whether all maps are what the contract allows, see `is_in_range`; True where the scores of
            the classifier are not numbers, so that no map could be.
        deletion, insertion, drop: float32 N, see `faithfulness`.
        pointing, pointing_any: float32 N, see `pointing`: hits on deciding parts, on any; not a number where there is
            none on the crop.
        chance, chance_any: float32 N, what a point drawn by lot would score.
    """

    indices: Tensor
    labels: Tensor
    targets: Tensor
    predicted: Tensor
    probability: Tensor
    true_probability: Tensor
    covered: Tensor
    marked: Tensor
    in_range: Tensor
    deletion: Tensor
    insertion: Tensor
    drop: Tensor
    pointing: Tensor
    pointing_any: Tensor
    chance: Tensor
    chance_any: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def array(self, name: str) -> np.ndarray:
        """Return a field as an array."""
        values: np.ndarray = getattr(self, name).cpu().numpy()
        return values


@dataclass(frozen=True)
class Measuring:
    """What is measured.

    Attributes:
        cover: how much is covered, and with what.
        steps: how often.
        curve_steps: points of a curve after the first.
        target: "predicted", "true" or the index of a class.
    """

    cover: Cover
    steps: int
    curve_steps: int
    target: str | int

    def passes(self, explainers: int) -> int:
        """Return how many passes an image takes; the first map of an explainer counts as one."""
        return 3 + explainers * (2 + self.steps + 2 * curve_passes(self.curve_steps))


def measure(
    ready: ReadyClassifier,
    explainers: Sequence[NamedExplainer],
    batch: Batch,
    parts: Parts | None,
    measuring: Measuring,
    on_pass: Callable[[int], object],
) -> list[Measured]:
    """Measure a batch with each explainer, without waiting for the device.

    Args:
        ready: the classifier.
        explainers: whose maps are measured.
        batch: images of a split.
        parts: where the true parts are, if that is known.
        measuring: what to measure.
        on_pass: called with the number of images of each pass.
    """
    device = ready.classifier.device
    pixels, labels, indices = (t.to(device, non_blocking=True) for t in (batch.pixels, batch.labels, batch.indices))
    there = None if parts is None else Parts(parts.deciding.to(device), parts.any.to(device))

    def predict(seen: Tensor) -> Tensor:
        on_pass(len(seen))
        return class_probabilities(ready, seen)

    first = predict(pixels)
    targets = _targets(measuring.target, first, labels)

    def probability(seen: Tensor) -> Tensor:
        return _of(predict(seen), targets)

    ends = CurveEnds.of(pixels, _of(first, targets), probability)
    measured = []
    for explainer in explainers:
        maps = explained_maps(explainer, ready, pixels, targets)
        on_pass(len(pixels))
        occlusion = Occlusion(pixels, measuring.cover)
        looks, covered, in_range = _occlude(explainer, ready, first, maps, targets, occlusion, measuring, predict)
        order = saliency_order(maps)
        measured.append(
            Measured(
                indices=indices,
                labels=labels,
                targets=targets,
                predicted=torch.stack([look.argmax(dim=1) for look in looks], dim=1),
                probability=torch.stack([_of(look, targets) for look in looks], dim=1),
                true_probability=torch.stack([_of(look, labels) for look in looks], dim=1),
                covered=torch.stack(covered, dim=1),
                marked=(maps > 0).float().mean(dim=(1, 2)),
                in_range=in_range,
                deletion=deletion_auc(order, ends, probability, measuring.curve_steps),
                insertion=insertion_auc(order, ends, probability, measuring.curve_steps),
                drop=average_drop(ends.p, _of(marked_probabilities(ready, pixels, maps), targets)),
                **_pointing(maps, there),
            )
        )
        on_pass(len(pixels))
    return measured


class Gathering:
    """Measured batches: on the device until there are enough of them, then on the CPU.

    A batch counts whole or not at all, whenever an interruption comes.
    """

    def __init__(self) -> None:
        self._batches: tuple[list[list[Measured]], list[list[Measured]]] = [], []  # copied, and waiting on the device

    def add(self, batch: list[Measured]) -> None:
        """Take the figures of a batch, an entry for each explainer."""
        copied, waiting = self._batches
        if len(waiting) + 1 < WAITING_BATCHES:
            waiting.append(batch)
            return
        self._batches = [*copied, _joined([*waiting, batch])], []

    def all(self) -> list[Measured]:
        """Return the figures of all batches so far, an entry for each explainer; nothing if there was no batch."""
        copied, waiting = self._batches
        return _joined([*copied, *waiting]) if copied or waiting else []


def _joined(batches: list[list[Measured]]) -> list[Measured]:
    return [_concatenated(list(of_explainer)) for of_explainer in zip(*batches, strict=True)]


def _concatenated(batches: list[Measured]) -> Measured:
    names = [field.name for field in fields(Measured)]
    return Measured(**{name: _on_cpu([getattr(batch, name) for batch in batches]) for name in names})


def _on_cpu(tensors: list[Tensor]) -> Tensor:
    """Concatenate tensors, those on the device before they are copied."""
    waiting = [tensor for tensor in tensors if tensor.device.type != "cpu"]
    there = [tensor for tensor in tensors if tensor.device.type == "cpu"]
    return torch.cat([*there, *([torch.cat(waiting).cpu()] if waiting else [])])


def _of(probabilities: Tensor, classes: Tensor) -> Tensor:
    """Return float32 B, the probability of a class for each image."""
    return probabilities.gather(1, classes[:, None]).squeeze(1)


def _targets(target: str | int, first: Tensor, labels: Tensor) -> Tensor:
    if target == "predicted":
        return first.argmax(dim=1)
    return labels if target == "true" else torch.full_like(labels, int(target))


def _occlude(
    explainer: NamedExplainer,
    ready: ReadyClassifier,
    first: Tensor,
    first_maps: Tensor,
    targets: Tensor,
    occlusion: Occlusion,
    measuring: Measuring,
    predict: Callable[[Tensor], Tensor],
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Cover the most marked pixels in turn.

    Returns:
        The probabilities B,K and the shares B covered at each look, and whether all maps were in range (bool B).
    """
    looks, covered = [first], [occlusion.covered.float().mean(dim=(1, 2))]
    maps, in_range = first_maps, _is_lawful(first_maps, first)
    for step in range(measuring.steps):
        occlusion.cover_most_marked(maps)
        looks.append(predict(occlusion.seen))
        covered.append(occlusion.covered.float().mean(dim=(1, 2)))
        if step + 1 < measuring.steps:
            explained = looks[-1].argmax(dim=1) if measuring.target == "predicted" else targets
            maps = explained_maps(explainer, ready, occlusion.seen, explained)
            in_range = in_range & _is_lawful(maps, looks[-1])
    return looks, covered, in_range


def _is_lawful(maps: Tensor, probabilities: Tensor) -> Tensor:
    return is_in_range(maps) | ~probabilities.isfinite().all(dim=1)


def _pointing(maps: Tensor, parts: Parts | None) -> dict[str, Tensor]:
    """Return hits on deciding parts and on any, and the chance of each; not a number where an image has none."""
    unknown = torch.full_like(maps[:, 0, 0], torch.nan)
    if parts is None:
        return dict.fromkeys(("pointing", "pointing_any", "chance", "chance_any"), unknown)
    found = {}
    for suffix, masks in (("", parts.deciding), ("_any", parts.any)):
        share = masks.float().mean(dim=(1, 2))
        found[f"pointing{suffix}"] = torch.where(share > 0, hits(maps, masks), unknown)
        found[f"chance{suffix}"] = torch.where(share > 0, share, unknown)
    return found
