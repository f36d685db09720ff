"""Masks pixel by pixel, and the steps of the occlusion test."""

from __future__ import annotations

import itertools

import pytest
import torch

from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.explaining.masking import (
    Masking,
    fill_image,
    is_flat,
    mask_pixels,
    most_salient,
    occlusion_steps,
    saliency_order,
)

MAP = torch.tensor([[[0.9, 0.1, 0.5], [0.5, 0.0, 0.2], [0.5, 1.0, 0.0]]])
DARK, LIT = 0, 1


def test_ties_rank_in_row_major_order() -> None:
    assert saliency_order(MAP).tolist() == [[[1, 6, 2], [3, 7, 5], [4, 0, 8]]]


def test_maps_that_are_the_same_up_to_rounding_are_flat() -> None:
    rounded = torch.ones(1, 3, 3)
    rounded[0, 1, 1] -= 1e-7
    maps = torch.cat([MAP, rounded, torch.zeros(1, 3, 3), torch.full((1, 3, 3), torch.nan)])
    assert is_flat(maps).tolist() == [False, True, True, False]


def test_nan_counts_as_zero_and_is_never_masked() -> None:
    maps = MAP.clone()
    maps[0, 2, 1] = torch.nan
    assert saliency_order(maps)[0, 2, 1] == 8 - 1  # the second of three zeros
    assert not most_salient(maps, Masking(area=1.0))[0, 2, 1]


@pytest.mark.parametrize(
    ("area", "masked"),
    [
        (1 / 9, [[0, 0, 0], [0, 0, 0], [0, 1, 0]]),
        (0.45, [[1, 0, 1], [1, 0, 0], [0, 1, 0]]),  # 4.05 of 9 pixels, and the first two of three equal ones
        (0.5, [[1, 0, 1], [1, 0, 0], [0, 1, 0]]),  # 4.5 rounds to even
        (1.0, [[1, 1, 1], [1, 0, 1], [1, 1, 0]]),  # no pixel of value 0
    ],
)
def test_an_area_masks_exactly_the_most_salient_pixels(area: float, masked: list[list[int]]) -> None:
    assert most_salient(MAP, Masking(area=area))[0].int().tolist() == masked


def test_a_threshold_masks_all_pixels_at_or_above_it() -> None:
    assert most_salient(MAP, Masking(threshold=0.5))[0].int().tolist() == [[1, 0, 1], [1, 0, 0], [1, 1, 0]]


def test_masked_pixels_are_not_selected_again() -> None:
    first = most_salient(MAP, Masking(area=0.22))
    second = most_salient(MAP, Masking(area=0.22), first)
    assert second[0].int().tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert not most_salient(MAP, Masking(threshold=0.8), first).any()


def test_the_mean_is_that_of_the_image_and_gray_is_128() -> None:
    pixels = torch.zeros(2, 3, 2, 2, dtype=torch.uint8)
    pixels[0, 0] = torch.tensor([[10, 20], [30, 41]])  # mean 25.25
    pixels[0, 1] = torch.tensor([[1, 0], [1, 0]])  # mean 0.5, which rounds up
    pixels[1] = 200
    masks = torch.tensor([[[True, False], [False, True]], [[False, False], [True, False]]])
    masked = mask_pixels(pixels, masks, "mean")
    assert masked[0, 0].tolist() == [[25, 20], [30, 25]]
    assert masked[0, 1].tolist() == [[1, 0], [1, 1]]
    assert masked[1].eq(200).all()
    assert mask_pixels(pixels, masks, "gray")[1, 2].tolist() == [[200, 200], [128, 200]]
    assert masked.dtype == torch.uint8


def test_the_blur_keeps_flat_images_and_smears_a_point_evenly() -> None:
    side = 41
    flat = torch.full((1, 3, side, side), 77, dtype=torch.uint8)
    assert fill_image(flat, "blur").eq(77).all()
    point = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    point[0, 1, 18:23, 18:23] = 255
    blurred = fill_image(point, "blur")[0].int()
    assert blurred[0].eq(0).all() and blurred[2].eq(0).all()  # channels do not mix
    assert torch.equal(blurred[1], blurred[1].T) and torch.equal(blurred[1], blurred[1].flip(0))
    # sigma 4.1: the center keeps (fraction of a normal distribution within 2.5)^2 = 0.458^2 of 255
    assert blurred[1, 20, 20] == pytest.approx(0.458**2 * 255, abs=1.5)
    assert blurred[1, 20, 0] == 0


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"fill": "black"}, "cover=black"),
        ({"area": 0.0}, "cover_area=0"),
        ({"area": float("nan")}, "cover_area=nan"),
        ({"threshold": 2}, "cover_threshold=2"),
    ],
)
def test_invalid_settings_are_refused(wrong: dict, name: str) -> None:
    with pytest.raises(UsageError, match=name):
        Masking(**wrong)


def test_masking_the_patch_that_decides_flips_the_prediction(ready, named, lamp) -> None:
    first, second = occlusion_steps(named("perfect"), ready(), lamp(16, 0), None, Masking(area=0.25), steps=1)
    assert first.targets.tolist() == [LIT, DARK] == first.probabilities.argmax(dim=1).tolist()
    assert not first.masks.any()
    assert torch.equal(first.pixels, lamp(16, 0))
    assert second.masks[0, :4, :4].all() and second.masks[0].sum() == 16
    assert not second.masks[1].any()  # the map of the dark image is zero
    assert second.probabilities[0].tolist() == pytest.approx([1, 0, 0], abs=1e-5)
    assert second.targets.tolist() == [DARK, DARK]  # the class predicted at that step
    assert second.pixels[0, 0, 0, 0] == 64  # the mean of 16 lit pixels in 64: 63.75
    assert not second.maps[0].any()  # a new map


def test_each_step_masks_additional_pixels(ready, named, lamp) -> None:
    chosen, masking = ready(), Masking(area=4 / 64)
    steps = list(occlusion_steps(named("perfect"), chosen, lamp(16), torch.tensor([LIT]), masking, steps=5))
    assert [int(step.masks.sum()) for step in steps] == [0, 4, 8, 12, 16, 16]
    assert [float(step.probabilities[0, LIT]) for step in steps] == pytest.approx([1, 0.75, 0.5, 0.25, 0, 0], abs=1e-5)
    assert all(not (a.masks & ~b.masks).any() for a, b in itertools.pairwise(steps))
    assert {int(step.targets) for step in steps} == {LIT}  # an explicit target stays
    assert steps[4].pixels[0, 0, :4, :4].eq(64).all()  # the mean of the unmasked image at every step
    assert chosen.classifier.backbone.calls == [1] * 6
    assert all(parameter.grad is None for parameter in chosen.classifier.parameters())


@pytest.mark.parametrize("name", ["not-a-number", "too-high"])
def test_maps_out_of_range_are_refused(ready, named, lamp, name) -> None:
    with pytest.raises(FgvcError, match=f"'{name}' of .* breaks its contract"):
        list(occlusion_steps(named(name), ready(), lamp(16, 0), None, Masking(), steps=1))
