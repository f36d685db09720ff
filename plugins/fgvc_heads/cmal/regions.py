"""X"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fgvc_heads.cmal.experts import PooledClassifier


@torch.no_grad()
def attention_map(expert_map: Tensor, scores: Tensor, classifier: PooledClassifier) -> Tensor:
    """Return B,H,W: each point's say in the expert's score of the class that it predicts.

    That is W2[k] W1 x, with x the point's channels, W1 and W2 the weights of the classifier's two linear layers and k
    the predicted class; norms, ELU and biases are left out. W2[k] W1 comes first: D numbers an image, where W1 x
    would be a whole map.

    Args:
        expert_map: B,D,H,W.
        scores: B,K of the same expert on the same images; the largest tells k.
        classifier: that expert's, with the weights to be used.
    """
    with torch.autocast(expert_map.device.type, enabled=False):
        points = expert_map.flatten(2).to(torch.promote_types(expert_map.dtype, torch.float32))  # B,D,H*W
        chosen = classifier.output.weight.to(points.dtype).index_select(0, scores.argmax(dim=1))  # B,hidden
        direction = chosen @ classifier.hidden.weight.to(points.dtype)  # B,D
        attention = direction.unsqueeze(1) @ points  # B,1,H*W
    return attention.view(len(scores), *expert_map.shape[2:])


@torch.no_grad()
def at_image_size(attention: Tensor, size: tuple[int, int], eps: float) -> Tensor:
    """Bring attention B,h,w to the images' H,W (bilinearly, corners aligned) and to the range [0, 1]."""
    enlarged = F.interpolate(attention.unsqueeze(1), size, mode="bilinear", align_corners=True)
    return to_unit_range(enlarged.squeeze(1), eps)


def to_unit_range(attention: Tensor, eps: float) -> Tensor:
    """Shift and scale attention B,H,W so that each image's goes from 0 to 1; `eps` keeps a constant one at 0."""
    lowest, highest = attention.amin(dim=(1, 2), keepdim=True), attention.amax(dim=(1, 2), keepdim=True)
    return (attention - lowest) / (highest - lowest + eps)


@torch.no_grad()
def region_boxes(attention: Tensor, threshold: float, padding: float) -> Tensor:
    """Return the boxes ...,4 (int64: x0, y0, x1, y1, the last two exclusive) of attention maps ...,H,W.

    A box is the tightest around the points of at least `threshold`, widened on each side by `padding` times the
    image's side and cut at its edges; where no point passes, it is the whole image.
    """
    passed = attention >= threshold
    x0, x1 = _span(passed.any(dim=-2), padding)
    y0, y1 = _span(passed.any(dim=-1), padding)
    return torch.stack((x0, y0, x1, y1), dim=-1)


@torch.no_grad()
def crop(images: Tensor, boxes: Tensor) -> Tensor:
    """Cut a box out of each image and enlarge it to the image's size, bilinearly with aligned corners.

    Rows, then columns, are looked up and mixed. `torch.nn.functional.grid_sample` would do it in one operation, but
    its coordinates run from -1 to 1, which costs a few hundred-thousandths of a pixel at 448 px.

    Args:
        images: B,3,H,W.
        boxes: B,4 as `region_boxes` returns them.

    Returns:
        B,3,H,W in the type and memory format of `images`.
    """
    x0, y0, x1, y1 = boxes.unbind(dim=1)
    pixels = images.to(torch.promote_types(images.dtype, torch.float32))
    enlarged = _enlarge(_enlarge(pixels, 2, y0, y1), 3, x0, x1)
    return torch.empty_like(images).copy_(enlarged)


def _span(passed: Tensor, padding: float) -> tuple[Tensor, Tensor]:
    """Return the first and the last plus one (...) of the lines ...,N that belong to the box.

    With f and l the first and the last line that passed, they are max(int(f - padding * N), 0) and
    min(int(l + padding * N), N), as the method's code has it. At least one line belongs to the box, which that rule
    alone would not see to on images of a few pixels or without padding.
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


def _enlarge(images: Tensor, dim: int, start: Tensor, end: Tensor) -> Tensor:
    """Stretch the lines from `start` to before `end` (B) of a dimension over all of it."""
    size = images.shape[dim]
    furthest = (end - start - 1).unsqueeze(1)  # B,1
    step = furthest.to(images.dtype) / max(size - 1, 1)
    position = torch.arange(size, device=images.device) * step  # B,N, within the box
    before = position.floor()
    share = position - before
    before = before.long()
    after = torch.minimum(before + 1, furthest)
    shape = [len(images), 1, 1, 1]
    shape[dim] = size
    near, far = (
        images.gather(dim, (start.unsqueeze(1) + index).view(shape).expand_as(images)) for index in (before, after)
    )
    return torch.lerp(near, far, share.view(shape))
