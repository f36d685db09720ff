"""PIM's combiner: one graph convolution over the points that the selectors kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Combiner(nn.Module):
    """Points of all maps, B,S,F, to the scores B,K of the whole image (arXiv 2202.03822).

    The S points are pooled to J joints, which exchange what they know through an adjacency that is learned, A0, and
    that adapts to the image once alpha has left 0: A[i, j] = A0[i, j] + alpha * tanh(q[i] - k[j]).

    Args:
        points: S, the points of all maps together.
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

    def forward(self, points: Tensor) -> Tensor:
        """Return scores B,K of points B,S,F: maps shallow first, each by descending confidence."""
        joints = self.pool_points(points.transpose(1, 2))  # B,F,J
        query, key = self.query(joints).mean(dim=1), self.key(joints).mean(dim=1)  # B,J
        adjacency = self.adjacency + self.alpha * torch.tanh(query.unsqueeze(2) - key.unsqueeze(1))  # B,J,J
        joints = self.norm(self.conv(joints) @ adjacency)
        combined = self.pool_joints(joints).squeeze(2)  # B,F
        scores: Tensor = self.classifier(self.dropout(combined))
        return scores
