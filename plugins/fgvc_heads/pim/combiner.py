"""X"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Combiner(nn.Module):
    """Points kept of all maps to the scores B,K of the whole image (arXiv 2202.03822).

    The S points kept are pooled to J joints, which exchange what they know through an adjacency that is learned, A0,
    and that adapts to the image once alpha has left 0: A[i, j] = A0[i, j] + alpha * tanh(q[i] - k[j]).

    Args:
        points: S, the points kept of all maps together.
        width: F, the channels of a point.
        classes: K.
        joints: J, at least 1.
        adjacency_width: channels of q and k, at least 1.
        dropout: probability with which a combined feature is set to 0 in training.
    """

    def __init__(
        self, points: int, width: int, classes: int, *, joints: int, adjacency_width: int, dropout: float
    ) -> None:
        super().__init__()
        self.pool_points = nn.Linear(points, joints)
        self.adjacency = nn.Parameter(torch.eye(joints) / 100 + 1 / 100)  # A0
        self.alpha = nn.Parameter(torch.zeros(1))
        self.query = nn.Conv1d(width, adjacency_width, kernel_size=1)
        self.key = nn.Conv1d(width, adjacency_width, kernel_size=1)
        self.conv = nn.Conv1d(width, width, kernel_size=1)
        self.norm = nn.BatchNorm1d(width)
        self.pool_joints = nn.Linear(joints, 1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, classes)

    def forward(self, points: Sequence[Tensor], kept: Sequence[Tensor]) -> Tensor:
        """Return scores B,K.

        Args:
            points: of each map, shallow first, all B,N,F.
            kept: of each map, the indices B,S_l of the points kept, by descending confidence.
        """
        pooled = pool_kept(points, kept, self.pool_points.weight)
        joints = (pooled + self.pool_points.bias.unsqueeze(1)).transpose(1, 2)  # B,F,J
        query, key = self.query(joints).mean(dim=1), self.key(joints).mean(dim=1)  # B,J
        adjacency = self.adjacency + self.alpha * torch.tanh(query.unsqueeze(2) - key.unsqueeze(1))  # B,J,J
        joints = self.norm(self.conv(joints) @ adjacency)
        combined = self.pool_joints(joints).squeeze(2)  # B,F
        scores: Tensor = self.classifier(self.dropout(combined))
        return scores


MANY = 1 / 4
"""Share of a map's points from which on multiplying all of it, three times in a step, moves less memory than gathering
these and scattering their gradient."""


def pool_kept(points: Sequence[Tensor], kept: Sequence[Tensor], weight: Tensor) -> Tensor:
    """Return B,J,F: J weighted sums over the points kept of all maps.

    Args:
        points: of each map, B,N,F.
        kept: of each map, the indices B,S_l of points; no point twice.
        weight: J,S, with S the sum of the S_l: a weight for each place in `kept`, map after map.
    """
    places = weight.split([indices.shape[1] for indices in kept], dim=1)
    sums = [
        (pool_in_place if indices.shape[1] >= MANY * of_map.shape[1] else pool_gathered)(of_map, indices, weights)
        for of_map, indices, weights in zip(points, kept, places, strict=True)
    ]
    return torch.stack(sums).sum(dim=0)


def pool_in_place(points: Tensor, kept: Tensor, weight: Tensor) -> Tensor:
    """Return weight J,S times the points kept, B,J,F: multiplies all points B,N,F, most of which are kept."""
    images, joints = len(points), len(weight)
    nothing = weight.new_zeros(images, joints, points.shape[1])
    indices, weights = (x.expand(images, joints, -1) for x in (kept.unsqueeze(1), weight.unsqueeze(0)))
    return nothing.scatter(2, indices, weights) @ points


def pool_gathered(points: Tensor, kept: Tensor, weight: Tensor) -> Tensor:
    """Return weight J,S times the points kept, B,J,F: multiplies these alone, few of the points B,N,F."""
    images, count, _ = points.shape
    first = torch.arange(0, images * count, count, device=kept.device).unsqueeze(1)
    rows = points.flatten(0, 1).index_select(0, (first + kept).flatten())  # whole rows, in which they are copied
    return weight @ rows.unflatten(0, kept.shape)
