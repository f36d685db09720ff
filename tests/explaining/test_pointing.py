"""The pointing game: boxes on the crop by hand, and what counts as a hit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.explaining.faithfulness import KnownParts, box_on_crop, hits, mask_of

ZEROS, ONES = (0.0,) * 3, (1.0,) * 3
SHORT = Preprocessing(64, 80, ZEROS, ONES)
STRETCH = Preprocessing(64, 80, ZEROS, ONES, crop_mode="squash")


def test_short_fit_keeps_the_shape_and_crops_the_center() -> None:
    # 320 x 160 becomes 160 x 80, of which the crop takes 48..112 and 8..72
    assert box_on_crop((100, 20, 200, 60), (320, 160), SHORT) == pytest.approx((2, 2, 52, 22))


def test_stretch_makes_a_square_of_everything() -> None:
    # 320 x 160 becomes 80 x 80, of which the crop takes 8..72
    assert box_on_crop((100, 20, 200, 60), (320, 160), STRETCH) == pytest.approx((17, 2, 42, 22))


def test_a_part_outside_of_the_crop_is_none_and_one_across_its_edge_stays() -> None:
    assert box_on_crop((0, 0, 96, 160), (320, 160), SHORT) is None  # ends where the crop begins
    assert box_on_crop((0, 0, 98, 160), (320, 160), SHORT) == pytest.approx((-48, -8, 1, 72))
    assert box_on_crop((225, 10, 300, 20), (320, 160), SHORT) is None
    assert box_on_crop((0, 0, 320, 15), (320, 160), SHORT) is None
    assert box_on_crop((0, 0, 96, 160), (320, 160), STRETCH) is not None


def test_a_box_brought_to_the_crop_lies_on_the_pixels_it_lay_on() -> None:
    photograph = np.zeros((90, 150, 3), np.uint8)
    photograph[30:60, 60:100] = 255
    for preprocessing in (SHORT, STRETCH):
        crop = preprocessing(Image.fromarray(photograph))[0].numpy()
        mask = mask_of([box_on_crop((60, 30, 100, 60), (150, 90), preprocessing)], 64, 0.0)
        assert ((crop > 127) == mask).mean() > 0.985
        assert mask.any()


def test_masks_hold_the_pixels_whose_center_is_inside() -> None:
    assert mask_of([(1.4, 0.0, 2.6, 1.0)], 4, 0.0).astype(int).tolist() == [
        [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0],
    ]  # fmt: skip
    assert mask_of([(1.6, 0.6, 2.4, 1.4)], 4, 0.0).sum() == 0
    assert mask_of([(1.6, 0.6, 2.4, 1.4)], 4, 0.25).astype(int).tolist() == [
        [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0],
    ]  # fmt: skip
    assert mask_of([(-9, -9, 1, 1), (3, 3, 9, 9)], 4, 0.0).sum() == 2
    assert not mask_of([], 4, 0.5).any()


def test_a_map_hits_where_its_maximum_lies() -> None:
    maps = torch.zeros(4, 4, 4)
    masks = torch.zeros(4, 4, 4, dtype=torch.bool)
    masks[:, 1, 1:3] = True
    maps[0, 1, 2], maps[0, 0, 0] = 1.0, 0.9
    maps[1, 3, 3], maps[1, 1, 1] = 1.0, 0.9
    maps[2, 1, 1] = maps[2, 1, 2] = maps[2, 0, 0] = maps[2, 3, 3] = 0.7  # a plateau: two of four lie inside
    assert hits(maps, masks).tolist() == [1.0, 0.0, 0.5, 0.0]  # the last marks nothing and points nowhere


def test_parts_of_a_split_by_class(tmp_path) -> None:
    file = tmp_path / "0.png"
    Image.fromarray(np.zeros((80, 160, 3), np.uint8)).save(file)
    boxes = {"beak": (48, 8, 64, 24), "tail": (0, 0, 40, 80), "wing": (96, 56, 112, 72)}
    split = Split("test", [file, np.zeros((80, 160, 3), np.uint8)], [0, 1], ["a", "b"], [boxes, boxes])
    deciding = {"finch": ("beak", "tail"), "wren": ("tail",)}
    parts = KnownParts(split, deciding, ("finch", "wren"), SHORT).of([1, 0])
    assert parts.deciding[0].sum() == 0  # the wren's tail is outside of the crop
    assert parts.deciding[1].sum() == 16 * 16 and parts.deciding[1, :16, :16].all()
    assert parts.any.sum(dim=(1, 2)).tolist() == [2 * 16 * 16] * 2 and parts.any[0, 48:, 48:].all()


def test_a_photograph_is_measured_as_it_stands_upright(tmp_path) -> None:
    image = Image.fromarray(np.zeros((160, 80, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter: 160 wide and 80 high
    image.save(tmp_path / "turned.jpg", exif=exif)
    split = Split("test", [tmp_path / "turned.jpg"], [0], ["a"], [{"beak": (48, 8, 64, 24)}])
    parts = KnownParts(split, {"finch": ("beak",)}, ("finch",), SHORT).of([0])
    assert parts.deciding[0, :16, :16].all() and parts.deciding.sum() == 256
