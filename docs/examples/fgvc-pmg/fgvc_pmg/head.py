"""PMG: a classifier per map for the last three maps and one for all of them, each with its own update."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgvc_cli.contracts import BackboneInfo, Features, Head, Loss, Model, Objective, Reads
from fgvc_pmg.jigsaw import jigsaw
from fgvc_pmg.options import PmgOptions

STAGES = ("stage1", "stage2", "stage3")
CONCAT = "concat"
"""Parts of the head, besides the whole."""


class PmgHead(Head):
    """The head of Du et al. 2020 (arXiv 2003.03836), section 3.

    Two convolutions and a global max pool turn each of the last three maps into a vector, which is classified by its
    stage's classifier; the concatenation of the three vectors has its own. A batch takes four updates: the stages on
    jigsaw patches, shallow to deep, and the concatenation on the images.

    Args:
        backbone: description of a backbone with at least three maps.
        classes: number of classes K.
        options: see `PmgOptions`.
    """

    def __init__(self, backbone: BackboneInfo, classes: int, options: PmgOptions) -> None:
        super().__init__(backbone, classes, options)
        self.options = options
        self.maps = tuple(range(len(backbone.maps)))[-len(STAGES) :]
        width, channels, hidden = options.stage_width, options.stage_channels, options.hidden_width
        self.stages = nn.ModuleList(stage(backbone.maps[index].channels, width, channels) for index in self.maps)
        self.classifiers = nn.ModuleList(classifier(channels, hidden, classes) for _ in STAGES)
        self.concat = classifier(channels * len(STAGES), hidden, classes)

    def reads(self, part: str | None = None) -> Reads:
        """Return one map for a stage, otherwise all three."""
        return Reads(maps=(self.maps[STAGES.index(part)],) if part in STAGES else self.maps)

    def forward(self, features: Features, part: str | None = None) -> Tensor:
        """Return the scores B,K of a part, or B,4,K of all classifiers, the concatenation last."""
        if part in STAGES:
            level = STAGES.index(part)
            return self._classified(level, self._vector(level, features))
        vectors = [self._vector(level, features) for level in range(len(STAGES))]  # B,D each
        concat: Tensor = self.concat(torch.cat(vectors, dim=1))
        if part == CONCAT:
            return concat
        return torch.stack([*(self._classified(level, v) for level, v in enumerate(vectors)), concat], dim=1)

    def objectives(self, images: Tensor, targets: Tensor) -> Generator[Objective, Any, None]:
        """Yield the stages on jigsaw patches, then the concatenation on the images."""
        missing_grad = self.options.missing_grad

        def stage_loss(scores: Tensor) -> Loss:
            return Loss(F.cross_entropy(scores.float(), targets))

        def concat_loss(scores: Tensor) -> Loss:
            return Loss(self.options.concat_weight * F.cross_entropy(scores.float(), targets), scores)

        for part, patches in zip(STAGES, self.options.patches, strict=True):
            yield Objective(jigsaw(images, patches), stage_loss, part, missing_grad, part)
        yield Objective(images, concat_loss, CONCAT, missing_grad, CONCAT)

    def predict(self, model: Model, images: Tensor) -> Tensor:
        """Return B,K: the mean scores of the four classifiers, or those of the concatenation."""
        scores: Tensor = model(images).mean(dim=1) if self.options.combined else model(images, CONCAT)
        return scores

    def _vector(self, level: int, features: Features) -> Tensor:
        pooled: Tensor = self.stages[level](features.maps[self.maps[level]]).amax(dim=(2, 3))
        return pooled

    def _classified(self, level: int, vector: Tensor) -> Tensor:
        scores: Tensor = self.classifiers[level](vector)
        return scores


def stage(inputs: int, width: int, channels: int) -> nn.Sequential:
    """Return the convolutions for a map B,C,H,W before pooling."""
    return nn.Sequential(
        nn.Conv2d(inputs, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


def classifier(inputs: int, hidden: int, classes: int) -> nn.Sequential:
    """Return a classifier of vectors B,D."""
    return nn.Sequential(
        nn.BatchNorm1d(inputs), nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ELU(), nn.Linear(hidden, classes)
    )
