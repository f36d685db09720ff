"""Batches on the device: augmented, mixed, and the same for any number of workers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.data.augmentation import resolve_where
from fgvc_cli.data.loading import TrainingLoader
from fgvc_cli.data.staging import Staging
from fgvc_cli.errors import UsageError
from fgvc_cli.options import build

SIDE = 32
CPU, GPU = torch.device("cpu"), torch.device("cuda")
ALL = AugmentOptions(
    policy="autoaugment", color_jitter=0.3, blur=0.3, sharpen=0.3, erase=0.5, mixup=0.4, cutmix=1.0, where="device"
)


class Normalizer:
    """What staging wants of a classifier."""

    preprocessing = Preprocessing(SIDE, 40, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    class_names = ("blue", "green", "red")

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def normalize(self, pixels):
        return pixels.to(self.device) / 51 - 2.5


@pytest.fixture
def split(photos) -> Split:
    paths = sorted((photos / "train").rglob("*.png"))
    return Split("train", paths, [i % 3 for i in range(len(paths))], [str(path) for path in paths])


@pytest.fixture
def staged(split):
    """Return the staged batches of an epoch; the last one has 7 images."""

    def make(
        options: AugmentOptions,
        workers: int = 0,
        device: torch.device = CPU,
        smoothing: float = 0.1,
        channels_last: bool = False,
    ):
        pin = device.type == "cuda"
        loader = TrainingLoader(split, Normalizer.preprocessing, options, 10, 3, workers, pin)
        staging = Staging(Normalizer(device), options, smoothing, channels_last, device)
        batches = [staging([batch])[0] for batch in loader.epoch(1)]
        loader.close()
        return batches

    return make


def equal(first, second) -> bool:
    return all(torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))


def test_the_same_whatever_the_number_of_workers(staged) -> None:
    alone = staged(ALL)
    assert [len(batch.labels) for batch in alone] == [10, 10, 7]
    assert equal(alone, staged(ALL, workers=2))
    assert all(batch.images.shape[1:] == (3, SIDE, SIDE) for batch in alone)


def test_crops_and_flips_are_the_same_pixels_wherever_they_are_done(staged) -> None:
    options = AugmentOptions(padding=4, mixup=0.5, where="workers")
    assert equal(staged(options), staged(replace(options, where="device")))
    assert not equal(staged(options), staged(replace(options, mixup=0.0, where="device")))


def test_targets_are_classes_until_something_makes_them_soft(staged) -> None:
    plain, *_ = staged(AugmentOptions(policy="autoaugment", where="device"), smoothing=0.0)
    assert torch.equal(plain.targets, plain.labels)
    mixed, *_ = staged(ALL, smoothing=0.0)
    assert mixed.targets.shape == (10, 3)
    assert torch.allclose(mixed.targets.sum(1), torch.ones(10))
    partners = F.one_hot(mixed.labels, 3) + F.one_hot(mixed.labels.roll(1), 3)
    assert bool((mixed.targets[partners == 0] == 0).all()) and bool((mixed.targets != F.one_hot(mixed.labels, 3)).any())


def test_mixed_targets_are_smooth(staged) -> None:
    hard, smooth = staged(ALL, smoothing=0.0), staged(ALL, smoothing=0.3)
    assert all(torch.allclose(s.targets, 0.7 * h.targets + 0.1) for s, h in zip(smooth, hard, strict=True))


def test_images_have_the_layout_that_was_asked_for(staged) -> None:
    last, first = staged(ALL, channels_last=True), staged(ALL)
    assert equal(last, first)
    assert all(batch.images.is_contiguous(memory_format=torch.channels_last) for batch in last)
    assert all(batch.images.is_contiguous() for batch in first)


def test_auto_is_the_device_on_a_gpu() -> None:
    def where(device: torch.device, **options) -> str:
        return resolve_where(AugmentOptions(**options), device).where

    assert where(GPU) == "device" and where(CPU) == "workers" and where(torch.device("mps")) == "workers"
    assert where(GPU, policy="autoaugment", before_resize=True) == "workers"
    assert where(CPU, merge_geometry=True) == "device"
    assert where(GPU, where="workers") == "workers" and where(CPU, where="device") == "device"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"where": "device", "before_resize": True, "policy": "autoaugment"}, "before_resize=true needs where=workers"),
        ({"where": "workers", "merge_geometry": True}, "merge_geometry=true needs where=device .* where is workers"),
        ({"merge_geometry": True, "before_resize": True, "policy": "autoaugment"}, "and before_resize is true"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, words) -> None:
    with pytest.raises(UsageError, match=words):
        build(AugmentOptions, options, "augment")


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_a_gpu_stages_what_the_cpu_does(staged, workers) -> None:
    """A blur is rounded on its own, so it is left out; all else is the same to the last digit or nearly."""
    options = replace(ALL, blur=0.0)
    for here, there in zip(staged(options), staged(options, workers, GPU), strict=True):
        assert torch.allclose(here.images, there.images.cpu(), atol=1.1 / 51)
        assert torch.allclose(here.targets, there.targets.cpu()) and torch.equal(here.labels, there.labels.cpu())


@pytest.mark.gpu
def test_staging_on_a_gpu_overlaps_the_step_before_and_waits_for_nothing(split) -> None:
    loader = TrainingLoader(split, Normalizer.preprocessing, ALL, 10, 3, 0, True)
    batches = list(loader.epoch(1))
    staging = Staging(Normalizer(GPU), ALL, 0.1, False, GPU)
    expected = [tuple(tensor.clone() for tensor in staging([batch])[0]) for batch in batches]
    weights = torch.randn(4096, 4096, device=GPU)
    torch.cuda.synchronize()
    done, used = [], []
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            for batch in batches:
                ((images, targets, labels),) = staging([batch])
                ready = torch.cuda.Event()
                ready.record(staging._stream)
                used.append((images.clone(), targets.clone(), labels.clone()))
                del images, targets, labels  # their memory may be taken again: not before this step has read them
                for _ in range(40):
                    weights = (weights @ weights).clamp_(-1, 1)
                step = torch.cuda.Event()
                step.record()
                done.append((ready, step))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    # the last batch is ready before the step before its own has ended
    done[-1][0].synchronize()
    assert not done[-2][1].query()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for x, y in zip(used, expected * 3, strict=True) for a, b in zip(x, y, strict=True))
