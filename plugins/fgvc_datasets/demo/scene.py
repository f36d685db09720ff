"""One scene: a bird with given traits in a garden that is independent of them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fgvc_datasets.demo.anatomy import Anatomy, Plumage, Pose, keep_clear, place_bird, sample_plumage, sample_pose
from fgvc_datasets.demo.bird import (
    draw_beak,
    draw_body_feathers,
    draw_breast,
    draw_crest,
    draw_eye,
    draw_legs,
    draw_tail,
    draw_toes,
    draw_trunk,
    draw_wing,
    draw_wing_mark,
)
from fgvc_datasets.demo.canvas import Box, Canvas, Points, box_around
from fgvc_datasets.demo.garden import (
    draw_front_leaves,
    draw_perch,
    expose,
    light_direction,
    paint_backdrop,
    sample_season,
)
from fgvc_datasets.demo.species import Traits


def _draw_bird(
    canvas: Canvas, rng: np.random.Generator, pose: Pose, anatomy: Anatomy, plumage: Plumage, traits: Traits
) -> dict[str, Points]:
    """Draw the bird from back to front; return the outline of each part in image widths."""
    offsets = rng.uniform(-0.018, 0.018, (40, 2)) @ np.array([1, 1j])
    outlines = {"tail": draw_tail(canvas, anatomy, plumage, traits.tail, pose.tail_spread)}
    draw_legs(canvas, anatomy, plumage.legs)
    outlines["crest"] = draw_crest(canvas, anatomy, plumage, traits.crest)
    draw_trunk(canvas, anatomy, plumage, pose.plumpness, light_direction(rng))
    draw_body_feathers(canvas, anatomy, plumage, offsets[:28])
    outlines["breast"] = draw_breast(canvas, anatomy, plumage, traits.breast, offsets[28:])
    draw_wing(canvas, anatomy.wing, plumage, pose.wing_spread)
    outlines["wing"] = draw_wing_mark(canvas, anatomy, plumage, traits.wing)
    outlines["beak"] = draw_beak(canvas, anatomy, plumage, traits.beak)
    outlines["eye"] = draw_eye(canvas, anatomy, plumage, traits.eye)
    draw_toes(canvas, anatomy, plumage.legs)
    return outlines


def draw_scene(rng: np.random.Generator, traits: Traits, size: int) -> tuple[Image.Image, dict[str, Box]]:
    """Draw a scene of `size` x `size` pixels; return it with the boxes (x0, y0, x1, y1) of the bird's parts.

    Each element has its own stream of random numbers, and no draw depends on the traits: the same `rng` gives the same
    scene around a bird of another species.
    """
    of_pose, of_plumage, of_season, of_perch, of_bird, of_leaves, of_light = rng.spawn(7)
    pose = sample_pose(of_pose)
    anatomy = place_bird(pose)
    season = sample_season(of_season)
    canvas = Canvas(size, paint_backdrop(of_season, season))
    draw_perch(canvas, of_perch, season, anatomy, pose.perch_slope)
    outlines = _draw_bird(canvas, of_bird, pose, anatomy, sample_plumage(of_plumage), traits)
    draw_front_leaves(canvas, of_leaves, season, keep_clear(anatomy))
    image = expose(canvas.finish(), of_light)
    if pose.faces_left:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        outlines = {part: 1 - outline.conj() for part, outline in outlines.items()}
    return image, {part: box_around(outlines[part], size) for part in sorted(outlines)}
