"""PIM's weakly supervised selector: which points of a map are worth a closer look."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Selection(NamedTuple):
    """What a selector makes of one map.

    Attributes:
        scores: B,N,K of all points.
        kept: indices B,S of the points kept, most confident first.
        confidences: B,S of the points kept, descending, in [0, 1].
    """

    scores: Tensor
    kept: Tensor
    confidences: Tensor


class Selector(nn.Module):
    """Scores every point of one map and keeps the most confident ones (arXiv 2202.03822).

    The labels of images alone train it: no one ever said which points matter, hence "weakly supervised".

    Args:
        width: F, the channels of the points.
        classes: K.
        keep: S, how many points are kept; at most as many as there are.
    """

    def __init__(self, width: int, classes: int, keep: int) -> None:
        super().__init__()
        self.keep = keep
        self.hidden = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.relu = nn.ReLU(inplace=True)
        self.classifier = nn.Linear(width, classes)

    def forward(self, points: Tensor) -> Selection:
        """Select among points B,N,F."""
        scores = self.scores(points)
        return Selection(scores, *most_confident(scores, self.keep))

    def scores(self, points: Tensor) -> Tensor:
        """Return the scores B,N,K of points B,N,F."""
        hidden = self.hidden(points).flatten(0, 1)  # B*N,F: the norm's statistics are over all points of all images
        scores: Tensor = self.classifier(self.relu(self.norm(hidden)))
        return scores.unflatten(0, points.shape[:2])


@torch.no_grad()
def most_confident(scores: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Return the indices B,S of the S = `keep` most confident points, and their confidences (float32).

    A point's confidence is its largest softmax probability. They descend, because the combiner's weights belong to
    places in that order.

    Args:
        scores: B,N,K.
        keep: at most N.
    """
    confidence = scores.softmax(dim=2, dtype=torch.float32).amax(dim=2)  # B,N
    confidences, kept = confidence.topk(keep, dim=1, sorted=True)
    return kept, confidences
