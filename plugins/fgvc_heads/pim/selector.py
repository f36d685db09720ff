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
        points: B,S,F, the points kept, in that order.
    """

    scores: Tensor
    kept: Tensor
    confidences: Tensor
    points: Tensor


class Selector(nn.Module):
    """Scores every point of one map and keeps the most confident ones (arXiv 2202.03822).

    A point's confidence is its largest softmax probability. The labels of images alone train it: no one ever said
    which points matter, hence "weakly supervised".

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
        images, count, _ = points.shape
        hidden = self.hidden(points).flatten(0, 1)  # B*N,F: the norm's statistics are over all points of all images
        scores = self.classifier(self.relu(self.norm(hidden))).unflatten(0, (images, count))
        with torch.no_grad():
            confidence = scores.float().softmax(dim=2).amax(dim=2)  # B,N
            # Descending, because the combiner's weights belong to places in that order.
            confidences, kept = confidence.topk(self.keep, dim=1, sorted=True)
        rows = kept.unsqueeze(2).expand(-1, -1, points.shape[2])
        return Selection(scores, kept, confidences, points.gather(1, rows))
