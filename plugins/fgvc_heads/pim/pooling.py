"""How the points that the selectors kept come to the combiner: as weighted sums, without being brought together.

Bringing them together, B,S,F, copies most of a pyramid of which most is kept, and the backward pass copies as much
back. Neither is needed for sums: where many points of a map are kept, the weights go to the points' places instead,
and all of the map is multiplied as it lies.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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
