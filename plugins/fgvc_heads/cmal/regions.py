"""Attention of CMAL's experts (Pattern Recognition 140, 109550), and the image regions that it marks.

An expert's attention map shows where the evidence for its predicted class lies. Everything is computed in float32 at
least, whatever the precision of the model, because rounding would move the edges of the boxes. No function
synchronizes with the device or loops over the images of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fgvc_heads.cmal.experts import PooledClassifier
from fgvc_heads.cmal.objectives import CmalOutput
from fgvc_heads.options import CmalOptions


class Attention(NamedTuple):
    """Attention maps (float32) and regions (int64) of a batch, without gradient.

    Boxes are x0, y0, x1, y1 in pixels of the image; x1 and y1 are exclusive.

    Attributes:
        expert_maps: B,3,H,W in [0, 1] at the size of the images, e1 to e3.
        expert_boxes: B,3,4, the region of each.
        overall_map: B,H,W in [0, 1], the sum of the three, rescaled.
        overall_box: B,4, the region of the sum.
    """

    expert_maps: Tensor
    expert_boxes: Tensor
    overall_map: Tensor
    overall_box: Tensor


@torch.no_grad()
def attend(
    output: CmalOutput, classifiers: Sequence[PooledClassifier], size: tuple[int, int], options: CmalOptions
) -> Attention:
    """Compute the attention of an output that has the experts' scores and maps, on images of a size (H, W).

    `classifiers` are the experts', with their current weights.
    """
    assert output.expert_maps is not None, "this part does not keep the experts' maps"
    maps = []
    for own_map, scores, classifier in zip(output.expert_maps, output.expert_scores, classifiers, strict=True):
        assert scores is not None, "this part does not score the experts"
        maps.append(at_image_size(attention_map(own_map, scores, classifier), size, options.eps))
    experts, overall = torch.stack(maps, dim=1), to_unit_range(torch.stack(maps).sum(dim=0), options.eps)
    boxes, box = (region_boxes(m, options.threshold, options.padding) for m in (experts, overall))
    return Attention(experts, boxes, overall, box)


@torch.no_grad()
def attention_map(expert_map: Tensor, scores: Tensor, classifier: PooledClassifier) -> Tensor:
    """Return B,H,W: each point's contribution to the expert's logit of its predicted class.

    That is W2[k] W1 x, with x the point's channels, W1 and W2 the weights of the classifier's two linear layers and k
    the predicted class; norms, ELU and biases are left out. W2[k] W1 comes first: it is one vector of D values per
    image, whereas W1 x would be a whole map.

    Args:
        expert_map: B,D,H,W.
        scores: logits B,K of the same expert on the same images.
        classifier: the expert's.
    """
    with torch.autocast(expert_map.device.type, enabled=False):
        points = expert_map.flatten(2).to(torch.promote_types(expert_map.dtype, torch.float32))  # (B, D, H*W)
        chosen = classifier.output.weight.to(points.dtype).index_select(0, scores.argmax(dim=1))  # (B, hidden)
        direction = chosen @ classifier.hidden.weight.to(points.dtype)  # (B, D)
        attention = direction.unsqueeze(1) @ points  # (B, 1, H*W)
    return attention.view(scores.shape[0], *expert_map.shape[2:])


@torch.no_grad()
def at_image_size(attention: Tensor, size: tuple[int, int], eps: float) -> Tensor:
    """Resize attention B,h,w to H,W (bilinear, aligned corners) and scale it to [0, 1]."""
    enlarged = F.interpolate(attention.unsqueeze(1), size, mode="bilinear", align_corners=True)
    return to_unit_range(enlarged.squeeze(1), eps)


def to_unit_range(attention: Tensor, eps: float) -> Tensor:
    """Min-max scale attention B,H,W to [0, 1] per image; `eps` keeps a constant map at 0."""
    lowest, highest = attention.amin(dim=(1, 2), keepdim=True), attention.amax(dim=(1, 2), keepdim=True)
    return (attention - lowest) / (highest - lowest + eps)


@torch.no_grad()
def region_boxes(attention: Tensor, threshold: float, padding: float) -> Tensor:
    """Return the boxes ...,4 (int64: x0, y0, x1, y1, the last two exclusive) of attention maps ...,H,W.

    A box is the tightest one around the points of at least `threshold`, padded on each side by `padding` times the
    image side and clipped to the image; where no point passes, it is the whole image.
    """
    passed = attention >= threshold
    x0, x1 = _span(passed.any(dim=-2), padding)
    y0, y1 = _span(passed.any(dim=-1), padding)
    return torch.stack((x0, y0, x1, y1), dim=-1)


@torch.no_grad()
def crop(images: Tensor, boxes: Tensor) -> Tensor:
    """Crop a box from each image and resize it to the image's size (bilinear, aligned corners).

    Rows, then columns, are gathered and interpolated. `torch.nn.functional.grid_sample` would take one operation, but
    its coordinates run from -1 to 1, which costs a few hundred-thousandths of a pixel at 448 px.

    Args:
        images: B,3,H,W.
        boxes: B,4 as `region_boxes` returns them.

    Returns:
        B,3,H,W in the dtype and memory format of `images`.
    """
    x0, y0, x1, y1 = boxes.unbind(dim=1)
    pixels = images.to(torch.promote_types(images.dtype, torch.float32))
    enlarged = _stretch(_stretch(pixels, 2, y0, y1), 3, x0, x1)
    return torch.empty_like(images).copy_(enlarged)


def _span(passed: Tensor, padding: float) -> tuple[Tensor, Tensor]:
    """Return the start and the exclusive end (...) of the box along one axis; `passed` is ...,N.

    With f and l the first and last line that pass, these are max(int(f - padding * N), 0) and
    min(int(l + padding * N), N), as in the published code. At least one line belongs to the box; the formula alone
    would not guarantee that for images of a few pixels or without padding.
    """
    size = passed.shape[-1]
    reach = round(padding * size, 6)  # 0.07 * 100 is 7.000000000000001
    lines = torch.arange(size, device=passed.device)
    first = torch.where(passed, lines, size).amin(dim=-1)
    last = torch.where(passed, lines, -1).amax(dim=-1)
    start = (first - math.ceil(reach)).clamp(min=0)
    end = torch.maximum((last + math.floor(reach)).clamp(max=size), start + 1)
    none = last < 0
    return start.masked_fill(none, 0), end.masked_fill(none, size)


def _stretch(images: Tensor, dim: int, start: Tensor, end: Tensor) -> Tensor:
    """Stretch the lines from `start` to `end` (B, exclusive) of a dimension over the whole dimension."""
    size = images.shape[dim]
    last = (end - start - 1).unsqueeze(1)  # (B, 1)
    step = last.to(images.dtype) / max(size - 1, 1)
    position = torch.arange(size, device=images.device) * step  # (B, N), within the box
    before = position.floor()
    weight = position - before
    before = before.long()
    after = torch.minimum(before + 1, last)
    shape = [images.shape[0], 1, 1, 1]
    shape[dim] = size
    near, far = (
        images.gather(dim, (start.unsqueeze(1) + index).view(shape).expand_as(images)) for index in (before, after)
    )
    return torch.lerp(near, far, weight.view(shape))
