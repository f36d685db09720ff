"""Deletion, insertion and average drop beside closed forms, and beside a slow version that takes image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fgvc_cli.explaining.faithfulness import CurveEnds, average_drop, curve_passes, deletion_auc, insertion_auc
from fgvc_cli.explaining.masking import class_probabilities, filling, marked_probabilities, saliency_order

LIT = 1


@pytest.fixture
def lit(ready):
    """A function from pixels to the probability of "lit"."""
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


def test_a_perfect_map_beats_the_random_one_and_an_inverted_map_loses(lit, lamp) -> None:
    pixels = lamp(*[16] * 50)
    perfect = (pixels[:, 0] > 0).float()
    noise = torch.rand(50, 8, 8, generator=torch.Generator().manual_seed(0))
    (best, best_in), (middle, middle_in), (worst, worst_in) = (
        areas(m, pixels, lit, 16) for m in (perfect, noise, 1 - perfect)
    )
    assert (best < middle).all() and (middle < worst).all()
    assert (best_in > middle_in).all() and (middle_in > worst_in).all()
    assert middle.mean() == pytest.approx(0.5, abs=0.02)  # half of the patch is gone when half of the image is


@pytest.mark.parametrize("steps", [2, 5, 7, 64])
def test_batches_agree_with_a_slow_version(lit, lamp, steps: int) -> None:
    generator = torch.Generator().manual_seed(steps)
    pixels = lamp(16, 9, 3)
    maps = (torch.rand(3, 8, 8, generator=generator) * 4).round() / 4  # with ties, and zeros
    deletion, insertion = areas(maps, pixels, lit, steps)
    for i in range(3):
        mean, blurred = (filling(pixels[i : i + 1], fill) for fill in ("mean", "blur"))
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


def test_a_curve_takes_the_passes_it_says(ready, lamp) -> None:
    chosen = ready()
    areas(torch.zeros(2, 8, 8), lamp(16, 3), lambda p: class_probabilities(chosen, p)[:, LIT], steps=7)
    assert chosen.classifier.backbone.calls == [2] * (3 + 2 * curve_passes(7))


def test_average_drop_is_what_is_lost_and_never_negative() -> None:
    drops = average_drop(torch.tensor([0.8, 0.5, 0.4, 0.0]), torch.tensor([0.2, 0.5, 0.9, 0.0]))
    assert drops.tolist() == pytest.approx([0.75, 0, 0, 0])


def test_the_image_is_multiplied_by_its_map(ready, lamp) -> None:
    pixels = lamp(16, 16)
    maps = torch.zeros(2, 8, 8)
    maps[0, :2, :4], maps[0, 2, :4] = 1.0, 0.8  # 8 of 16 stay bright; 0.8 is too dark to count
    p = marked_probabilities(ready(), pixels, maps)[:, LIT]
    assert p.tolist() == pytest.approx([0.5, 0], abs=1e-5)


def test_nothing_waits_for_the_device(lit, lamp, strict_device) -> None:
    pixels = lamp(16, 9)
    ends = CurveEnds.of(pixels, lit(pixels), lit)
    with strict_device():
        deletion_auc(saliency_order(pixels[:, 0] / 255), ends, lit, 4)
        average_drop(ends.p, ends.p_mean)
