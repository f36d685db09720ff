"""Draw a bird: trunk, feathers, wing and legs, which all species share, and the six parts in which species differ.

The function of a part returns the outline that its box is drawn around. The box covers the location of the part even if
a species shows nothing there (a smooth crown, a plain wing), because that is where to look. Whatever a species shows
stays inside its box.
"""

from __future__ import annotations

import cmath

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from fgvc_datasets.demo.anatomy import HEAD_RADIUS, Anatomy, Plumage
from fgvc_datasets.demo.canvas import (
    Canvas,
    Color,
    Frame,
    Points,
    arc,
    blob,
    closed_curve,
    mix,
    open_curve,
    points,
    ribbon,
    shade,
)

# Plumage has soft borders, so its colors are painted at this small size for every image size.
_SIDE = 96

_WING = closed_curve(
    points((0.10, 0.02), (-0.02, -0.10), (-0.30, -0.13), (-0.58, -0.05), (-0.60, 0.10), (-0.40, 0.20), (-0.10, 0.24),
           (0.08, 0.16))
)  # fmt: skip
_COVERTS = closed_curve(
    points((0.09, 0.03), (-0.02, -0.09), (-0.28, -0.115), (-0.46, -0.05), (-0.47, 0.06), (-0.34, 0.17), (-0.08, 0.215),
           (0.07, 0.14))
)  # fmt: skip


def silhouette(anatomy: Anatomy, plumpness: float) -> list[tuple[complex, float]]:
    """Return the discs (center, radius in image widths) whose union is trunk, neck and head."""
    body, head = anatomy.body, anatomy.head
    trunk = body(points((-0.64, -0.05), (-0.40, 0.00), (-0.10, 0.03), (0.16, 0.02), (0.30, -0.10)))
    spine = np.append(trunk, head.origin)
    spine[4] = (spine[4] + head.origin) / 2  # the neck lies between shoulders and head
    radii = np.array([0.08, 0.21, 0.335, 0.34, 0.30, HEAD_RADIUS]) * anatomy.ground.scale
    radii[1:4] *= plumpness
    smooth = open_curve(spine, steps=7)
    widths = open_curve(radii.astype(np.complex128), steps=7).real
    return list(zip(smooth.tolist(), widths.tolist(), strict=True))


def _mask(discs: list[tuple[complex, float]], pixels: int) -> Image.Image:
    mask = Image.new("L", (pixels, pixels))
    draw = ImageDraw.Draw(mask)
    for center, radius in discs:
        x, y, r = center.real * pixels, center.imag * pixels, radius * pixels
        draw.ellipse((round(x - r), round(y - r), round(x + r), round(y + r)), fill=255)
    return mask


def _pattern(anatomy: Anatomy, plumage: Plumage) -> Image.Image:
    """Paint the soft colors of trunk and head: pale below, a paler cheek, a darker crown."""
    image = Image.new("RGB", (_SIDE, _SIDE), plumage.back)
    draw = ImageDraw.Draw(image)

    def area(outline: Points, color: Color) -> None:
        draw.polygon((outline.view(np.float64) * _SIDE).tolist(), fill=color)

    body, head = anatomy.body, anatomy.head
    belly = points((0.62, -0.16), (0.60, 0.5), (-0.3, 0.52), (-0.72, 0.16), (-0.34, 0.16), (0.0, 0.05), (0.26, -0.16))
    area(body(closed_curve(belly)), plumage.belly)
    area(body(blob(-0.55 + 0.12j, 0.20, 0.12)), mix(plumage.belly, plumage.back, 0.45))
    area(head(blob(0.05 + 0.13j, 0.22, 0.13)), plumage.cheek)
    area(head(blob(-0.06 - 0.22j, 0.24, 0.11)), shade(plumage.back, 0.84))
    return image.filter(ImageFilter.GaussianBlur(0.055 * anatomy.ground.scale * _SIDE))


def _roundness(discs: list[tuple[complex, float]], light: complex, unit: float) -> Image.Image:
    """Return a gray image, bright on the side of the `light`, from the blurred silhouette."""
    soft = _mask(discs, _SIDE).filter(ImageFilter.GaussianBlur(0.13 * unit * _SIDE))
    toward = light * 0.11 * unit * _SIDE
    return soft.transform(
        (_SIDE, _SIDE), Image.Transform.AFFINE, (1, 0, -toward.real, 0, 1, -toward.imag), Image.Resampling.BILINEAR
    )


def draw_trunk(canvas: Canvas, anatomy: Anatomy, plumage: Plumage, plumpness: float, light: complex) -> None:
    """Draw trunk and head, colored and shaded; `light` is the unit vector toward the light."""
    discs = silhouette(anatomy, plumpness)
    roundness = _roundness(discs, light, anatomy.ground.scale)
    gain = roundness.point([round(132 + 123 * (i / 255) ** 0.8) for i in range(256)])
    painted = ImageChops.multiply(_pattern(anatomy, plumage), Image.merge("RGB", (gain, gain, gain)))
    sheen = roundness.point([round(max(0, i - 205) * 0.9) for i in range(256)])
    painted.paste((255, 250, 236), (0, 0), sheen)
    mask = _mask(discs, canvas.pixels)
    left, top, right, bottom = mask.getbbox() or (0, 0, 1, 1)
    ratio = _SIDE / canvas.pixels
    part = painted.resize(
        (right - left, bottom - top),
        Image.Resampling.BILINEAR,
        box=(left * ratio, top * ratio, right * ratio, bottom * ratio),
    )
    canvas.image.paste(part, (left, top), mask.crop((left, top, right, bottom)))


def draw_body_feathers(canvas: Canvas, anatomy: Anatomy, plumage: Plumage, jitter: Points) -> None:
    """Draw short strokes along back, flank and crown; `jitter` is an offset per stroke, shape [n], in bird units."""
    width = 0.016 * anatomy.ground.scale
    for index, offset in enumerate(jitter):
        row, column = divmod(index, 8)
        on_back = row < 2
        at = complex(0.14 - 0.085 * column, (-0.16 if on_back else 0.16) + 0.085 * (row % 2 if on_back else row - 2))
        stroke = anatomy.body.at(at + offset, -0.05)(points((0.03, -0.012), (-0.01, 0.012), (-0.05, 0.0)))
        base = plumage.back if on_back else mix(plumage.belly, plumage.back, 0.3)
        canvas.line(stroke, width, shade(base, 0.8 if index % 2 else 1.08))


def feather(length: float, width: float, tip: float = 0.55) -> Points:
    """Return the outline of a feather from (0, 0) to (-length, 0); a small `tip` makes it pointed."""
    half = width / 2
    return closed_curve(
        points((0, 0), (-0.35 * length, -half * 0.85), (-0.82 * length, -half * (0.4 + tip)), (-length, 0),
               (-0.82 * length, half * (0.4 + tip)), (-0.35 * length, half * 0.85)),
        steps=4,
    )  # fmt: skip


def draw_feather(canvas: Canvas, frame: Frame, outline: Points, color: Color, edge: Color) -> None:
    """Draw a feather with a lighter edge."""
    canvas.polygon(frame(outline), edge)
    canvas.polygon(frame(outline * 0.96 + 0.012j), color)


def draw_wing(canvas: Canvas, frame: Frame, plumage: Plumage, spread: float) -> None:
    """Draw the folded wing without its mark: flight feathers, then coverts."""
    edge = mix(plumage.wing, plumage.belly, 0.34)
    canvas.glaze(frame(_WING + 0.035j), shade(plumage.wing, 0.5), 0.35)
    for step in range(6):
        share = step / 5
        root = complex(-0.24 + 0.06 * share, 0.02 + 0.10 * share)
        angle = -(0.02 + 0.17 * share) * spread
        outline = feather(0.60 - 0.24 * share, 0.15, 0.4)
        draw_feather(canvas, frame.at(root, angle), outline, shade(plumage.wing, 0.82 + 0.1 * share), edge)
    canvas.polygon(frame(_COVERTS), edge)
    canvas.polygon(frame(_COVERTS * 0.965 - 0.006), mix(plumage.wing, plumage.back, 0.22))
    for row, count in ((0, 4), (1, 5)):
        for column in range(count):
            center = complex(-0.08 - 0.12 * row - 0.05 * (column % 2), -0.04 + 0.055 * column)
            canvas.line(frame.at(center)(points((0.03, -0.03), (-0.025, 0.0), (0.03, 0.03))), 0.012 * frame.scale, edge)


def draw_legs(canvas: Canvas, anatomy: Anatomy, color: Color) -> None:
    """Draw both legs from the hips to the feet; the trunk is drawn over their upper ends."""
    unit = anatomy.ground.scale
    for hip, foot, gain in zip(anatomy.hips, anatomy.feet, (0.78, 1.0), strict=True):
        knee = (hip + foot) / 2 - 0.035 * unit
        canvas.line(np.array([hip, knee, foot]), 0.042 * unit, shade(color, gain))


def draw_toes(canvas: Canvas, anatomy: Anatomy, color: Color) -> None:
    """Draw three toes forward and one back on the perch, for each foot."""
    unit = anatomy.ground.scale
    for foot, gain in zip(anatomy.feet, (0.8, 1.0), strict=True):
        for reach, angle in ((0.13, 0.42), (0.14, 0.95), (0.12, 1.5), (0.09, 2.6)):
            toe = foot + cmath.rect(reach * unit, angle)
            line = np.array([foot - 0.01j * unit, (foot + toe) / 2 - 0.018j * unit, toe])
            canvas.polygon(ribbon(line, (0.05 * unit, 0.026 * unit)), shade(color, gain))


# Each beak: outline, lower mandible, line between the mandibles, in the frame of the head.
_BEAKS: dict[str, tuple[Points, Points, Points]] = {
    "conical": (
        points((0.18, -0.19), (0.28, -0.195), (0.40, -0.11), (0.51, 0.04), (0.38, 0.15), (0.26, 0.20), (0.15, 0.17)),
        points((0.17, 0.045), (0.34, 0.035), (0.51, 0.04), (0.38, 0.15), (0.26, 0.20), (0.15, 0.17)),
        points((0.16, 0.05), (0.34, 0.03), (0.51, 0.04)),
    ),
    "hooked": (
        points((0.20, -0.12), (0.33, -0.14), (0.47, -0.115), (0.565, -0.03), (0.595, 0.09), (0.565, 0.24),
               (0.51, 0.09), (0.41, 0.085), (0.19, 0.095)),
        points((0.19, 0.025), (0.47, 0.04), (0.41, 0.085), (0.19, 0.095)),
        points((0.19, 0.03), (0.34, 0.02), (0.495, 0.055)),
    ),
    "thin": (
        points((0.22, -0.055), (0.34, -0.035), (0.61, 0.035), (0.34, 0.06), (0.22, 0.07)),
        points((0.22, 0.02), (0.61, 0.035), (0.34, 0.06), (0.22, 0.07)),
        points((0.22, 0.015), (0.61, 0.035)),
    ),
}  # fmt: skip

# Each tail: (angle in radians, length, width) of its feathers, the hindmost first.
_TAILS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "fan": ((0.50, 0.58, 0.20), (-0.50, 0.58, 0.20), (0.33, 0.62, 0.20), (-0.33, 0.62, 0.20), (0.16, 0.64, 0.20),
            (-0.16, 0.64, 0.20), (0.0, 0.65, 0.20)),
    "forked": ((0.0, 0.28, 0.14), (0.14, 0.36, 0.12), (-0.14, 0.36, 0.12), (0.27, 0.56, 0.12), (-0.27, 0.56, 0.12),
               (0.37, 0.76, 0.11), (-0.37, 0.76, 0.11)),
    "pointed": ((0.13, 0.46, 0.13), (-0.13, 0.46, 0.13), (0.07, 0.64, 0.12), (-0.07, 0.64, 0.12), (0.0, 0.84, 0.11)),
}  # fmt: skip


def draw_beak(canvas: Canvas, anatomy: Anatomy, plumage: Plumage, kind: str) -> Points:
    """Draw a conical, hooked or thin beak."""
    outline, lower, gape = (anatomy.head(part) for part in _BEAKS[kind])
    unit = anatomy.ground.scale
    canvas.polygon(outline, plumage.beak)
    canvas.polygon(lower, shade(plumage.beak, 0.76))
    canvas.line(open_curve(outline[:3]) + 0.012j * unit, 0.014 * unit, mix(plumage.beak, (255, 255, 255), 0.35))
    canvas.line(gape, 0.014 * unit, shade(plumage.beak, 0.45))
    return outline


def draw_tail(canvas: Canvas, anatomy: Anatomy, plumage: Plumage, kind: str, spread: float) -> Points:
    """Draw a fan-shaped, forked or pointed tail."""
    edge = mix(plumage.tail, plumage.belly, 0.32)
    outlines = []
    for index, (angle, length, width) in enumerate(_TAILS[kind]):
        part = anatomy.tail.at(0.06, angle * spread)
        outline = feather(length, width, 0.25 if kind == "pointed" else 0.5)
        draw_feather(canvas, part, outline, shade(plumage.tail, 0.86 + 0.04 * index), edge)
        outlines.append(part(outline))
    return np.concatenate(outlines)


def draw_wing_mark(canvas: Canvas, anatomy: Anatomy, plumage: Plumage, kind: str) -> Points:
    """Draw two pale bars, one pale patch, or nothing on the wing's coverts."""
    edge = mix(plumage.mark, plumage.wing, 0.5)
    if kind == "bars":
        for x, top, bottom in ((-0.17, -0.10, 0.20), (-0.36, -0.085, 0.165)):
            line = open_curve(points((x + 0.015, top), (x - 0.02, 0.03), (x + 0.03, bottom)))
            canvas.polygon(anatomy.wing(ribbon(line, (0.05, 0.08, 0.06))), plumage.mark)
    elif kind == "patch":
        for x, y, length in ((-0.17, 0.125, 0.22), (-0.14, 0.06, 0.28), (-0.12, -0.01, 0.32)):
            draw_feather(canvas, anatomy.wing.at(complex(x, y), -0.03), feather(length, 0.10, 0.45), plumage.mark, edge)
    return anatomy.wing(points((-0.10, -0.12), (-0.46, -0.12), (-0.46, 0.19), (-0.10, 0.19)))


def draw_crest(canvas: Canvas, anatomy: Anatomy, plumage: Plumage, kind: str) -> Points:
    """Draw a tuft of raised feathers behind the crown, or a smooth crown."""
    crown = anatomy.head(arc(0, HEAD_RADIUS, -1.1, -2.6, 8))
    if kind == "smooth":
        return np.concatenate([crown, anatomy.head(points((-0.04, -0.12)))])
    edge = mix(plumage.crest, plumage.belly, 0.25)
    outlines = [crown]
    for root, angle, length in ((-0.17, 0.62, 0.32), (-0.12, 0.80, 0.37), (-0.06, 0.98, 0.38), (0.01, 1.16, 0.33)):
        part = anatomy.head.at(complex(root, -0.19), angle)
        outline = feather(length, 0.15, 0.15)
        draw_feather(canvas, part, outline, plumage.crest, edge)
        outlines.append(part(outline))
    return np.concatenate(outlines)


def draw_eye(canvas: Canvas, anatomy: Anatomy, plumage: Plumage, kind: str) -> Points:
    """Draw a dark eye: plain, in a pale ring, or in a dark stripe from the beak to the nape."""
    head, unit = anatomy.head, anatomy.ground.scale
    center = head(points((0.085, -0.055)))[0]
    outline = blob(center, 0.13 * unit, 0.13 * unit)
    if kind == "ring":
        canvas.circle(center, 0.12 * unit, plumage.ring)
    elif kind == "stripe":
        line = head(open_curve(points((0.25, 0.0), (0.085, -0.05), (-0.10, -0.03), (-0.24, 0.04))))
        brow = ribbon(line - 0.055j * head.turn, (0.02 * unit, 0.06 * unit, 0.05 * unit, 0.02 * unit))
        stripe = ribbon(line, (0.06 * unit, 0.125 * unit, 0.125 * unit, 0.07 * unit))
        canvas.polygon(brow, mix(plumage.cheek, (255, 250, 238), 0.55))
        canvas.polygon(stripe, plumage.stripe)
        outline = np.concatenate([outline, stripe, brow])
    canvas.circle(center, 0.078 * unit, mix(plumage.stripe, (96, 62, 40), 0.5))
    canvas.circle(center, 0.062 * unit, (20, 17, 18))
    canvas.circle(center + complex(-0.02, -0.022) * unit, 0.019 * unit, (255, 255, 255))
    return outline


def draw_breast(canvas: Canvas, anatomy: Anatomy, plumage: Plumage, kind: str, jitter: Points) -> Points:
    """Draw rows of dark spots, or none; `jitter` is an offset per spot, shape [12], in bird units."""
    if kind == "spotted":
        drop = closed_curve(points((0, -0.055), (0.032, 0.012), (0, 0.045), (-0.032, 0.012)), steps=3)
        for index, offset in enumerate(jitter):
            row, column = divmod(index, 4)
            at = complex(0.40 - 0.105 * row - 0.02 * (column % 2), -0.05 + 0.10 * column + 0.045 * (row % 2))
            canvas.polygon(anatomy.body.at(at + offset, 0.25)(drop), plumage.spots)
    return anatomy.body(points((0.48, -0.13), (0.48, 0.40), (0.12, 0.42), (0.12, -0.13)))
