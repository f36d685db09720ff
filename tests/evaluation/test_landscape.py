"""The picture of the loss around weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgvc_cli.evaluation.landscape import LINES, Scale, draw_landscape
from fgvc_cli.evaluation.sharpness import Sharpness, SharpnessSettings

ORANGE, BLUE = (213, 94, 0), (0, 114, 178)
DARKEST, PALEST = (68, 1, 84), (253, 231, 37)  # of viridis


def run(bottom: float = 0.1, steepness: float = 2.0, points: int = 7) -> Sharpness:
    """A run whose loss is a bowl."""
    settings = SharpnessSettings(points=points)
    at, radii = np.array(settings.coordinates), 0.05 * np.array(settings.signed_multiples)
    along = bottom + steepness * 50 * radii**2
    plane = bottom + steepness * (at[:, None] ** 2 + at**2)
    flat = np.full((5, len(radii)), bottom)
    return Sharpness(settings, 96, 12, 1000, 10.0, 1.0, bottom, along, flat, None, plane)


def drawn(path: Path, *runs: Sharpness, labels: Sequence[str] = ("a", "b", "c")) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_landscape(path, labels[: len(runs)], runs)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def amount(pixels: np.ndarray, color: tuple[int, int, int], tolerance: int = 12) -> int:
    return int((np.abs(pixels - color).max(axis=2) <= tolerance).sum())


def test_one_run_has_plane_and_lines_side_by_side(tmp_path: Path) -> None:
    pixels = drawn(tmp_path / "one.png", run())
    assert pixels.shape[1] > 1.7 * pixels.shape[0]
    assert amount(pixels, ORANGE) > 500 and amount(pixels, BLUE) > 500
    assert amount(pixels, DARKEST) > 200


def test_all_runs_share_a_color_scale(tmp_path: Path) -> None:
    """A flat run next to a steep one is dark; alone it has all colors."""
    flat, steep = run(steepness=0.02), run(steepness=4.0)
    name = "20261124-120000-cub200-timm-swin_large_patch4_window12_384.ms_in22k-pim-sam_$x_$"
    alone = drawn(tmp_path / "alone.png", flat)
    beside = drawn(tmp_path / "beside.png", flat, steep, labels=(name, name + "-2"))
    assert beside.shape[1] < 1500, "long labels are wrapped"
    left = beside[: beside.shape[0] // 2, : int(0.45 * beside.shape[1])]
    assert amount(alone, PALEST, 40) > 1000 and amount(left, PALEST, 40) < 50


def test_losses_that_explode_are_clipped(tmp_path: Path) -> None:
    wild = run()
    wild.plane[0, :2] = np.nan, 1e30
    wild.gradient[[0, -1]] = np.nan, 1e30
    pixels = drawn(tmp_path / "wild.png", wild)
    assert amount(pixels, DARKEST, 40) > 500 and amount(pixels, PALEST, 40) > 500
    assert amount(pixels, ORANGE) > 200


@pytest.mark.parametrize("loss", [0.0, 1.3])
def test_a_flat_landscape_is_drawn(tmp_path: Path, loss: float) -> None:
    flat = run(bottom=loss, steepness=0.0, points=3)
    assert drawn(tmp_path / "flat.png", flat).size


@pytest.mark.parametrize("highest", [0.3, 1.5, 7.5, 100.0, 1e6])
def test_contour_levels_are_round_and_few(highest: float) -> None:
    levels = Scale(0.1, highest).levels()
    assert LINES <= len(levels) <= 22
    assert all(0.1 < level < highest for level in levels) and levels == sorted(levels)
