"""Figures of a batch, and of many."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from fgvc_cli.data.loading import ImageBatch
from fgvc_cli.explaining.faithfulness import Parts
from fgvc_cli.explaining.masking import Cover
from fgvc_cli.explaining.measuring import WAITING_BATCHES, Gathering, Measured, Measuring, measure

MEASURING = Measuring(Cover(area=0.1), steps=2, curve_steps=5, target="predicted")
LIT = 1


def batch_of(pixels) -> ImageBatch:
    return ImageBatch(pixels, torch.full((len(pixels),), LIT), torch.arange(len(pixels)))


@pytest.fixture
def corner_parts():
    """A function that makes the parts of a batch: the corner decides in all but the last image."""

    def make(images: int) -> Parts:
        masks = torch.zeros(images, 8, 8, dtype=torch.bool)
        masks[:-1, :4, :4] = True
        return Parts(masks, torch.ones_like(masks))

    return make


def test_an_image_has_the_same_figures_alone_and_in_a_batch(ready, named, lamp) -> None:
    explainers = [named("knowing", softness=0.1), named("inverted")]
    together = measure(ready(), explainers, batch_of(lamp(16, 9, 3)), None, MEASURING, lambda n: None)
    for i, count in enumerate((16, 9, 3)):
        alone = measure(ready(), explainers, batch_of(lamp(count)), None, MEASURING, lambda n: None)
        for one, all_ in zip(alone, together, strict=True):
            for field in fields(Measured):
                if field.name != "indices":
                    torch.testing.assert_close(one.array(field.name)[0], all_.array(field.name)[i], equal_nan=True)


def test_nothing_waits_for_the_device(ready, named, lamp, corner_parts, strict_device) -> None:
    chosen, passes = ready(), []
    explainers = [named("knowing"), named("inverted")]
    batch, parts = batch_of(lamp(16, 3)), corner_parts(2)
    with strict_device() as counted:
        measure(chosen, explainers, batch, parts, MEASURING, passes.append)
    assert counted.operations
    assert sum(passes) == 2 * MEASURING.passes(explainers=2)


def test_an_image_without_a_part_on_the_crop_is_left_out(ready, named, lamp, corner_parts) -> None:
    [measured] = measure(
        ready(), [named("knowing")], batch_of(lamp(16, 16)), corner_parts(2), MEASURING, lambda n: None
    )
    torch.testing.assert_close(measured.pointing, torch.tensor([1.0, torch.nan]), equal_nan=True)
    torch.testing.assert_close(measured.chance, torch.tensor([0.25, torch.nan]), equal_nan=True)
    assert measured.pointing_any.tolist() == [1, 1] == measured.chance_any.tolist()


def test_figures_are_gathered_in_order_however_many_batches() -> None:
    gathering = Gathering()
    for i in range(2 * WAITING_BATCHES + 3):
        column = torch.tensor([2 * i, 2 * i + 1])
        gathering.add([Measured(*[column + offset] * 16) for offset in (0, 1000)])
    first, second = gathering.all()
    assert first.indices.tolist() == list(range(2 * (2 * WAITING_BATCHES + 3)))
    assert second.drop.tolist()[:2] == [1000, 1001] and len(second) == len(first)
    assert Gathering().all() == []
