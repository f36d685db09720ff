"""PIM's combiner: one graph convolution over the points that the selectors kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

DENSE_FRACTION = 1 / 4
"""Fraction of a map's points from which on `pool_in_place` moves less memory in a training step than
`pool_gathered`."""


class Combiner(nn.Module):
    """Combine the points kept of all maps into the logits B,K of the image (arXiv 2202.03822).

    The S points are pooled to J joints, which exchange information through a learned adjacency A0 plus a term that
    adapts to the image once alpha is no longer 0: A[i, j] = A0[i, j] + alpha * tanh(q[i] - k[j]).

    Args:
        points: S, total number of points kept.
        width: F, channels of a point.
        classes: K.
        joints: J, at least 1.
        adjacency_width: channels of q and k, at least 1.
        dropout: dropout rate on the combined features.
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
        """Return logits B,K of points B,N,F per map, shallow first.

        `kept` are the indices B,S_l of the points kept on each map, by descending confidence.
        """
        pooled = pool_kept(points, kept, self.pool_points.weight)
        joints = (pooled + self.pool_points.bias.unsqueeze(1)).transpose(1, 2)  # (B, F, J)
        query, key = self.query(joints).mean(dim=1), self.key(joints).mean(dim=1)  # (B, J)
        adjacency = self.adjacency + self.alpha * torch.tanh(query.unsqueeze(2) - key.unsqueeze(1))  # (B, J, J)
        joints = self.norm(self.conv(joints) @ adjacency)
        combined = self.pool_joints(joints).squeeze(2)  # (B, F)
        scores: Tensor = self.classifier(self.dropout(combined))
        return scores


def pool_kept(points: Sequence[Tensor], kept: Sequence[Tensor], weight: Tensor) -> Tensor:
    """Return B,J,F: J weighted sums over the points kept of all maps.

    The points are never concatenated to B,S,F, which would copy most of a pyramid if most of it is kept, in the
    forward and in the backward pass.

    Args:
        points: of each map, B,N,F.
        kept: of each map, indices B,S_l of points; no point twice.
        weight: J,S, with S the sum of the S_l: a weight for each position in `kept`, map after map.
    """
    weights = weight.split([indices.shape[1] for indices in kept], dim=1)
    sums = [
        (pool_in_place if indices.shape[1] >= DENSE_FRACTION * of_map.shape[1] else pool_gathered)(
            of_map, indices, of_points
        )
        for of_map, indices, of_points in zip(points, kept, weights, strict=True)
    ]
    return torch.stack(sums).sum(dim=0)


def pool_in_place(points: Tensor, kept: Tensor, weight: Tensor) -> Tensor:
    """Return weight J,S times the points kept, B,J,F, by multiplying all points B,N,F; suits many points kept."""
    images, joints = points.shape[0], weight.shape[0]
    zeros = weight.new_zeros(images, joints, points.shape[1])
    indices, weights = (x.expand(images, joints, -1) for x in (kept.unsqueeze(1), weight.unsqueeze(0)))
    return zeros.scatter(2, indices, weights) @ points


def pool_gathered(points: Tensor, kept: Tensor, weight: Tensor) -> Tensor:
    """Return weight J,S times the points kept, B,J,F, by gathering them from B,N,F; suits few points kept."""
    images, count, _ = points.shape
    first = torch.arange(0, images * count, count, device=kept.device).unsqueeze(1)
    rows = points.flatten(0, 1).index_select(0, (first + kept).flatten())  # copies whole rows
    return weight @ rows.unflatten(0, kept.shape)
