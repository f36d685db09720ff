"""Deletion, insertion, average drop and pointing game, compared with closed forms and a slow implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.explaining.faithfulness import (
    CurveEnds,
    PartLocations,
    average_drop,
    box_on_crop,
    deletion_auc,
    insertion_auc,
    mask_of_boxes,
    pointing_hits,
)
from fgvc_cli.explaining.masking import class_probabilities, fill_image, saliency_order, weighted_probabilities

LIT = 1
ZEROS, ONES = (0.0,) * 3, (1.0,) * 3
CENTER = Preprocessing(64, 80, ZEROS, ONES)
SQUASH = Preprocessing(64, 80, ZEROS, ONES, crop_mode="squash")


@pytest.fixture
def lit(ready):
    """Function from pixels to the probability of "lit"."""
    chosen = ready()
    return lambda pixels: class_probabilities(chosen, pixels)[:, LIT]


def areas(maps, pixels, probability, steps):
    ends = CurveEnds.of(pixels, probability(pixels), probability)
    order = saliency_order(maps)
    return deletion_auc(order, ends, probability, steps), insertion_auc(order, ends, probability, steps)


def test_closed_forms_of_a_perfect_and_an_inverted_map(ready) -> None:
    everywhere = ready(patch=(slice(None), slice(None)))
    pixels = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    pixels[:, 0, ::2, ::2] = 255  # 16 of 64 pixels, none of which is bright any more once it is blurred

    def probability(seen):
        return 4 * class_probabilities(everywhere, seen)[:, LIT]  # the share of the 16 that is visible

    perfect = (pixels[:, 0] > 0).float()
    deletion, insertion = areas(perfect, pixels, probability, steps=8)
    assert deletion.tolist() == pytest.approx([16 / 128], abs=1e-4)
    assert insertion.tolist() == pytest.approx([1 - 16 / 128], abs=1e-4)
    deletion, insertion = areas(1 - perfect, pixels, probability, steps=8)
    assert deletion.tolist() == pytest.approx([1 - 16 / 128], abs=1e-4)
    assert insertion.tolist() == pytest.approx([16 / 128], abs=1e-4)


@pytest.mark.parametrize("steps", [2, 7])
def test_batches_agree_with_a_slow_implementation(lit, lamp, steps: int) -> None:
    generator = torch.Generator().manual_seed(steps)
    pixels = lamp(16, 9, 3)
    maps = (torch.rand(3, 8, 8, generator=generator) * 4).round() / 4  # with ties, and zeros
    deletion, insertion = areas(maps, pixels, lit, steps)
    for i in range(3):
        mean, blurred = (fill_image(pixels[i : i + 1], fill) for fill in ("mean", "blur"))
        assert deletion[i].item() == pytest.approx(slow_area(maps[i], pixels[i], mean[0], lit, steps), abs=1e-5)
        assert insertion[i].item() == pytest.approx(slow_area(maps[i], blurred[0], pixels[i], lit, steps), abs=1e-5)


def slow_area(saliency, start, end, probability, steps):
    """Replace pixel by pixel in Python, and integrate with numpy."""
    order = sorted(range(64), key=lambda p: (-saliency[p // 8, p % 8].item(), p))
    shares, values = [], []
    for step in range(steps + 1):
        count = round(64 * step / steps)
        image = start.clone()
        for p in order[:count]:
            image[:, p // 8, p % 8] = end[:, p // 8, p % 8]
        shares.append(count / 64)
        values.append(probability(image[None]).item())
    return float(np.trapezoid(values, shares))


def test_the_number_of_passes_of_a_curve(ready, lamp) -> None:
    chosen = ready()
    areas(torch.zeros(2, 8, 8), lamp(16, 3), lambda p: class_probabilities(chosen, p)[:, LIT], steps=7)
    assert chosen.classifier.backbone.calls == [2] * (3 + 2 * 6)


def test_the_average_drop_is_never_negative() -> None:
    drops = average_drop(torch.tensor([0.8, 0.5, 0.4, 0.0]), torch.tensor([0.2, 0.5, 0.9, 0.0]))
    assert drops.tolist() == pytest.approx([0.75, 0, 0, 0])


def test_the_image_is_multiplied_by_its_map(ready, lamp) -> None:
    pixels = lamp(16, 16)
    maps = torch.zeros(2, 8, 8)
    maps[0, :2, :4], maps[0, 2, :4] = 1.0, 0.8  # 8 of 16 stay bright; 0.8 is too dark to count
    p = weighted_probabilities(ready(), pixels, maps)[:, LIT]
    assert p.tolist() == pytest.approx([0.5, 0], abs=1e-5)


def test_the_curves_do_not_synchronize_with_the_device(lit, lamp, strict_device) -> None:
    pixels = lamp(16, 9)
    ends = CurveEnds.of(pixels, lit(pixels), lit)
    with strict_device():
        deletion_auc(saliency_order(pixels[:, 0] / 255), ends, lit, 4)
        average_drop(ends.p, ends.p_mean)


def test_a_center_crop_keeps_the_aspect_ratio() -> None:
    # 320 x 160 becomes 160 x 80, of which the crop takes 48..112 and 8..72
    assert box_on_crop((100, 20, 200, 60), (320, 160), CENTER) == pytest.approx((2, 2, 52, 22))


def test_squash_does_not() -> None:
    # 320 x 160 becomes 80 x 80, of which the crop takes 8..72
    assert box_on_crop((100, 20, 200, 60), (320, 160), SQUASH) == pytest.approx((17, 2, 42, 22))


def test_a_box_outside_of_the_crop_is_none_and_one_across_its_edge_is_not_clipped() -> None:
    assert box_on_crop((0, 0, 96, 160), (320, 160), CENTER) is None  # ends where the crop begins
    assert box_on_crop((0, 0, 98, 160), (320, 160), CENTER) == pytest.approx((-48, -8, 1, 72))
    assert box_on_crop((225, 10, 300, 20), (320, 160), CENTER) is None
    assert box_on_crop((0, 0, 320, 15), (320, 160), CENTER) is None
    assert box_on_crop((0, 0, 96, 160), (320, 160), SQUASH) is not None


def test_a_box_on_the_crop_covers_the_same_pixels_as_on_the_photograph() -> None:
    photograph = np.zeros((90, 150, 3), np.uint8)
    photograph[30:60, 60:100] = 255
    for preprocessing in (CENTER, SQUASH):
        crop = preprocessing(Image.fromarray(photograph))[0].numpy()
        mask = mask_of_boxes([box_on_crop((60, 30, 100, 60), (150, 90), preprocessing)], 64, 0.0)
        assert ((crop > 127) == mask).mean() > 0.985
        assert mask.any()


def test_masks_contain_the_pixels_with_their_center_inside() -> None:
    assert mask_of_boxes([(1.4, 0.0, 2.6, 1.0)], 4, 0.0).astype(int).tolist() == [
        [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0],
    ]  # fmt: skip
    assert mask_of_boxes([(1.6, 0.6, 2.4, 1.4)], 4, 0.0).sum() == 0
    assert mask_of_boxes([(1.6, 0.6, 2.4, 1.4)], 4, 0.25).astype(int).tolist() == [
        [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0],
    ]  # fmt: skip
    assert mask_of_boxes([(-9, -9, 1, 1), (3, 3, 9, 9)], 4, 0.0).sum() == 2
    assert not mask_of_boxes([], 4, 0.5).any()


def test_a_map_points_at_its_maximum() -> None:
    maps = torch.zeros(4, 4, 4)
    masks = torch.zeros(4, 4, 4, dtype=torch.bool)
    masks[:, 1, 1:3] = True
    maps[0, 1, 2], maps[0, 0, 0] = 1.0, 0.9
    maps[1, 3, 3], maps[1, 1, 1] = 1.0, 0.9
    maps[2, 1, 1] = maps[2, 1, 2] = maps[2, 0, 0] = maps[2, 3, 3] = 0.7  # a plateau: two of four lie inside
    assert pointing_hits(maps, masks).tolist() == [1.0, 0.0, 0.5, 0.0]  # the last map is zero


def test_parts_of_a_split_by_class(tmp_path) -> None:
    file = tmp_path / "0.png"
    Image.fromarray(np.zeros((80, 160, 3), np.uint8)).save(file)
    boxes = {"beak": (48, 8, 64, 24), "tail": (0, 0, 40, 80), "wing": (96, 56, 112, 72)}
    split = Split("test", [file, np.zeros((80, 160, 3), np.uint8)], [0, 1], ["a", "b"], [boxes, boxes])
    deciding = {"finch": ("beak", "tail"), "wren": ("tail",)}
    parts = PartLocations(split, deciding, ("finch", "wren"), CENTER).masks([1, 0])
    assert parts.deciding[0].sum() == 0  # the wren's tail is outside of the crop
    assert parts.deciding[1].sum() == 16 * 16 and parts.deciding[1, :16, :16].all()
    assert parts.any.sum(dim=(1, 2)).tolist() == [2 * 16 * 16] * 2 and parts.any[0, 48:, 48:].all()


def test_boxes_refer_to_the_upright_photograph(tmp_path) -> None:
    image = Image.fromarray(np.zeros((160, 80, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees: 160 wide and 80 high
    image.save(tmp_path / "turned.jpg", exif=exif)
    split = Split("test", [tmp_path / "turned.jpg"], [0], ["a"], [{"beak": (48, 8, 64, 24)}])
    parts = PartLocations(split, {"finch": ("beak",)}, ("finch",), CENTER).masks([0])
    assert parts.deciding[0, :16, :16].all() and parts.deciding.sum() == 256
