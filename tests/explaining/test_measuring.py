"""Measurements of a batch, and of many."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from fgvc_cli.data.loading import ImageBatch
from fgvc_cli.explaining.faithfulness import PartMasks
from fgvc_cli.explaining.masking import Masking
from fgvc_cli.explaining.measuring import PENDING_BATCHES, Accumulator, Measurements, MeasureSettings, measure_batch

SETTINGS = MeasureSettings(Masking(area=0.1), steps=2, curve_steps=5, target="predicted")
LIT = 1


def batch_of(pixels) -> ImageBatch:
    return ImageBatch(pixels, torch.full((len(pixels),), LIT), torch.arange(len(pixels)))


@pytest.fixture
def corner_parts():
    """Function that makes the parts of a batch: the corner decides in all images but the last."""

    def make(images: int) -> PartMasks:
        masks = torch.zeros(images, 8, 8, dtype=torch.bool)
        masks[:-1, :4, :4] = True
        return PartMasks(masks, torch.ones_like(masks))

    return make


def test_an_image_has_the_same_measurements_alone_and_in_a_batch(ready, named, lamp) -> None:
    explainers = [named("perfect", softness=0.1), named("inverted")]
    together = measure_batch(ready(), explainers, batch_of(lamp(16, 9, 3)), None, SETTINGS, lambda n: None)
    for i, count in enumerate((16, 9, 3)):
        alone = measure_batch(ready(), explainers, batch_of(lamp(count)), None, SETTINGS, lambda n: None)
        for one, all_ in zip(alone, together, strict=True):
            for field in fields(Measurements):
                if field.name != "indices":
                    torch.testing.assert_close(
                        getattr(one, field.name)[0], getattr(all_, field.name)[i], equal_nan=True
                    )


def test_measuring_does_not_synchronize_with_the_device(ready, named, lamp, corner_parts, strict_device) -> None:
    chosen, passes = ready(), []
    explainers = [named("perfect"), named("inverted")]
    batch, parts = batch_of(lamp(16, 3)), corner_parts(2)
    with strict_device() as counted:
        measure_batch(chosen, explainers, batch, parts, SETTINGS, passes.append)
    assert counted.operations
    assert sum(passes) == 2 * SETTINGS.passes(explainers=2)


def test_pointing_is_nan_without_a_part_on_the_crop(ready, named, lamp, corner_parts) -> None:
    [measured] = measure_batch(
        ready(), [named("perfect")], batch_of(lamp(16, 16)), corner_parts(2), SETTINGS, lambda n: None
    )
    torch.testing.assert_close(measured.pointing, torch.tensor([1.0, torch.nan]), equal_nan=True)
    torch.testing.assert_close(measured.chance, torch.tensor([0.25, torch.nan]), equal_nan=True)
    assert measured.pointing_any.tolist() == [1, 1] == measured.chance_any.tolist()


def test_batches_accumulate_in_order() -> None:
    accumulator = Accumulator()
    for i in range(2 * PENDING_BATCHES + 3):
        column = torch.tensor([2 * i, 2 * i + 1])
        accumulator.add([Measurements(*[column + offset] * 16) for offset in (0, 1000)])
    first, second = accumulator.all()
    assert first.indices.tolist() == list(range(2 * (2 * PENDING_BATCHES + 3)))
    assert second.drop.tolist()[:2] == [1000, 1001] and len(second) == len(first)
    assert Accumulator().all() == []
