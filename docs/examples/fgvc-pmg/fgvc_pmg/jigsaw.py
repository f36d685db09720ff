"""Jigsaw patches: images with shuffled patches."""

from __future__ import annotations

import torch
from torch import Tensor


def jigsaw(images: Tensor, patches: int) -> Tensor:
    """Cut each image into a grid of patches and shuffle them, independently per image.

    The order is drawn from torch's generator of the device, in one operation for the batch. If the size is not
    divisible by the number of patches, the remaining edge on the right and at the bottom stays in place.

    Args:
        images: B,C,H,W.
        patches: patches per side; with 1, or more than pixels, the images are returned unchanged.

    Returns:
        B,C,H,W.
    """
    batch, channels, height, width = images.shape
    rows, columns = height // patches, width // patches  # pixels of a patch
    if patches == 1 or not (rows and columns):
        return images
    covered = images[:, :, : rows * patches, : columns * patches]
    cut = covered.reshape(batch, channels, patches, rows, patches, columns)
    pieces = cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, patches**2, -1)  # B,N,C*h*w
    order = torch.rand(batch, patches**2, device=images.device).argsort(dim=1)
    shuffled = pieces.gather(1, order.unsqueeze(2).expand_as(pieces))
    put = shuffled.reshape(batch, patches, patches, channels, rows, columns).permute(0, 3, 1, 4, 2, 5)
    mixed = images.clone()
    mixed[:, :, : rows * patches, : columns * patches] = put.reshape(covered.shape)
    return mixed
