"""Cached images have the pixels that decoding gives, in any process and at any time."""

from __future__ import annotations

import itertools
import os
import pickle
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.data import loading
from fgvc_cli.data.augmentation import Augmentation
from fgvc_cli.data.cache import store
from fgvc_cli.data.cache.store import NO_KEY, CachedImages, image_key
from fgvc_cli.data.images import CachedResize, read_image
from fgvc_cli.data.loading import EvaluationLoader, ImageBatch, TrainingLoader

Photographs = Callable[..., Split]
Cached = Callable[..., CachedImages]
AUGMENT = AugmentOptions(policy="autoaugment", color_jitter=0.3, erase=0.5)


def training(
    split: Split,
    preprocessing,
    cached: CachedImages | None,
    workers: int = 0,
    augment=AUGMENT,
    **changes,
) -> TrainingLoader:
    return TrainingLoader(split, preprocessing, augment, 4, 3, workers, False, cached=cached, **changes)


def evaluation(split: Split, preprocessing, cached: CachedImages | None = None) -> EvaluationLoader:
    return EvaluationLoader(split, preprocessing, 5, 0, False, cached=cached)


def assert_same_batches(first: Iterable[ImageBatch], second: Iterable[ImageBatch]) -> None:
    for a, b in itertools.zip_longest(first, second):
        assert all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that this process decodes."""
    paths: list[Path] = []
    monkeypatch.setattr(loading, "read_image", lambda path, side=None: paths.append(path) or read_image(path, side))
    return paths


@pytest.mark.parametrize(
    ("crop_mode", "interpolation", "options"),
    [
        ("center", "bilinear", {"policy": "autoaugment"}),
        ("squash", "bicubic", {"policy": "autoaugment", "crop": "center"}),
        ("center", "bilinear", {"crop": "resized", "scale_min": 0.5}),
    ],
)
def test_training_batches_are_the_same_with_and_without_a_cache(
    photographs, cache, decoded, crop_mode, interpolation, options
) -> None:
    preprocessing = Preprocessing(32, 40, (0.5,) * 3, (0.2,) * 3, crop_mode, interpolation)
    split, augment = photographs(), AugmentOptions(**options)
    plain = Augmentation(augment, preprocessing)
    resize = CachedResize.of_augmentation(plain)
    assert resize is not None
    cached = CachedImages(cache, resize, split.images)
    loader = training(split, preprocessing, cached, augment=augment)
    for epoch in range(2):  # decoded, then cached
        batches = list(loader.epoch(epoch))
        assert len(decoded) == (12 if epoch == 0 else 0)
        assert_same_batches(batches, training(split, preprocessing, None, augment=augment).epoch(epoch))
        decoded.clear()
    assert cached.count() == len(split)
    with loading.seeded(7), cached.batch():  # the same as augmenting the decoded image
        image = cached.get(0)
        assert image is not None
        ours = plain(image)
    if resize.crop_mode != "shrink":
        with loading.seeded(7):
            assert torch.equal(ours, plain(read_image(split.images[0], plain.target_side)))


def test_evaluation_is_the_same_and_each_image_is_decoded_once(photographs, cached, preprocessing, decoded) -> None:
    split = photographs()
    loader = evaluation(split, preprocessing, cached(split))
    expected = torch.stack([preprocessing(read_image(path, preprocessing.resize)) for path in split.images])
    for _ in range(2):
        assert torch.equal(torch.cat([batch.pixels for batch in loader]), expected)
    assert sorted(decoded) == sorted(split.images)


def test_resizing_for_random_crops_only_shrinks(preprocessing) -> None:
    augmentation = Augmentation(AugmentOptions(crop="resized", scale_min=0.5), preprocessing)
    resize = CachedResize.of_augmentation(augmentation)
    assert resize == CachedResize("shrink", augmentation.target_side, "bilinear")
    small = Image.new("RGB", (augmentation.target_side, 300))
    assert resize(small) is small
    assert min(resize(Image.new("RGB", (900, 200))).size) == augmentation.target_side
    whole = Augmentation(AugmentOptions(policy="autoaugment", before_resize=True), preprocessing)
    assert CachedResize.of_augmentation(whole) is None


def test_training_and_validation_share_an_environment(photographs, cached, preprocessing, decoded) -> None:
    train, val = photographs(), photographs(5, "val")
    both = training(train, preprocessing, cached(train)), evaluation(val, preprocessing, cached(val))
    for epoch in range(2):  # interleaved, as a validation within an epoch would be
        for _ in itertools.zip_longest(both[0].epoch(epoch), both[1]):
            pass
    assert len(decoded) == 17
    both[1].close()
    assert_same_batches(both[0].epoch(5), training(train, preprocessing, None).epoch(5))


@pytest.mark.parametrize("start_method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_fill_a_cache_and_read_it(photographs, cache, cached, preprocessing, start_method: str) -> None:
    split = photographs()
    images = cached(split)
    assert images.count() == 0  # opens it here, before workers are forked
    loader = training(split, preprocessing, images, 2, start_method=start_method)
    for epoch in range(2):
        assert_same_batches(loader.epoch(epoch), training(split, preprocessing, None).epoch(epoch))
    there = images.count()
    assert there == 12 or (start_method == "spawn" and there > 0)  # a spawned process pauses on a slow disk
    loader.close()
    again = training(split, preprocessing, images, 1, start_method=start_method)
    assert images.count() >= there  # opened here again, and then forked
    assert_same_batches(again.epoch(0), training(split, preprocessing, None).epoch(0))
    assert not cache.error and not cache.warned
    again.close()


def test_resuming_in_mid_epoch_gives_the_same_batches(photographs, cached, preprocessing) -> None:
    split = photographs()
    whole = list(training(split, preprocessing, None).epoch(2))
    stopped = training(split, preprocessing, cached(split)).epoch(2)
    assert_same_batches([next(stopped)], whole[:1])
    assert 0 < cached(split).count() < 12
    assert_same_batches(training(split, preprocessing, cached(split)).epoch(2, skip=1), whole[1:])


def test_a_replaced_file_is_decoded_again(photographs, cached, preprocessing) -> None:
    split = photographs(4)
    path = split.images[0]
    (before,) = evaluation(split, preprocessing, cached(split))
    times = path.stat()
    Image.new("RGB", (60, 50), "red").save(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a copying program does; the size differs
    assert cached(split).count() == 3
    (after,) = evaluation(split, preprocessing, cached(split))
    assert torch.equal(after.pixels[0], preprocessing(read_image(path, 40)))
    assert not torch.equal(after.pixels[0], before.pixels[0])


def test_a_file_replaced_during_the_run_is_not_cached_under_its_old_key(photographs, cached, preprocessing) -> None:
    split = photographs(4)
    images = cached(split)
    Image.new("RGB", (60, 50), "red").save(split.images[0])
    list(evaluation(split, preprocessing, images))
    assert images.count() == 3 and cached(split).count() == 3


def test_unreadable_images_are_not_cached(photographs, cached, preprocessing) -> None:
    split = photographs(5)
    split.images[1].write_bytes(split.images[1].read_bytes()[:300])
    split.images[2].unlink()
    images = cached(split)
    assert images.keys[2].tobytes() == NO_KEY
    loader = evaluation(split, preprocessing, images)
    for _ in range(2):
        (batch,) = loader
        assert batch.indices.tolist() == [0, 3, 4]
    assert sorted(loader.failures) == ["001.jpg", "002.jpg"]
    assert images.count() == 3


def test_keys_identify_path_and_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"same")
        os.utime(tmp_path / name, ns=(1, 1))
    assert image_key(tmp_path / "a") != image_key(tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    assert image_key("a") == image_key(tmp_path / "a")
    before = image_key("a")
    os.utime("a", ns=(1, 2))
    assert image_key("a") != before


def test_files_that_swap_names_are_told_apart(photographs, cached, preprocessing) -> None:
    split = photographs(4)
    first, second = split.images[0].with_suffix(".bmp"), split.images[1].with_suffix(".bmp")
    for path, color in ((first, "red"), (second, "blue")):
        Image.new("RGB", (60, 50), color).save(path)
        os.utime(path, ns=(1, 1))  # as unpacked from an archive: the same size and time
    both = Split("train", [first, second], [0, 1], ["a", "b"])
    (before,) = evaluation(both, preprocessing, cached(both))
    time.sleep(0.02)  # a tick of the file system's clock
    aside = first.rename(first.with_name("aside"))
    second.rename(first), aside.rename(second)
    (after,) = evaluation(both, preprocessing, cached(both))
    assert torch.equal(after.pixels, before.pixels.flip(0))


def test_an_image_of_another_resize_is_not_used(photographs, cached, preprocessing) -> None:
    split = photographs()
    images = cached(split)
    list(evaluation(split, preprocessing, images))
    augment = AugmentOptions(crop="resized")
    first, second = (training(split, preprocessing, c, augment=augment) for c in (images, None))
    assert_same_batches(first.epoch(0), second.epoch(0))


def test_cached_images_can_be_pickled(photographs, cached, preprocessing) -> None:
    split = photographs(4)
    images = cached(split)
    list(evaluation(split, preprocessing, images))
    copy = pickle.loads(pickle.dumps(images))
    assert copy.count() == 4 and np.array_equal(copy.keys, images.keys)
    many = CachedImages(images.cache, images.resize, [Path("/nowhere") / str(i) for i in range(1000)])
    assert len(pickle.dumps(many)) < 17_000  # 16 bytes per image, and little else


def test_a_flipped_bit_on_the_disk_is_decoded_again(photographs, cached) -> None:
    split = photographs(1)
    images = cached(split)
    picture = images.resize(read_image(split.images[0]))
    with images.batch():
        images.add(0, split.images[0], picture)
    with images.batch():
        assert np.array_equal(images.get(0), picture)
    environment = store.open_environment(images.cache.folder, images.cache.max_size).env
    with environment.begin(write=True) as transaction:
        key = images.keys[0].tobytes()
        value = bytearray(transaction.get(key))
        value[len(value) // 2] ^= 4
        transaction.put(key, bytes(value))
    with images.batch():
        assert images.get(0) is None
