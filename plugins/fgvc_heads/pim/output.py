"""What PIM's forward pass returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class PimOutput(NamedTuple):
    """Scores of the combiner and of every point, and which points were kept.

    Attributes:
        scores: B,K of the combiner: the prediction.
        point_scores: for each map, shallow first, the scores B,N,K of its points, row by row.
        kept: for each map, the indices B,S (int64, into its N points) of the points kept, most confident first.
        confidences: for each map, the confidences B,S of the points kept, descending, in [0, 1].
    """

    scores: Tensor
    point_scores: tuple[Tensor, ...]
    kept: tuple[Tensor, ...]
    confidences: tuple[Tensor, ...]
