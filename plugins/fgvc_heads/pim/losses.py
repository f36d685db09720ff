"""PIM's four losses (arXiv 2202.03822), each in float32 whatever the scores' precision.

Targets are class indices B or probabilities B,K throughout. No loss waits for the device, and none loops over the
images of a batch: dropped points are told by a mask, not gathered.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fgvc_cli.contracts import Loss
from fgvc_heads.pim.output import PimOutput
from fgvc_heads.pim_options import PimOptions


def pim_loss(output: PimOutput, targets: Tensor, options: PimOptions) -> Loss:
    """Return lambda_b L_b + lambda_s L_s + lambda_n L_n + lambda_c L_c, with the four as parts.

    L_b, L_s and L_n are sums over the maps. A loss with weight 0 is not computed and is no part; a map of which
    nothing is dropped has no L_n.
    """
    terms = [("L_c", options.lambda_c, combiner_loss(output.scores, targets))]
    for scores, kept in zip(output.point_scores, output.kept, strict=True):
        if options.lambda_b > 0:
            terms.append(("L_b", options.lambda_b, map_loss(scores, targets)))
        if options.lambda_s > 0:
            terms.append(("L_s", options.lambda_s, kept_loss(scores, kept, targets)))
        if options.lambda_n > 0 and kept.shape[1] < scores.shape[1]:
            terms.append(("L_n", options.lambda_n, dropped_loss(scores, kept)))
    parts: dict[str, Tensor] = {}
    for name, _, term in terms:
        parts[name] = parts[name] + term.detach() if name in parts else term.detach()
    value = torch.stack([weight * term for _, weight, term in terms]).sum()
    return Loss(value, output.scores, parts)


def combiner_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """L_c: the cross entropy of the combiner's scores B,K."""
    return F.cross_entropy(scores.float(), targets)


def map_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """L_b of one map: the cross entropy of the mean over its points' scores B,N,K."""
    return F.cross_entropy(scores.mean(dim=1, dtype=torch.float32), targets)


def kept_loss(scores: Tensor, kept: Tensor, targets: Tensor) -> Tensor:
    """L_s of one map: the cross entropy of every kept point's scores against its image's target.

    Args:
        scores: B,N,K.
        kept: indices B,S.
        targets: B or B,K.
    """
    kept_scores = scores.gather(1, kept.unsqueeze(2).expand(-1, -1, scores.shape[2]))
    return F.cross_entropy(kept_scores.flatten(0, 1).float(), targets.repeat_interleave(kept.shape[1], dim=0))


def dropped_loss(scores: Tensor, kept: Tensor) -> Tensor:
    """L_n of one map: the mean squared distance of tanh(score) from -1, over the scores of points not kept.

    Args:
        scores: B,N,K.
        kept: indices B,S with S < N.
    """
    images, points, classes = scores.shape
    bounded = scores.float().tanh()
    lowest = bounded.new_full((), -1.0).expand_as(bounded)
    distance = F.mse_loss(bounded, lowest, reduction="none").sum(dim=2)  # B,N
    dropped = torch.ones_like(distance).scatter_(1, kept, 0.0)
    return (distance * dropped).sum() / (images * (points - kept.shape[1]) * classes)
