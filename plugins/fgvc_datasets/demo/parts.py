"""The six parts in which species differ. Each function draws one and returns the outline that its box goes around.

A box goes around the place of a part also where a species shows nothing there (a smooth crown, a plain wing): that is
where one has to look to see it. What a species shows never reaches beyond its box.
"""

from __future__ import annotations

import numpy as np

from fgvc_datasets.demo.bird import draw_feather, feather
from fgvc_datasets.demo.canvas import Canvas, Points, arc, blob, closed_curve, mix, open_curve, points, ribbon, shade
from fgvc_datasets.demo.plumage import Plumage
from fgvc_datasets.demo.pose import HEAD_RADIUS, Anatomy

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
    """Thick and conical, hooked, or thin."""
    outline, lower, gape = (anatomy.head(part) for part in _BEAKS[kind])
    unit = anatomy.ground.scale
    canvas.polygon(outline, plumage.beak)
    canvas.polygon(lower, shade(plumage.beak, 0.76))
    canvas.line(open_curve(outline[:3]) + 0.012j * unit, 0.014 * unit, mix(plumage.beak, (255, 255, 255), 0.35))
    canvas.line(gape, 0.014 * unit, shade(plumage.beak, 0.45))
    return outline


def draw_tail(canvas: Canvas, anatomy: Anatomy, plumage: Plumage, kind: str, spread: float) -> Points:
    """A fan, a fork or a long point."""
    edge = mix(plumage.tail, plumage.belly, 0.32)
    outlines = []
    for index, (angle, length, width) in enumerate(_TAILS[kind]):
        part = anatomy.tail.at(0.06, angle * spread)
        outline = feather(length, width, 0.25 if kind == "pointed" else 0.5)
        draw_feather(canvas, part, outline, shade(plumage.tail, 0.86 + 0.04 * index), edge)
        outlines.append(part(outline))
    return np.concatenate(outlines)


def draw_wing_mark(canvas: Canvas, anatomy: Anatomy, plumage: Plumage, kind: str) -> Points:
    """Two pale bars, one pale patch, or nothing, on the wing's coverts."""
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
    """A tuft of raised feathers behind the crown, or a smooth crown."""
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
    """A dark eye: alone, in a pale ring, or in a dark stripe from the beak to the nape."""
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
    """Rows of dark drops, or none; `jitter` has one offset per spot, shape [12], in bird units."""
    if kind == "spotted":
        drop = closed_curve(points((0, -0.055), (0.032, 0.012), (0, 0.045), (-0.032, 0.012)), steps=3)
        for index, offset in enumerate(jitter):
            row, column = divmod(index, 4)
            at = complex(0.40 - 0.105 * row - 0.02 * (column % 2), -0.05 + 0.10 * column + 0.045 * (row % 2))
            canvas.polygon(anatomy.body.at(at + offset, 0.25)(drop), plumage.spots)
    return anatomy.body(points((0.48, -0.13), (0.48, 0.40), (0.12, 0.42), (0.12, -0.13)))
