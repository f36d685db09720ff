"""Geometry between a photograph and the classifier's crop of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgvc_cli.contracts import Preprocessing
from fgvc_cli.explaining.overlays import crop_box, masked_photograph, open_photograph, to_photograph

SIZES = [(300, 200), (64, 64), (50, 400)]


def preprocessing(side: int = 64, resize: int = 73, crop_mode: str = "center") -> Preprocessing:
    return Preprocessing(side, resize, (0.0,) * 3, (1.0,) * 3, crop_mode)  # type: ignore[arg-type]


def gradient(size: tuple[int, int]) -> Image.Image:
    """Return a picture whose red increases from left to right, and whose green from top to bottom."""
    width, height = size
    across = np.broadcast_to((np.arange(width) + 0.5) / width * 255, (height, width))
    down = np.broadcast_to(((np.arange(height) + 0.5) / height * 255)[:, None], (height, width))
    return Image.fromarray(np.stack([across, down, 0 * across], axis=2).round().astype(np.uint8))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize("resize", [64, 73])
def test_the_box_is_that_of_the_preprocessing(size, crop_mode, resize):
    steps = preprocessing(64, resize, crop_mode)
    left, top, right, bottom = crop_box(size, steps)
    seen = steps(gradient(size)).numpy()[:2].astype(float)
    # The crop's outermost pixels lie half a pixel of the crop within the box, on every side.
    across, down = (right - left) / 128, (bottom - top) / 128
    horizontally = [(left + across) / size[0], (right - across) / size[0]]
    expected = [*horizontally, (top + down) / size[1], (bottom - down) / size[1]]
    found = [seen[0, 32, 0], seen[0, 32, -1], seen[1, 0, 32], seen[1, -1, 32]]
    # An edge of the picture pulls the average of its outermost pixels inwards by at most half a pixel of the crop.
    assert np.array(found) / 255 == pytest.approx(np.array(expected), abs=0.5 / 64 + 0.004)


def test_boxes_of_a_landscape_and_a_portrait():
    assert crop_box((300, 200), preprocessing(64, 64)) == pytest.approx((50, 0, 250, 200))
    assert crop_box((200, 300), preprocessing(64, 64)) == pytest.approx((0, 50, 200, 250))
    assert crop_box((300, 200), preprocessing(64, 128)) == pytest.approx((100, 50, 200, 150))
    assert crop_box((300, 200), preprocessing(64, 128, "squash")) == pytest.approx((75, 50, 225, 150))


@pytest.mark.parametrize("size", SIZES)
def test_salient_pixels_are_drawn_at_their_place(size):
    steps = preprocessing()
    values = np.zeros((64, 64), np.float32)
    values[10:20, 40:50] = 1
    box = crop_box(size, steps)
    brought = to_photograph(values, size, box)
    assert brought.shape == size[::-1] and brought.dtype == np.float32
    y, x = np.mgrid[: size[1], : size[0]] + 0.5
    center = (brought * x).sum() / brought.sum(), (brought * y).sum() / brought.sum()
    side_x, side_y = (box[2] - box[0]) / 64, (box[3] - box[1]) / 64
    assert center[0] == pytest.approx(box[0] + 45 * side_x, abs=max(1, 0.3 * side_x))
    assert center[1] == pytest.approx(box[1] + 15 * side_y, abs=max(1, 0.3 * side_y))
    assert brought.sum() == pytest.approx(100 * side_x * side_y, rel=0.15)


def test_a_crop_beyond_the_photograph_is_clipped():
    values = np.zeros((10, 10), np.float32)
    values[:, 5:] = 1
    brought = to_photograph(values, (10, 20), (-10.0, 0.0, 10.0, 20.0))
    assert brought.shape == (20, 10)
    assert brought[:, 1:].min() == 1  # the left half of the crop is not on the photograph
    assert not to_photograph(values, (10, 20), (30.0, 0.0, 40.0, 10.0)).any()


def test_only_masked_pixels_are_filled():
    photograph = gradient((300, 200))
    masks = np.zeros((64, 64), np.bool_)
    masks[16:48, 16:48] = True
    fills = np.full((64, 64, 3), (9, 8, 7), np.uint8)
    box = crop_box(photograph.size, preprocessing(64, 64))
    painted = np.asarray(masked_photograph(photograph, masks, fills, box))
    before = np.asarray(photograph)
    assert (painted[55:145, 105:195] == (9, 8, 7)).all()
    outside = np.ones((200, 300), bool)
    outside[49:151, 99:201] = False
    assert (painted[outside] == before[outside]).all()
    unmasked = masked_photograph(photograph, np.zeros((64, 64), np.bool_), fills, box)
    assert (np.asarray(unmasked) == before).all()


def test_a_photograph_is_unchanged(tmp_path: Path):
    gradient((400, 300)).save(tmp_path / "a.png")
    photograph = open_photograph(tmp_path / "a.png")
    assert (np.asarray(photograph.image) == np.asarray(gradient((400, 300)))).all()
    assert (photograph.times, photograph.is_reduced, photograph.note) == (1, False, "")


def test_a_small_photograph_is_enlarged(tmp_path: Path):
    array = np.asarray(gradient((64, 40)))
    photograph = open_photograph(array)
    assert photograph.size == (256, 160)
    assert (np.asarray(photograph.image) == array.repeat(4, axis=0).repeat(4, axis=1)).all()
    assert "64 x 40 px" in photograph.note and "4 times" in photograph.note


def test_a_large_photograph_is_downscaled():
    photograph = open_photograph(np.zeros((1000, 3200, 3), np.uint8))
    assert photograph.size == (1600, 500) and "1600 x 500 px" in photograph.note
    assert open_photograph(np.zeros((1000, 3200, 3), np.uint8), 320).size == (320, 100)


def test_a_photograph_is_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    gradient((400, 300)).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    photograph = open_photograph(tmp_path / "turned.jpg")
    assert photograph.size == (300, 400)
    corner = photograph.image.getpixel((295, 5))  # the upper left corner of the file
    assert max(corner) < 30  # type: ignore[arg-type]
