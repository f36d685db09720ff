"""How well one photograph matches a part of another: crops, and shots of the same scene from about the same place."""

from __future__ import annotations

import numpy as np
from PIL import Image

SCALES = (0.96, 0.92, 0.88, 0.84, 0.8, 0.76, 0.72, 0.68)
"""Sides of the part, as fractions of the short side of the whole."""


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest normalized cross-correlation, in [-1, 1], of either image with a part of the other.

    Reference: Lewis 1995, Fast Template Matching (normalized cross-correlation).

    Args:
        first, second: gray thumbnails H,W, uint8, with short sides of the same length.
    """
    return max(_best(first, second), _best(second, first))


def _best(image: np.ndarray, whole: np.ndarray) -> float:
    """Return the largest correlation of an image, at any scale, with a part of a whole; -1 if none fits."""
    (height, width), picture, best = image.shape, Image.fromarray(image), -1.0
    for scale in SCALES:
        size = max(2, round(scale * width)), max(2, round(scale * height))
        if size[0] <= whole.shape[1] and size[1] <= whole.shape[0]:
            part = np.asarray(picture.resize(size, Image.Resampling.BILINEAR), np.float32)
            best = max(best, _correlation(part, whole.astype(np.float32)))
    return best


def _correlation(part: np.ndarray, whole: np.ndarray) -> float:
    """Return the largest correlation over all positions of a part in a whole."""
    windows = np.lib.stride_tricks.sliding_window_view(whole, part.shape)  # (P, Q, H, W)
    centered = part - part.mean()
    means = windows.mean(axis=(2, 3))
    variances = np.maximum(np.einsum("pqij,pqij->pq", windows, windows) / part.size - means**2, 1e-3)
    products = np.einsum("pqij,ij->pq", windows, centered)
    return float((products / np.sqrt(variances * part.size * (centered**2).sum() + 1e-6)).max())
