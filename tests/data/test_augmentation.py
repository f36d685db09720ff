from __future__ import annotations

import dataclasses
import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image

from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.data.augmentation import Augmentation
from fgvc_cli.data.order import seeded
from fgvc_cli.errors import UsageError
from fgvc_cli.options import build

OPTIONS = {
    "plain": AugmentOptions(),
    "center": AugmentOptions(crop="center", flip=0),
    "resized": AugmentOptions(crop="resized"),
    "padding": AugmentOptions(padding=8),
    "autoaugment": AugmentOptions(policy="autoaugment"),
    "report": AugmentOptions(policy="autoaugment", before_resize=True),
    "randaugment": AugmentOptions(policy="randaugment"),
    "trivialaugment": AugmentOptions(policy="trivialaugment"),
    "colors": AugmentOptions(color_jitter=0.4, blur=1.0, sharpen=1.0, erase=1.0),
}


def photograph(width: int = 60, height: int = 40) -> Image.Image:
    rng = np.random.default_rng(1)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def drawn(options: AugmentOptions, preprocessing, count: int = 6) -> list[torch.Tensor]:
    augmentation = Augmentation(options, preprocessing)
    tensors = []
    for seed in range(count):
        with seeded(seed):
            tensors.append(augmentation(photograph()))
    return tensors


@pytest.mark.parametrize("name", OPTIONS)
def test_output_depends_only_on_torchs_generator(name, preprocessing) -> None:
    augmentation = Augmentation(OPTIONS[name], preprocessing)
    random.seed(1), np.random.seed(1)
    first = drawn(OPTIONS[name], preprocessing)
    random.seed(2), np.random.seed(2)
    second = drawn(OPTIONS[name], preprocessing)
    assert all(tensor.dtype == torch.uint8 and tensor.shape == (3, 16, 16) for tensor in first)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert any(not torch.equal(first[0], other) for other in first[1:]) == (name != "center")
    with seeded(3):
        assert torch.equal(pickle.loads(pickle.dumps(augmentation))(photograph()), first[3])


def test_nothing_random_is_what_evaluation_does(preprocessing) -> None:
    for crop_mode in ("center", "squash"):
        chosen = dataclasses.replace(preprocessing, crop_mode=crop_mode)
        for image in (photograph(), photograph(46, 40)):  # the second has an odd margin: 7 of 23 pixels
            assert torch.equal(Augmentation(OPTIONS["center"], chosen)(image), chosen(image))


def test_random_crops_are_parts_of_the_resized_image(preprocessing) -> None:
    resized = np.asarray(preprocessing.resized(photograph())).transpose(2, 0, 1)
    windows = np.lib.stride_tricks.sliding_window_view(resized, (16, 16), axis=(1, 2))
    for tensor in drawn(AugmentOptions(flip=0), preprocessing):
        assert (windows == tensor.numpy()[:, None, None]).all(axis=(0, 3, 4)).sum() == 1


def test_flip_is_a_probability(preprocessing) -> None:
    straight = preprocessing(photograph())
    always = drawn(AugmentOptions(crop="center", flip=1), preprocessing)
    assert all(torch.equal(tensor, straight.flip(2)) for tensor in always)
    half = drawn(AugmentOptions(crop="center", flip=0.5), preprocessing, 40)
    assert 8 <= sum(torch.equal(tensor, straight) for tensor in half) <= 32


def test_padding_is_black(preprocessing) -> None:
    white = Image.new("RGB", (40, 40), "white")
    for padding, expected in ((0, False), (8, True)):
        augmentation = Augmentation(AugmentOptions(padding=padding), preprocessing)
        dark = False
        for seed in range(20):
            with seeded(seed):
                dark |= bool((augmentation(white) == 0).any())
        assert dark == expected


def test_before_resize_applies_the_policy_to_the_whole_image(preprocessing, monkeypatch) -> None:
    from torchvision.transforms import v2

    sizes = []

    class Recorded(v2.AutoAugment):
        def forward(self, image):
            sizes.append(image.size)
            return super().forward(image)

    monkeypatch.setattr(v2, "AutoAugment", Recorded)
    for before in (False, True):
        Augmentation(AugmentOptions(policy="autoaugment", before_resize=before), preprocessing)(photograph())
    assert sizes == [(16, 16), (60, 40)]


def test_erased_boxes_get_the_mean_color(preprocessing) -> None:
    white = Image.new("RGB", (40, 40), "white")
    augmentation = Augmentation(AugmentOptions(erase=1.0), preprocessing)
    with seeded(0):
        tensor = augmentation(white)
    erased = tensor[:, (tensor[0] != 255)]
    assert 0 < erased.shape[1] < 256
    assert erased.unique(dim=1).flatten().tolist() == [127, 102, 76]


def test_minimum_side_for_decoding(preprocessing) -> None:
    assert Augmentation(AugmentOptions(), preprocessing).target_side == 20
    assert Augmentation(OPTIONS["report"], preprocessing).target_side is None
    side = Augmentation(AugmentOptions(crop="resized", scale_min=0.25), preprocessing).target_side
    # the narrowest crop, 3:4 with a quarter of the area of a square image, is at least the image size
    assert side is not None
    assert side * (0.25 * 0.75) ** 0.5 >= 16 > (side - 1) * (0.25 * 0.75) ** 0.5


def test_options_without_effect_are_refused() -> None:
    with pytest.raises(UsageError, match="augment: padding=8 needs crop=random, and crop is resized"):
        build(AugmentOptions, {"padding": 8, "crop": "resized"}, "augment")
    with pytest.raises(UsageError, match="before_resize=true needs a policy"):
        build(AugmentOptions, {"before_resize": True}, "augment")
