"""Images cut into patches and put together in another order."""

from __future__ import annotations

import torch
from torch import Tensor


def jigsaw(images: Tensor, patches: int) -> Tensor:
    """Cut each image into patches x patches squares and shuffle them, each image in an order of its own.

    The order comes from torch's generator of the images' device, in one operation for the whole batch. The square that
    the patches cover is the largest that divides evenly, from the upper left; what is beyond it stays.

    Args:
        images: B,C,H,W.
        patches: squares a side; 1 or more than there are pixels: the images as they are.

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
