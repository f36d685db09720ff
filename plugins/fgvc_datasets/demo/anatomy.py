"""The random bird: colors, pose, and the coordinate frames of its parts; independent of the species.

Lengths are in bird units: one unit is about the length of the trunk.
"""

from __future__ import annotations

import cmath
import colorsys
from dataclasses import dataclass

import numpy as np

from fgvc_datasets.demo.canvas import Color, Frame, Points, mix, points, shade

# (back, belly) of garden birds
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
    """RGB colors, 0 to 255, of the parts of a bird."""

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
    """Shift the hue of a color by up to `hue` turns, and its value and saturation by up to `light`."""
    h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in color))
    shift, tint, gain = rng.uniform(-1, 1, 3).tolist()
    r, g, b = colorsys.hsv_to_rgb(
        (h + hue * shift) % 1.0, min(1.0, s * (1 + 2 * light * tint)), min(1.0, v * (1 + light * gain))
    )
    return round(255 * r), round(255 * g), round(255 * b)


def sample_plumage(rng: np.random.Generator) -> Plumage:
    """Sample a plumage: one family of colors, with variations of it for each part."""
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


HEAD_RADIUS = 0.29
# The reach of the longest beak, tail and crest, so that size and position are independent of the species.
BEAK_REACH, TAIL_REACH, CREST_REACH = 0.62, 0.86, 0.56


@dataclass(frozen=True)
class Pose:
    """Angles in radians, clockwise on the screen for a bird that faces right."""

    lean: float
    neck: float
    pitch: float
    wing_raise: float
    wing_spread: float
    tail_angle: float
    tail_spread: float
    plumpness: float
    leg_length: float
    perch_slope: float
    fill: float
    place: tuple[float, float]
    faces_left: bool


def sample_pose(rng: np.random.Generator) -> Pose:
    """Sample a pose; `fill` is the longest side of the bird's bounding box in image widths."""
    u = rng.uniform
    return Pose(
        lean=-u(0.05, 0.62),
        neck=-u(0.55, 1.15),
        pitch=u(-0.28, 0.30),
        wing_raise=u(-0.06, 0.34),
        wing_spread=u(0.75, 1.5),
        tail_angle=u(-0.28, 0.30),
        tail_spread=u(0.85, 1.2),
        plumpness=u(0.94, 1.08),
        leg_length=u(0.16, 0.26),
        perch_slope=u(-0.16, 0.16),
        fill=u(0.82, 1.0),
        place=(u(0.0, 1.0), u(0.0, 1.0)),
        faces_left=bool(rng.integers(2)),
    )


@dataclass(frozen=True)
class Anatomy:
    """The frames of a posed bird in the image, x forward; coordinates of parts are in bird units."""

    ground: Frame
    body: Frame
    head: Frame
    wing: Frame
    tail: Frame
    hips: tuple[complex, complex]
    feet: tuple[complex, complex]


def _anatomy(pose: Pose, ground: Frame) -> Anatomy:
    body = ground.at(0, pose.lean)
    neck = body.at(complex(0.30, -0.12), -pose.lean)
    head = neck.at(cmath.rect(0.36, pose.neck), pose.pitch)
    hips = (body(points((0.02, 0.28)))[0], body(points((-0.12, 0.27)))[0])
    drop = ground.turn * 1j * (0.14 + pose.leg_length)
    shift = ground.turn * 0.07
    return Anatomy(
        ground=ground,
        body=body,
        head=head,
        wing=body.at(complex(0.20, -0.13), pose.wing_raise),
        tail=body.at(complex(-0.56, -0.04), pose.tail_angle),
        hips=hips,
        feet=(hips[0] + drop + shift, hips[1] + drop + shift * 0.6),
    )


def _reach(anatomy: Anatomy) -> Points:
    """Return points around everything that a bird of any species could cover."""
    feet = np.array(anatomy.feet) + anatomy.ground.turn * 0.16j
    return np.concatenate(
        [
            anatomy.head(points((BEAK_REACH, 0.05), (-0.1, -CREST_REACH), (-0.36, -0.44), (0.1, -HEAD_RADIUS))),
            anatomy.tail(points((-TAIL_REACH, 0), (-0.7, -0.25), (-0.7, 0.25))),
            anatomy.body(points((0.45, 0.1), (0.1, 0.4))),
            anatomy.wing(points((-0.86, 0.02))),
            feet,
        ]
    )


def place_bird(pose: Pose) -> Anatomy:
    """Place the bird inside the image, with size `pose.fill`, at `pose.place` of the free space."""
    reach = _reach(_anatomy(pose, Frame(0j)))
    left, right = float(reach.real.min()), float(reach.real.max())
    top, bottom = float(reach.imag.min()), float(reach.imag.max())
    scale = pose.fill / max(right - left, bottom - top)
    rooms = [1 - scale * (right - left), 1 - scale * (bottom - top)]
    margins = [room * (0.1 + 0.8 * place) for room, place in zip(rooms, pose.place, strict=True)]
    origin = complex(margins[0] - left * scale, margins[1] - top * scale)
    return _anatomy(pose, Frame(origin, complex(scale)))


def keep_clear(anatomy: Anatomy) -> list[tuple[complex, float]]:
    """Return circles (center, radius in image widths) around the deciding parts, which nothing may cover."""
    spots = [
        (anatomy.head, complex(0.0, -0.10), 0.38),
        (anatomy.head, complex(0.42, 0.03), 0.27),
        (anatomy.wing, complex(-0.28, 0.04), 0.26),
        (anatomy.tail, complex(-0.30, 0.0), 0.26),
        (anatomy.tail, complex(-0.62, 0.0), 0.30),
        (anatomy.body, complex(0.30, 0.13), 0.28),
    ]
    return [(frame.origin + frame.turn * spot, radius * frame.scale) for frame, spot, radius in spots]
