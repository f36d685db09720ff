"""Light and camera: what happens to a drawn scene between the garden and the file."""

from __future__ import annotations

import cmath
import math

import numpy as np
from PIL import Image, ImageFilter


def light_direction(rng: np.random.Generator) -> complex:
    """A unit vector towards the light, which comes from above."""
    return cmath.rect(1.0, -math.pi / 2 + rng.uniform(-0.9, 0.9))


def _light_field(rng: np.random.Generator, size: int) -> np.ndarray:
    """Gain by place, shape [size, size]: brightness, a gradient, dappled shade and a vignette."""
    side = 7
    axis = np.linspace(-1, 1, side)
    slope_x, slope_y = rng.uniform(-0.13, 0.13, 2)
    dapple = rng.uniform(-1, 1, (side, side)) * rng.uniform(0.0, 0.16)
    vignette = -rng.uniform(0.0, 0.13) * (axis[:, None] ** 2 + axis[None, :] ** 2)
    field = rng.uniform(0.9, 1.12) + slope_x * axis[None, :] + slope_y * axis[:, None] + dapple + vignette
    smooth = Image.fromarray(field.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(smooth)


def expose(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Lights the scene, tints the light, and adds slight blur and sensor noise. RGB in, RGB of the same size out."""
    gain = _light_field(rng, image.width)
    warmth, tint = rng.uniform(-0.06, 0.06), rng.uniform(-0.02, 0.02)
    blur, noise = rng.uniform(0.0, 0.55), rng.uniform(0.8, 3.4)
    if blur > 0.2:
        image = image.filter(ImageFilter.GaussianBlur(blur * image.width / 128))
    balance = np.array([1 + warmth, 1 + tint, 1 - warmth], dtype=np.float32)
    pixels = np.asarray(image, dtype=np.float32) * (gain[..., None] * balance)  # [size, size, 3]
    pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(noise)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
