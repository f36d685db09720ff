"""PIM's weakly supervised selector: keeps the most discriminative points of a map."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Selection(NamedTuple):
    """Output of a selector for one map.

    Attributes:
        scores: logits B,N,K of all points.
        kept: indices B,S of the points kept, most confident first.
        confidences: B,S of the points kept, descending, in [0, 1].
    """

    scores: Tensor
    kept: Tensor
    confidences: Tensor


class Selector(nn.Module):
    """Classify every point of one map and keep the most confident ones (arXiv 2202.03822).

    It is weakly supervised: image labels alone train it, no annotation says which points matter.

    Args:
        width: F, channels of the points.
        classes: K.
        keep: S, number of points kept, at most N.
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
        """Return the logits B,N,K of points B,N,F."""
        hidden = self.hidden(points).flatten(0, 1)  # (B*N, F): batch norm over all points of all images
        scores: Tensor = self.classifier(self.relu(self.norm(hidden)))
        return scores.unflatten(0, points.shape[:2])


@torch.no_grad()
def most_confident(scores: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Return the indices B,S of the S = `keep` most confident points of logits B,N,K, and their confidences (float32).

    The confidence of a point is its largest softmax probability. Points are sorted by descending confidence, because
    the combiner's weights belong to positions in that order.
    """
    confidence = scores.softmax(dim=2, dtype=torch.float32).amax(dim=2)  # (B, N)
    confidences, kept = confidence.topk(keep, dim=1, sorted=True)
    return kept, confidences
