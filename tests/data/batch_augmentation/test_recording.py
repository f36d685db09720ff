"""The draws for the device are those of the transforms on an image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts import Preprocessing
from fgvc_cli.data.augmentation import Augmentation
from fgvc_cli.data.batch_augmentation.draws import Operation
from fgvc_cli.data.batch_augmentation.recording import record
from fgvc_cli.data.order import seeded

SIDE = 32
PREPROCESSING = Preprocessing(SIDE, 40, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
OPTIONS = {
    "flip": {},
    "autoaugment": {"policy": "autoaugment"},
    "randaugment": {"policy": "randaugment", "randaugment_operations": 4},
    "trivialaugment": {"policy": "trivialaugment"},
    "resized": {"crop": "resized", "policy": "autoaugment"},
    "padding": {"padding": 4, "policy": "trivialaugment"},
    "all": {"policy": "autoaugment", "color_jitter": 0.4, "blur": 0.5, "sharpen": 0.5, "erase": 0.5},
}


def photograph() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 60, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", OPTIONS)
def test_both_draw_the_same_numbers(name: str) -> None:
    """Under the same seed both leave the generator in the same state."""
    here = Augmentation(AugmentOptions(**OPTIONS[name]), PREPROCESSING)
    there = Augmentation(AugmentOptions(**OPTIONS[name], where="device"), PREPROCESSING)
    for seed in range(25):
        with seeded(seed):
            here(photograph())
            expected = torch.get_rng_state()
        with seeded(seed):
            _, draw = there.in_worker(photograph())
            assert torch.equal(torch.get_rng_state(), expected)
        assert draw.mix is None


def test_the_crop_is_the_same() -> None:
    here = Augmentation(AugmentOptions(flip=0), PREPROCESSING)
    there = Augmentation(AugmentOptions(flip=0, policy="autoaugment", where="device"), PREPROCESSING)
    for seed in range(10):
        with seeded(seed):
            expected = here(photograph())
        with seeded(seed):
            pixels, _ = there.in_worker(photograph())
        assert torch.equal(pixels, expected)


def test_workers_leave_nothing_for_the_device() -> None:
    augmentation = Augmentation(AugmentOptions(policy="autoaugment"), PREPROCESSING)
    with seeded(0):
        pixels, draw = augmentation.in_worker(photograph())
    with seeded(0):
        assert torch.equal(pixels, augmentation(photograph()))
    assert draw == ((), None)


def test_operations_are_recorded_in_order() -> None:
    options = AugmentOptions(flip=1, policy="trivialaugment", color_jitter=0.4, blur=1, sharpen=1, erase=1)
    augmentation = Augmentation(AugmentOptions(**{**vars(options), "where": "device"}), PREPROCESSING)
    seen = set()
    for seed in range(60):
        with seeded(seed):
            names = [op.operation.name for op in augmentation.draw().ops]
        assert names[0] == "FLIP" and names[-3:] == ["BLUR", "SHARPNESS", "ERASE"]
        assert {"BRIGHTNESS", "CONTRAST", "SATURATION"} <= set(names)
        seen |= set(names)
    assert seen == {operation.name for operation in Operation} - {"NONE", "RESAMPLE", "INVERT"}


def test_unsupported_operations_are_refused() -> None:
    for transform in (v2.GaussianBlur(3), v2.ColorJitter(hue=0.2), v2.RandomAffine(5, scale=(0.5, 0.9))):
        with pytest.raises(NotImplementedError):
            record(transform, SIDE)
