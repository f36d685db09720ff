"""The colors of a bird, drawn without regard to its species."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from fgvc_datasets.demo.canvas import Color, mix, shade

# (back, belly) of birds one could meet in a garden.
_FAMILIES: tuple[tuple[Color, Color], ...] = (
    ((122, 124, 68), (232, 220, 150)),
    ((156, 94, 58), (240, 214, 178)),
    ((98, 118, 142), (228, 230, 230)),
    ((178, 138, 78), (246, 228, 182)),
    ((158, 102, 102), (243, 214, 202)),
    ((80, 122, 108), (220, 226, 190)),
    ((124, 104, 86), (232, 218, 198)),
    ((78, 114, 160), (244, 214, 172)),
)
_BEAKS: tuple[Color, ...] = ((204, 168, 100), (72, 66, 68), (226, 142, 56), (150, 120, 96))
_CREAM, _YELLOW, _INK = (250, 244, 228), (246, 212, 104), (40, 34, 34)


@dataclass(frozen=True)
class Plumage:
    """RGB colors, 0 to 255, of everything on a bird."""

    back: Color
    belly: Color
    cheek: Color
    wing: Color
    tail: Color
    crest: Color
    mark: Color
    spots: Color
    beak: Color
    ring: Color
    stripe: Color
    legs: Color


def vary(color: Color, rng: np.random.Generator, hue: float = 0.02, light: float = 0.08) -> Color:
    """The color with its hue shifted by up to `hue` turns and its value and saturation by up to `light`."""
    h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in color))
    shift, tint, gain = rng.uniform(-1, 1, 3).tolist()
    r, g, b = colorsys.hsv_to_rgb(
        (h + hue * shift) % 1.0, min(1.0, s * (1 + 2 * light * tint)), min(1.0, v * (1 + light * gain))
    )
    return round(255 * r), round(255 * g), round(255 * b)


def sample_plumage(rng: np.random.Generator) -> Plumage:
    """Draws a harmonious plumage: one family of colors, each part varied around it."""
    back, belly = _FAMILIES[int(rng.integers(len(_FAMILIES)))]
    back, belly = vary(back, rng, 0.03, 0.12), vary(belly, rng, 0.03, 0.05)
    u = rng.uniform
    wing = mix(shade(back, 0.62), _INK, u(0.10, 0.45))
    return Plumage(
        back=back,
        belly=belly,
        cheek=mix(back, belly, u(0.25, 0.55)),
        wing=wing,
        tail=vary(mix(shade(back, 0.66), _INK, u(0.05, 0.4)), rng),
        crest=vary(mix(shade(back, 0.72), _INK, u(0.0, 0.4)), rng, 0.03),
        mark=mix(_CREAM, _YELLOW, u(0.0, 0.55)),
        spots=mix(shade(back, 0.45), _INK, u(0.2, 0.7)),
        beak=vary(_BEAKS[int(rng.integers(len(_BEAKS)))], rng, 0.02, 0.12),
        ring=mix(_CREAM, _YELLOW, u(0.0, 0.5)),
        stripe=mix(shade(back, 0.35), _INK, u(0.3, 0.8)),
        legs=vary(mix((142, 104, 84), (74, 66, 66), u(0.0, 1.0)), rng),
    )
