"""Output of PIM and its four losses (arXiv 2202.03822), each in float32 at least, whatever the precision of the logits.

Targets are those of `fgvc_cli.contracts.cross_entropy`. No loss synchronizes with the device or loops over the images
of a batch: dropped points are masked, not gathered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fgvc_cli.contracts import Loss, cross_entropy
from fgvc_heads.options import PimOptions


class PimOutput(NamedTuple):
    """Logits of the combiner and of every point, and the points kept.

    Attributes:
        scores: logits B,K of the combiner: the prediction.
        point_scores: for each map, shallow first, the logits B,N,K of its points, row by row.
        kept: for each map, indices B,S (int64, into its N points) of the points kept, most confident first.
        confidences: for each map, the confidences B,S of the points kept, descending, in [0, 1].
    """

    scores: Tensor
    point_scores: tuple[Tensor, ...]
    kept: tuple[Tensor, ...]
    confidences: tuple[Tensor, ...]


def pim_loss(output: PimOutput, targets: Tensor, options: PimOptions) -> Loss:
    """Return lambda_b L_b + lambda_s L_s + lambda_n L_n + lambda_c L_c, with the four as parts.

    L_b, L_s and L_n are sums over the maps. A loss with weight 0 is neither computed nor a part; a map whose points
    are all kept has no L_n.
    """
    maps = list(zip(output.point_scores, output.kept, strict=True))
    parts = {"L_c": combiner_loss(output.scores, targets)}
    if options.lambda_b > 0:
        parts["L_b"] = maps_loss(output.point_scores, targets)
    if options.lambda_s > 0:
        parts["L_s"] = _total(kept_loss(scores, kept, targets) for scores, kept in maps)
    partly_kept = [(scores, kept) for scores, kept in maps if kept.shape[1] < scores.shape[1]]
    if options.lambda_n > 0 and partly_kept:
        parts["L_n"] = _total(dropped_loss(scores, kept) for scores, kept in partly_kept)
    weights = {"L_c": options.lambda_c, "L_b": options.lambda_b, "L_s": options.lambda_s, "L_n": options.lambda_n}
    value = _total(weights[name] * part for name, part in parts.items())
    return Loss(value, output.scores, {name: part.detach() for name, part in parts.items()})


def combiner_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """L_c: cross entropy of the combiner's logits B,K."""
    return cross_entropy(scores, targets)


def maps_loss(scores: Sequence[Tensor], targets: Tensor) -> Tensor:
    """L_b: cross entropy of the mean logits over a map's points, B,N,K, summed over the maps."""
    means = torch.stack([of_map.mean(dim=1, dtype=_precision(of_map)) for of_map in scores])  # (L, B, K)
    total = cross_entropy(means.flatten(0, 1), torch.cat([targets] * len(means)), reduction="sum")
    return total / len(targets)


def kept_loss(scores: Tensor, kept: Tensor, targets: Tensor) -> Tensor:
    """L_s of one map: cross entropy of logits B,N,K at every point kept (indices B,S), with the target of its image."""
    kept_scores = scores.gather(1, kept.unsqueeze(2).expand(-1, -1, scores.shape[2]))
    return cross_entropy(kept_scores.flatten(0, 1), targets.repeat_interleave(kept.shape[1], dim=0))


def dropped_loss(scores: Tensor, kept: Tensor) -> Tensor:
    """L_n of one map: mean squared error between tanh(logits of dropped points) and -1.

    `scores` are B,N,K, `kept` the indices B,S of the other points, S < N.
    """
    images, points, classes = scores.shape
    bounded = _precise(scores).tanh()
    lowest = bounded.new_full((), -1.0).expand_as(bounded)
    distance = F.mse_loss(bounded, lowest, reduction="none").sum(dim=2)  # (B, N)
    weight = 1 / (images * (points - kept.shape[1]) * classes)
    return (distance * torch.full_like(distance, weight).scatter_(1, kept, 0.0)).sum()


def _total(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()


def _precise(scores: Tensor) -> Tensor:
    return scores.to(_precision(scores))


def _precision(scores: Tensor) -> torch.dtype:
    return scores.dtype if scores.dtype == torch.float64 else torch.float32
