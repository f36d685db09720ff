"""Whether what a map marks is what the decision rests on: deletion, insertion and average drop, batched on the device.

All of them look at p, the probability (softmax) of the class that the map explains.

- Deletion (Petsiuk et al. 2018, RISE, arXiv 1806.07421, section 4.2): pixels are replaced by the image's mean colour in
  the order of saliency, most marked first; the area under p over the share of pixels replaced. Lower is better. (The
  authors replace by a constant grey.)
- Insertion (the same): pixels are put back onto a blurred image in the order of saliency. Higher is better. (The
  authors blur with a standard deviation of about 2 % of the side, here it is 10 %, see `covering.BLUR_SIGMA`: the
  parts that tell fine-grained classes apart are small, but not that small.)
- Average drop (Chattopadhay et al. 2018, Grad-CAM++, arXiv 1710.11063, section 4.1): max(0, Y - O) / Y, where Y is p of
  the image and O is p of the normalised image times the map, so that what is not marked takes on the mean colour of
  the normalisation. Lower is better, and a map that marks everything gets 0: read it beside the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fgvc_cli.explaining.covering import filling

Probability = Callable[[Tensor], Tensor]
"""From uint8 pixels B,3,S,S to p, float32 B."""


@dataclass(frozen=True)
class CurveEnds:
    """What deletion and insertion begin and end with, the same for every map of a batch.

    Attributes:
        pixels: uint8 B,3,S,S, the images.
        mean, blurred: the images filled with their mean colour, and blurred.
        p, p_mean, p_blurred: float32 B, the probabilities of the three.
    """

    pixels: Tensor
    mean: Tensor
    blurred: Tensor
    p: Tensor
    p_mean: Tensor
    p_blurred: Tensor

    @classmethod
    def of(cls, pixels: Tensor, p: Tensor, probability: Probability) -> CurveEnds:
        """Make them for images whose probabilities are known."""
        mean, blurred = filling(pixels, "mean"), filling(pixels, "blur")
        return cls(pixels, mean, blurred, p, probability(mean), probability(blurred))


def deletion_auc(order: Tensor, ends: CurveEnds, probability: Probability, steps: int) -> Tensor:
    """Return the area under the deletion curve, float32 B in [0, 1].

    Args:
        order: int64 B,S,S, see `saliency_order`.
        ends: of the images.
        probability: of the explained class.
        steps: equal parts that the pixels are replaced in; the curve has one point more.
    """
    return _area(order, (ends.pixels, ends.p), (ends.mean, ends.p_mean), probability, steps)


def insertion_auc(order: Tensor, ends: CurveEnds, probability: Probability, steps: int) -> Tensor:
    """Return the area under the insertion curve, float32 B in [0, 1]; arguments as for `deletion_auc`."""
    return _area(order, (ends.blurred, ends.p_blurred), (ends.pixels, ends.p), probability, steps)


def curve_passes(steps: int) -> int:
    """Return how many forward passes one curve takes beyond its ends."""
    return steps - 1


def average_drop(p: Tensor, p_of_marked: Tensor) -> Tensor:
    """Return max(0, Y - O) / Y, float32 B in [0, 1].

    Args:
        p: Y, of the images.
        p_of_marked: O, of the normalised images times their maps.
    """
    return (p - p_of_marked).clamp(min=0) / p.clamp(min=torch.finfo(p.dtype).tiny)


def _area(
    order: Tensor,
    first: tuple[Tensor, Tensor],
    last: tuple[Tensor, Tensor],
    probability: Probability,
    steps: int,
) -> Tensor:
    """Replace pixels of the first images by those of the last in the order of saliency; the trapezoid rule."""
    places, pixels = order[:, None], order.shape[1] * order.shape[2]  # (B, 1, S, S)
    counts = [round(pixels * step / steps) for step in range(steps + 1)]
    area = torch.zeros_like(first[1])
    before = first[1]
    for count, previous in zip(counts[1:], counts, strict=False):
        after = last[1] if count == pixels else probability(torch.where(places < count, last[0], first[0]))
        area += (before + after) * ((count - previous) / (2 * pixels))
        before = after
    return area
