"""What is covered, pixel by pixel."""

from __future__ import annotations

import pytest
import torch

from fgvc_cli.errors import UsageError
from fgvc_cli.explaining.masking import Cover, cover_pixels, filling, most_marked, saliency_order

MAP = torch.tensor([[[0.9, 0.1, 0.5], [0.5, 0.0, 0.2], [0.5, 1.0, 0.0]]])


def test_the_order_of_saliency_settles_ties_by_the_order_of_reading() -> None:
    assert saliency_order(MAP).tolist() == [[[1, 6, 2], [3, 7, 5], [4, 0, 8]]]


def test_what_is_not_a_number_comes_last_and_is_never_taken() -> None:
    maps = MAP.clone()
    maps[0, 2, 1] = torch.nan
    assert saliency_order(maps)[0, 2, 1] == 8 - 1  # of three that mark nothing the second
    assert not most_marked(maps, Cover(area=1.0))[0, 2, 1]


@pytest.mark.parametrize(
    ("area", "taken"),
    [
        (1 / 9, [[0, 0, 0], [0, 0, 0], [0, 1, 0]]),
        (0.45, [[1, 0, 1], [1, 0, 0], [0, 1, 0]]),  # 4.05 of 9 pixels, and of three equal ones the first two
        (0.5, [[1, 0, 1], [1, 0, 0], [0, 1, 0]]),  # 4.5 rounds to even
        (0.6, [[1, 0, 1], [1, 0, 0], [1, 1, 0]]),
        (1.0, [[1, 1, 1], [1, 0, 1], [1, 1, 0]]),  # no pixel of value 0
    ],
)
def test_an_area_takes_exactly_the_most_marked_pixels(area: float, taken: list[list[int]]) -> None:
    assert most_marked(MAP, Cover(area=area))[0].int().tolist() == taken


def test_a_threshold_takes_all_from_there_up() -> None:
    assert most_marked(MAP, Cover(threshold=0.5))[0].int().tolist() == [[1, 0, 1], [1, 0, 0], [1, 1, 0]]


def test_what_is_taken_already_is_not_taken_again() -> None:
    first = most_marked(MAP, Cover(area=0.22))
    second = most_marked(MAP, Cover(area=0.22), first)
    assert second[0].int().tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert not most_marked(MAP, Cover(threshold=0.8), first).any()


def test_each_image_of_a_batch_has_its_own_share() -> None:
    maps = torch.stack([MAP[0], torch.zeros(3, 3), MAP[0].flip(0)])
    assert most_marked(maps, Cover(area=0.34)).sum(dim=(1, 2)).tolist() == [3, 0, 3]


def test_the_mean_is_the_images_own_and_gray_is_128() -> None:
    pixels = torch.zeros(2, 3, 2, 2, dtype=torch.uint8)
    pixels[0, 0] = torch.tensor([[10, 20], [30, 41]])  # mean 25.25
    pixels[0, 1] = torch.tensor([[1, 0], [1, 0]])  # mean 0.5, which rounds up
    pixels[1] = 200
    masks = torch.tensor([[[True, False], [False, True]], [[False, False], [True, False]]])
    covered = cover_pixels(pixels, masks, "mean")
    assert covered[0, 0].tolist() == [[25, 20], [30, 25]]
    assert covered[0, 1].tolist() == [[1, 0], [1, 1]]
    assert covered[1].eq(200).all()
    assert cover_pixels(pixels, masks, "gray")[1, 2].tolist() == [[200, 200], [128, 200]]
    assert covered.dtype == torch.uint8


def test_the_blur_keeps_flat_images_and_smears_a_point_evenly() -> None:
    side = 41
    flat = torch.full((1, 3, side, side), 77, dtype=torch.uint8)
    assert filling(flat, "blur").eq(77).all()
    point = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    point[0, 1, 18:23, 18:23] = 255
    blurred = filling(point, "blur")[0].int()
    assert blurred[0].eq(0).all() and blurred[2].eq(0).all()  # channels stay apart
    assert torch.equal(blurred[1], blurred[1].T) and torch.equal(blurred[1], blurred[1].flip(0))
    # sigma 4.1: the middle keeps (share of a normal distribution within 2.5)^2 = 0.458^2 of 255
    assert blurred[1, 20, 20] == pytest.approx(0.458**2 * 255, abs=1.5)
    assert blurred[1, 20, 0] == 0


def test_checkerboards_are_gone_after_the_blur() -> None:
    board = ((torch.arange(64)[:, None] + torch.arange(64)) % 2 * 255).to(torch.uint8).expand(1, 3, 64, 64)
    blurred = filling(board, "blur").int()
    assert blurred.min() >= 126 and blurred.max() <= 129


@pytest.mark.parametrize(
    "wrong", [{"fill": "black"}, {"area": 0.0}, {"area": 1.2}, {"threshold": 0.0}, {"threshold": 2}]
)
def test_impossible_covers_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError, match="--cover"):
        Cover(**wrong)
