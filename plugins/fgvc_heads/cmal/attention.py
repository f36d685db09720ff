"""CMAL's attention maps (Pattern Recognition 140, 109550): where an expert found what made it choose its class.

In float32 at least, whatever the precision of the model: a box's edge hangs on the last digits. Nothing here waits for
the device, and no operation is issued for each image.
"""

from __future__ import annotations

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
