"""Measure occlusion, faithfulness and pointing of each image, batch by batch; the maps themselves are not kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fgvc_cli.explaining.explainers import NamedExplainer, is_in_range
from fgvc_cli.explaining.explanation import PREDICTED, TRUE
from fgvc_cli.explaining.faithfulness import (
    CurveEnds,
    PartMasks,
    average_drop,
    deletion_auc,
    insertion_auc,
    pointing_hits,
)
from fgvc_cli.explaining.masking import (
    Masking,
    ProgressiveMasking,
    class_probabilities,
    saliency_maps,
    saliency_order,
    weighted_probabilities,
)
from fgvc_cli.scoring.model import ReadyClassifier
from fgvc_cli.scoring.scores import Batch

PENDING_BATCHES = 64
"""Number of batches whose figures stay on the device before they are copied, with a single synchronization."""


@dataclass(frozen=True)
class Measurements:
    """Figures of N images; T = 1 + the number of occlusion steps.

    Attributes:
        indices: int64 N, positions in the split.
        labels: int64 N, the true classes.
        targets: int64 N, the class explained for the unmasked image.
        predicted: int64 N,T, the predicted class at each step.
        probability: float32 N,T, of the explained class.
        true_probability: float32 N,T, of the true class.
        masked: float32 N,T, fraction of the image that is masked.
        salient: float32 N, fraction of the image with saliency above 0 in the first map.
        in_range: bool N, whether all maps satisfy `is_in_range`; True if the scores are not finite, because then no
            map can.
        deletion, insertion, drop: float32 N, see `faithfulness`.
        pointing, pointing_any: float32 N, see `pointing_hits`: on deciding parts, on any part; NaN without such a part
            within the crop.
        chance, chance_any: float32 N, expected hits of a random point.
    """

    indices: Tensor
    labels: Tensor
    targets: Tensor
    predicted: Tensor
    probability: Tensor
    true_probability: Tensor
    masked: Tensor
    salient: Tensor
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


@dataclass(frozen=True)
class MeasureSettings:
    """What to measure.

    Attributes:
        masking: how each occlusion step masks the images.
        steps: number of occlusion steps.
        curve_steps: number of steps of the deletion and insertion curves.
        target: the class to explain: "predicted", "true" or the index of a class.
    """

    masking: Masking
    steps: int
    curve_steps: int
    target: str | int

    def passes(self, explainers: int) -> int:
        """Return the number of passes per image; the first map of each explainer counts as one."""
        of_curve = self.curve_steps - 1  # the end points are shared
        return 3 + explainers * (2 + self.steps + 2 * of_curve)


def measure_batch(
    ready: ReadyClassifier,
    explainers: Sequence[NamedExplainer],
    batch: Batch,
    parts: PartMasks | None,
    settings: MeasureSettings,
    on_pass: Callable[[int], object],
) -> list[Measurements]:
    """Measure explainers on a batch, without synchronizing; `on_pass` gets the number of images of each pass."""
    device = ready.classifier.device
    pixels, labels, indices = (t.to(device, non_blocking=True) for t in (batch.pixels, batch.labels, batch.indices))
    masks = None if parts is None else PartMasks(parts.deciding.to(device), parts.any.to(device))

    def predict(images: Tensor) -> Tensor:
        on_pass(len(images))
        return class_probabilities(ready, images)

    first = predict(pixels)
    if settings.target == PREDICTED:
        targets = first.argmax(dim=1)
    else:
        targets = labels if settings.target == TRUE else torch.full_like(labels, int(settings.target))

    def probability(images: Tensor) -> Tensor:
        return _of_class(predict(images), targets)

    ends = CurveEnds.of(pixels, _of_class(first, targets), probability)
    measured = []
    for explainer in explainers:
        maps = saliency_maps(explainer, ready, pixels, targets)
        on_pass(len(pixels))
        state = ProgressiveMasking(pixels, settings.masking)
        steps, masked, in_range = _occlude(explainer, ready, first, maps, targets, state, settings, predict)
        order = saliency_order(maps)
        measured.append(
            Measurements(
                indices=indices,
                labels=labels,
                targets=targets,
                predicted=torch.stack([step.argmax(dim=1) for step in steps], dim=1),
                probability=torch.stack([_of_class(step, targets) for step in steps], dim=1),
                true_probability=torch.stack([_of_class(step, labels) for step in steps], dim=1),
                masked=torch.stack(masked, dim=1),
                salient=(maps > 0).float().mean(dim=(1, 2)),
                in_range=in_range,
                deletion=deletion_auc(order, ends, probability, settings.curve_steps),
                insertion=insertion_auc(order, ends, probability, settings.curve_steps),
                drop=average_drop(ends.p, _of_class(weighted_probabilities(ready, pixels, maps), targets)),
                **_pointing(maps, masks),
            )
        )
        on_pass(len(pixels))
    return measured


class Accumulator:
    """Collects measured batches: on the device until there are enough of them, then on the CPU.

    A batch is included as a whole or not at all, whenever an interruption occurs.
    """

    def __init__(self) -> None:
        self._batches: tuple[list[list[Measurements]], list[list[Measurements]]] = [], []  # copied, pending

    def add(self, batch: list[Measurements]) -> None:
        """Add the figures of a batch, one entry for each explainer."""
        copied, pending = self._batches
        if len(pending) + 1 < PENDING_BATCHES:
            pending.append(batch)
            return
        self._batches = [*copied, _joined([*pending, batch])], []

    def all(self) -> list[Measurements]:
        """Return the figures of all batches so far on the CPU, one entry for each explainer; empty without batches."""
        copied, pending = self._batches
        return _joined([*copied, *pending]) if copied or pending else []


def _joined(batches: list[list[Measurements]]) -> list[Measurements]:
    names = [field.name for field in fields(Measurements)]
    return [
        Measurements(**{name: _on_cpu([getattr(batch, name) for batch in of_explainer]) for name in names})
        for of_explainer in zip(*batches, strict=True)
    ]


def _on_cpu(tensors: list[Tensor]) -> Tensor:
    """Concatenate tensors; those on the device are concatenated before they are copied."""
    on_device = [tensor for tensor in tensors if tensor.device.type != "cpu"]
    on_cpu = [tensor for tensor in tensors if tensor.device.type == "cpu"]
    return torch.cat([*on_cpu, *([torch.cat(on_device).cpu()] if on_device else [])])


def _of_class(probabilities: Tensor, classes: Tensor) -> Tensor:
    """Select the probability of a class for each image, float32 B."""
    return probabilities.gather(1, classes[:, None]).squeeze(1)


def _occlude(
    explainer: NamedExplainer,
    ready: ReadyClassifier,
    first: Tensor,
    maps: Tensor,
    targets: Tensor,
    state: ProgressiveMasking,
    settings: MeasureSettings,
    predict: Callable[[Tensor], Tensor],
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Mask the most salient pixels step by step.

    Returns:
        The probabilities B,K and the masked fractions B at each step, and whether all maps were in range (bool B).
    """
    steps, masked, in_range = [first], [state.masks.float().mean(dim=(1, 2))], _is_valid(maps, first)
    for step in range(settings.steps):
        state.step(maps)
        steps.append(predict(state.masked))
        masked.append(state.masks.float().mean(dim=(1, 2)))
        if step + 1 < settings.steps:
            explained = steps[-1].argmax(dim=1) if settings.target == PREDICTED else targets
            maps = saliency_maps(explainer, ready, state.masked, explained)
            in_range = in_range & _is_valid(maps, steps[-1])
    return steps, masked, in_range


def _is_valid(maps: Tensor, probabilities: Tensor) -> Tensor:
    return is_in_range(maps) | ~probabilities.isfinite().all(dim=1)


def _pointing(maps: Tensor, parts: PartMasks | None) -> dict[str, Tensor]:
    """Return hits on deciding parts and on any, and those expected by chance; NaN if an image has no such part."""
    unknown = torch.full_like(maps[:, 0, 0], torch.nan)
    if parts is None:
        return dict.fromkeys(("pointing", "pointing_any", "chance", "chance_any"), unknown)
    found = {}
    for suffix, masks in (("", parts.deciding), ("_any", parts.any)):
        area = masks.float().mean(dim=(1, 2))
        found[f"pointing{suffix}"] = torch.where(area > 0, pointing_hits(maps, masks), unknown)
        found[f"chance{suffix}"] = torch.where(area > 0, area, unknown)
    return found
