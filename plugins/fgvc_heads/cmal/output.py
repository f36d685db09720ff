"""What CMAL's forward pass returns, and its attention."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class CmalOutput(NamedTuple):
    """Scores of the classifiers that the part in question has; None stands for what it has not.

    Attributes:
        expert_scores: B,K of each expert, e1 (shallow) to e3 (deep).
        concat_scores: B,K of the experts' concatenation.
        expert_maps: B,D,H,W of each expert, detached: what attention is computed from.
    """

    expert_scores: tuple[Tensor | None, Tensor | None, Tensor | None]
    concat_scores: Tensor | None
    expert_maps: tuple[Tensor, Tensor, Tensor] | None

    def all_scores(self) -> list[Tensor]:
        """Return the scores there are, the concatenation's last."""
        return [scores for scores in (*self.expert_scores, self.concat_scores) if scores is not None]


class Attention(NamedTuple):
    """Where the experts look, all of it in float32 (boxes in int64) and without gradient.

    Boxes are x0, y0, x1, y1 in pixels of the image; x1 and y1 are the first column and row outside.

    Attributes:
        expert_maps: B,3,H,W in [0, 1] at the size of the images, e1 to e3: each expert's attention map.
        expert_boxes: B,3,4, their attention regions.
        overall_map: B,H,W in [0, 1]: the three together.
        overall_box: B,4, the overall attention region.
    """

    expert_maps: Tensor
    expert_boxes: Tensor
    overall_map: Tensor
    overall_box: Tensor
