"""What comes out of a store is what decoding gives, in whatever process and whenever."""

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
from fgvc_cli.data import reading
from fgvc_cli.data.augmentation import Augmentation
from fgvc_cli.data.cache.resize import CachedResize
from fgvc_cli.data.cache.store import NO_KEY, ImageStore, KeptImages, image_key
from fgvc_cli.data.images import read_image
from fgvc_cli.data.loading import EvaluationLoader, ImageBatch, TrainingLoader

Photographs = Callable[..., Split]
Keep = Callable[..., KeptImages]
AUGMENT = AugmentOptions(policy="autoaugment", color_jitter=0.3, erase=0.5)


def training(
    split: Split, preprocessing: Preprocessing, kept: KeptImages | None, workers: int = 0, augment=AUGMENT, **changes
) -> TrainingLoader:
    return TrainingLoader(split, preprocessing, augment, 4, 3, workers, False, kept=kept, **changes)


def assert_same_batches(first: Iterable[ImageBatch], second: Iterable[ImageBatch]) -> None:
    for a, b in itertools.zip_longest(first, second):
        assert all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which files this process decodes."""
    paths: list[Path] = []

    def counted(path: Path, side: int | None = None):
        paths.append(path)
        return read_image(path, side)

    monkeypatch.setattr(reading, "read_image", counted)
    return paths


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop", ["random", "center"])
def test_training_batches_are_the_same_with_and_without_a_store(
    photographs: Photographs, store: ImageStore, crop_mode, interpolation, crop
) -> None:
    preprocessing = Preprocessing(32, 40, (0.5,) * 3, (0.2,) * 3, crop_mode, interpolation)
    split, augment = photographs(), AugmentOptions(policy="autoaugment", crop=crop)
    kept = KeptImages(store, CachedResize.resized(preprocessing), split.images)
    loader = training(split, preprocessing, kept, augment=augment)
    plain = Augmentation(augment, preprocessing)
    for epoch in range(3):  # decoded, then kept
        assert_same_batches(loader.epoch(epoch), training(split, preprocessing, None, augment=augment).epoch(epoch))
        assert kept.count() == len(split)
    # and the same as augmentation of the decoded photograph, whatever loads it
    with reading.seeded(7), kept.batch():
        image = kept.get(0)
        assert image is not None
        ours = plain(image)
    with reading.seeded(7):
        assert torch.equal(ours, plain(read_image(split.images[0], plain.target_side)))


def test_evaluation_is_the_same_and_each_image_is_decoded_once(
    photographs: Photographs, keep: Keep, preprocessing: Preprocessing, decoded: list[Path]
) -> None:
    split = photographs()
    loader = EvaluationLoader(split, preprocessing, 5, 0, False, kept=keep(split))
    passes = [list(loader) for _ in range(3)]
    assert sorted(decoded) == sorted(split.images)
    for batches in passes:
        pixels = torch.cat([batch.pixels for batch in batches])
        expected = [preprocessing(read_image(path, preprocessing.resize)) for path in split.images]
        assert torch.equal(pixels, torch.stack(expected))


def test_random_crops_of_random_size_are_of_the_shrunk_image_with_and_without_a_store(
    photographs: Photographs, keep: Keep, preprocessing: Preprocessing
) -> None:
    split, augment = photographs(), AugmentOptions(crop="resized", scale_min=0.5)
    augmentation = Augmentation(augment, preprocessing)
    rendition = CachedResize.augmented(augmentation)
    assert rendition == CachedResize("shrink", augmentation.target_side, "bilinear")
    loader = training(split, preprocessing, keep(split, rendition), augment=augment)
    for epoch in range(2):
        assert_same_batches(loader.epoch(epoch), training(split, preprocessing, None, augment=augment).epoch(epoch))
    small = Image.new("RGB", (augmentation.target_side, 300))
    assert rendition(small) is small
    assert min(rendition(Image.new("RGB", (900, 200))).size) == augmentation.target_side


def test_an_augmentation_of_the_whole_photograph_has_no_rendition(preprocessing: Preprocessing) -> None:
    before = Augmentation(AugmentOptions(policy="autoaugment", before_resize=True), preprocessing)
    assert CachedResize.augmented(before) is None


def test_training_and_validation_share_an_environment(
    photographs: Photographs, store: ImageStore, keep: Keep, preprocessing: Preprocessing, decoded: list[Path]
) -> None:
    train, val = photographs(), photographs(5, "val")
    both = (
        training(train, preprocessing, keep(train)),
        EvaluationLoader(val, preprocessing, 2, 0, False, kept=keep(val)),
    )
    for epoch in range(2):  # in step, as a validation in mid-epoch would be
        for batch, other in itertools.zip_longest(both[0].epoch(epoch), both[1]):
            assert (batch is None or len(batch.labels)) and (other is None or len(other.labels))
    assert len(decoded) == 17
    assert keep(train).count() == 12 and keep(val).count() == 5
    both[1].close()
    assert_same_batches(both[0].epoch(5), training(train, preprocessing, None).epoch(5))


@pytest.mark.parametrize("start_method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_fill_a_store_and_read_it(
    photographs: Photographs, store: ImageStore, keep: Keep, preprocessing: Preprocessing, start_method: str
) -> None:
    split = photographs()
    kept = keep(split)
    assert kept.count() == 0  # which opens it here, before workers are forked
    loader = training(split, preprocessing, kept, 2, start_method=start_method)
    for epoch in range(2):
        assert_same_batches(loader.epoch(epoch), training(split, preprocessing, None).epoch(epoch))
    there = kept.count()
    assert there == 12 or (start_method == "spawn" and there > 0)  # which rests if the disk is slow at the moment
    assert_same_batches(loader.epoch(2), training(split, preprocessing, None).epoch(2))  # opened here again
    loader.close()
    again = training(split, preprocessing, kept, 1, start_method=start_method)
    assert kept.count() >= there  # once more open here, and then forked
    assert_same_batches(again.epoch(0), training(split, preprocessing, None).epoch(0))
    assert not store.trouble and not store.full and not store.told
    again.close()


def test_going_on_in_mid_epoch_gives_the_same_batches(
    photographs: Photographs, keep: Keep, preprocessing: Preprocessing
) -> None:
    split = photographs()
    whole = list(training(split, preprocessing, None).epoch(2))
    stopped = training(split, preprocessing, keep(split)).epoch(2)
    assert_same_batches([next(stopped)], whole[:1])
    assert 0 < keep(split).count() < 12
    assert_same_batches(training(split, preprocessing, keep(split)).epoch(2, skip=1), whole[1:])


def test_a_replaced_file_is_decoded_anew(photographs: Photographs, keep: Keep, preprocessing: Preprocessing) -> None:
    split = photographs(4)
    path = split.images[0]
    (before,) = EvaluationLoader(split, preprocessing, 4, 0, False, kept=keep(split))
    times = path.stat()
    Image.new("RGB", (60, 50), "red").save(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a copying program does; the size tells it
    assert keep(split).count() == 3
    (after,) = EvaluationLoader(split, preprocessing, 4, 0, False, kept=keep(split))
    assert torch.equal(after.pixels[0], preprocessing(read_image(path, 40)))
    assert not torch.equal(after.pixels[0], before.pixels[0])
    assert torch.equal(after.pixels[1:], before.pixels[1:])


def test_a_file_that_is_replaced_during_the_run_is_not_kept_under_its_old_key(
    photographs: Photographs, keep: Keep, preprocessing: Preprocessing
) -> None:
    split = photographs(4)
    kept = keep(split)
    Image.new("RGB", (60, 50), "red").save(split.images[0])
    list(EvaluationLoader(split, preprocessing, 4, 0, False, kept=kept))
    assert kept.count() == 3
    assert keep(split).count() == 3


def test_images_that_cannot_be_read_are_not_kept(
    photographs: Photographs, keep: Keep, preprocessing: Preprocessing
) -> None:
    split = photographs(5)
    split.images[1].write_bytes(split.images[1].read_bytes()[:300])
    split.images[2].unlink()
    kept = keep(split)
    assert kept.keys[2].tobytes() == NO_KEY
    loader = EvaluationLoader(split, preprocessing, 5, 0, False, kept=kept)
    for _ in range(2):
        (batch,) = loader
        assert batch.indices.tolist() == [0, 3, 4]
    assert sorted(loader.failures) == ["001.jpg", "002.jpg"]
    assert kept.count() == 3


def test_keys_tell_files_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"same")
        os.utime(tmp_path / name, ns=(1, 1))
    assert image_key(tmp_path / "a") != image_key(tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    assert image_key("a") == image_key(tmp_path / "a") == image_key(Path("a"))
    before = image_key("a")
    os.utime("a", ns=(1, 2))
    assert image_key("a") != before


def test_only_larger_images_shrink() -> None:
    shrink = CachedResize("shrink", 40, "bilinear")
    assert [shrink.size(size) for size in ((100, 30), (30, 100), (100, 40), (160, 80))] == [
        (100, 30),
        (30, 100),
        (100, 40),
        (80, 40),
    ]


def test_images_of_another_rendition_are_not_taken(
    photographs: Photographs, keep: Keep, preprocessing: Preprocessing
) -> None:
    split = photographs()
    kept = keep(split)
    list(EvaluationLoader(split, preprocessing, 4, 0, False, kept=kept))
    assert kept.count() == 12
    augment = AugmentOptions(crop="resized")
    first, second = (TrainingLoader(split, preprocessing, augment, 4, 0, 0, False, kept=k) for k in (kept, None))
    assert_same_batches(first.epoch(0), second.epoch(0))


def test_files_that_change_names_are_told_apart(
    photographs: Photographs, keep: Keep, preprocessing: Preprocessing
) -> None:
    split = photographs(4)
    first, second = split.images[0].with_suffix(".bmp"), split.images[1].with_suffix(".bmp")
    for path, color in ((first, "red"), (second, "blue")):
        Image.new("RGB", (60, 50), color).save(path)
        os.utime(path, ns=(1, 1))  # as an archive has it: of one size and one time
    both = Split("train", [first, second], [0, 1], ["a", "b"])
    (before,) = EvaluationLoader(both, preprocessing, 2, 0, False, kept=keep(both))
    time.sleep(0.02)  # a tick of the file system's clock
    aside = first.rename(first.with_name("aside"))
    second.rename(first), aside.rename(second)
    (after,) = EvaluationLoader(both, preprocessing, 2, 0, False, kept=keep(both))
    assert torch.equal(after.pixels, before.pixels.flip(0))


def test_pickled_for_a_spawned_worker(photographs: Photographs, keep: Keep, preprocessing: Preprocessing) -> None:
    split = photographs(4)
    kept = keep(split)
    list(EvaluationLoader(split, preprocessing, 4, 0, False, kept=kept))
    copy = pickle.loads(pickle.dumps(kept))
    assert copy.count() == 4
    assert np.array_equal(copy.keys, kept.keys)
    many = KeptImages(kept.store, kept.rendition, [Path("/nowhere") / str(i) for i in range(1000)])
    assert len(pickle.dumps(many)) < 17_000  # 16 bytes an image, and little else
