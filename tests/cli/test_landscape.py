"""The picture of the loss around weights."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fgvc_cli.evaluation.landscape import LINES, Scale, draw_landscape

ORANGE, BLUE = (213, 94, 0), (0, 114, 178)
DARKEST, PALEST = (68, 1, 84), (253, 231, 37)  # of viridis


def run(name: str, bottom: float = 0.1, steepness: float = 2.0, points: int = 7) -> dict[str, Any]:
    """What `sharpness.json` says of a run whose loss is a bowl."""
    at = np.linspace(-1, 1, points)
    radii = np.array([-0.2, -0.1, -0.05, 0.05, 0.1, 0.2])
    along = bottom + steepness * 50 * radii**2
    return {
        "run": f"runs/{name}",
        "classes": 12,
        "images": 96,
        "loss": bottom,
        "lines": {"radii": radii.tolist(), "gradient": along.tolist(), "random": [[bottom] * 6] * 5},
        "landscape": {
            "coordinates": at.tolist(),
            "losses": (bottom + steepness * (at[:, None] ** 2 + at**2)).tolist(),
        },
    }


def drawn(path: Path, *runs: dict[str, Any]) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_landscape(path, {"runs": list(runs), "rho": 0.05})
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def amount(pixels: np.ndarray, color: tuple[int, int, int], tolerance: int = 12) -> int:
    return int((np.abs(pixels - color).max(axis=2) <= tolerance).sum())


def test_one_run_has_its_plane_and_its_lines_beside_each_other(tmp_path: Path) -> None:
    pixels = drawn(tmp_path / "one.png", run("one"))
    assert pixels.shape[1] > 1.7 * pixels.shape[0]
    assert amount(pixels, ORANGE) > 500 and amount(pixels, BLUE) > 500
    assert amount(pixels, DARKEST) > 200


def test_several_runs_stand_beside_each_other_in_two_rows(tmp_path: Path) -> None:
    height, width, _ = drawn(tmp_path / "three.png", run("a"), run("b"), run("c")).shape
    assert height > 1200 and width > 1.4 * height  # inches to pixels: 150


def test_all_runs_have_the_same_colors(tmp_path: Path) -> None:
    """A flat run beside a steep one is dark all over; alone it has all colors."""
    flat, steep = run("flat", steepness=0.02), run("steep", steepness=4.0)
    alone, beside = drawn(tmp_path / "alone.png", flat), drawn(tmp_path / "beside.png", flat, steep)
    left = beside[: beside.shape[0] // 2, : int(0.45 * beside.shape[1])]
    assert amount(alone, PALEST, 40) > 1000 and amount(left, PALEST, 40) < 50


def test_all_runs_have_the_same_loss_axis(tmp_path: Path) -> None:
    flat, steep = run("flat", steepness=0.02), run("steep", steepness=4.0)
    beside = drawn(tmp_path / "beside.png", flat, steep)
    lower = beside[beside.shape[0] // 2 :]

    def height(part: np.ndarray) -> int:
        rows = np.flatnonzero((np.abs(part[:-80] - ORANGE).max(axis=2) <= 12).any(axis=1))  # above the legend
        return int(rows.max() - rows.min())

    half = lower.shape[1] // 2
    assert height(lower[:, half:]) > 5 * height(lower[:, :half])


def test_what_exploded_is_as_pale_as_can_be_and_spoils_no_axis(tmp_path: Path) -> None:
    wild = run("wild")
    wild["landscape"]["losses"][0][0] = None
    wild["landscape"]["losses"][0][1] = 1e30
    wild["lines"]["gradient"][0] = None
    wild["lines"]["gradient"][-1] = 1e30
    pixels = drawn(tmp_path / "wild.png", wild)
    assert amount(pixels, DARKEST, 40) > 500 and amount(pixels, PALEST, 40) > 500
    assert amount(pixels, ORANGE) > 200


@pytest.mark.parametrize("loss", [0.0, 1e-9, 1.3])
def test_a_flat_landscape_is_drawn_too(tmp_path: Path, loss: float) -> None:
    flat = run("flat", bottom=loss, steepness=0.0, points=3)
    assert drawn(tmp_path / "flat.png", flat).size


def test_a_run_without_a_plane_is_left_out(tmp_path: Path) -> None:
    cut = {**run("cut"), "landscape": None}
    assert (drawn(tmp_path / "a.png", run("one"), cut) == drawn(tmp_path / "b.png", run("one"))).all()


def test_long_and_odd_names_stay_within_their_panel(tmp_path: Path) -> None:
    name = "20261124-120000-cub200-timm-swin_large_patch4_window12_384.ms_in22k-pim-sam_$x_$"
    pixels = drawn(tmp_path / "long.png", run(name), run(name + "-2"))
    assert pixels.shape[1] < 1500


@pytest.mark.parametrize("highest", [0.3, 1.5, 7.5, 100.0, 1e6])
def test_contour_lines_are_round_enough_and_few_enough(highest: float) -> None:
    levels = Scale(0.1, highest).levels()
    assert LINES <= len(levels) <= 22
    assert all(0.1 < level < highest for level in levels) and levels == sorted(levels)


def test_the_scale_is_even_by_the_logarithm() -> None:
    scale = Scale(0.1, 10.0)
    assert [scale.part(loss) for loss in (0.1, 1.0, 10.0)] == pytest.approx([0, 0.5, 1])
    assert math.isfinite(scale.part(0.2))
