"""The input pipeline as training uses it: decoding, filling the cache, reading from it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fgvc_cli import settings as program
from fgvc_cli.benchmarking import pipeline
from fgvc_cli.benchmarking.dry_run import Images, dry_run, random_job, scratch_folder
from fgvc_cli.benchmarking.pipeline import FIRST, LATER, NO_CACHE, measure_feeds
from fgvc_cli.config.run_config import RunConfig, resolve
from fgvc_cli.contracts import Split
from fgvc_cli.data.cache import store
from fgvc_cli.data.splits import TrainingSplits
from fgvc_cli.errors import FgvcError
from fgvc_cli.registry import get_registry

CLASSES, EACH = ("blue", "red"), 10
IMAGES = len(CLASSES) * EACH


@pytest.fixture
def photographs(tmp_path: Path, make_photographs: Callable[..., Path]) -> Path:
    """Class folders of noise; all are training images but a val split of one class."""
    return make_photographs(tmp_path / "photos", EACH, *(f"train/{name}" for name in CLASSES), "val/red")


@pytest.fixture(autouse=True)
def _quick(whole_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MAX_PASSES", 3)


@pytest.fixture
def decoded(decoded: list[Path], monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that the loader decodes, on a fake clock: 10 ms each, and 0.1 ms per look at the clock."""
    looks = count()
    clock = SimpleNamespace(perf_counter=lambda: 0.01 * len(decoded) + 1e-4 * next(looks))
    monkeypatch.setattr(pipeline, "time", clock)
    return decoded


def config_of(data: Path | None, augment: dict[str, Any] | None = None, **train: Any) -> RunConfig:
    layer: dict[str, dict[str, Any]] = {
        "backbone": {"name": "timm/test_resnet"},
        "train": {"image_size": 32, "batch_size": 2, "device": "cpu", "workers": 0, **train},
        "augment": {"policy": "autoaugment", "where": "workers", **(augment or {})},
    }
    if data is not None:
        layer["dataset"] = {"data": str(data)}
    return resolve([layer], "finetune", {"device": "cpu", "weights": "pretrained"}, get_registry())


def test_three_feeds(photographs: Path, decoded: list[Path]) -> None:
    every, first, later = measure_feeds(config_of(photographs), seconds=60.0 / 1000)
    assert [feed.name for feed in (every, first, later)] == [NO_CACHE, FIRST, LATER]
    # three batches of 20 ms within 60 ms; the others read the same images except a batch for warm-up
    assert every.images == 6
    assert first.images == every.images - 2
    assert later.images % first.images == 0
    warming = 2
    assert len(decoded) == warming + every.images + every.images  # none for the last feed
    assert len(set(decoded[warming + every.images :])) == every.images
    assert every.images_per_second < 100 and first.images_per_second < 100
    assert later.images_per_second > first.images_per_second


def test_notes_on_the_shares_of_the_time(photographs: Path) -> None:
    every, first, later = measure_feeds(config_of(photographs), seconds=0.0)
    assert every.note.startswith("a loader process decodes for ") and "augments for" in every.note
    assert later.note.startswith("a loader process reads the cache for ") and not first.note
    shares = [int(word) for word in later.note.split() if word.isdigit()]
    assert sum(shares) == 100


def test_a_note_on_augmentation_on_the_device(photographs: Path) -> None:
    every, *_ = measure_feeds(config_of(photographs, {"where": "device"}), seconds=0.0)
    assert "crops for" in every.note and "the device alone augments" in every.note


def test_with_workers(photographs: Path) -> None:
    every, first, later = measure_feeds(config_of(photographs, workers=2), seconds=0.0)
    assert every.images == pipeline.MIN_BATCHES * 2 * 2
    assert first.images == every.images - 2 * 2 and later.images % first.images == 0
    assert multiprocessing.active_children() == []


def test_reading_stops_after_a_batch_of_every_worker(photographs: Path) -> None:
    job = random_job(config_of(photographs, workers=2))
    with scratch_folder() as folder, dry_run(job, folder, cached=False) as trainer:
        fed = pipeline._read(trainer, 0, lambda found: len(found.indices) >= 3)
        again = pipeline._read(trainer, 0, lambda found: len(found.indices) >= 3)
    assert len(fed.indices) == 4 and fed.images == 8
    assert all(map(np.array_equal, fed.indices, again.indices))


@pytest.mark.parametrize(
    ("train", "augment", "why"),
    [
        ({"cache": "off"}, {}, "`train.cache=off`"),
        ({}, {"before_resize": True}, "`augment.before_resize`"),
    ],
)
def test_why_nothing_is_cached(photographs: Path, train: dict[str, Any], augment: dict[str, Any], why: str) -> None:
    (feed,) = measure_feeds(config_of(photographs, augment, **train), seconds=0.0)
    assert feed.name == NO_CACHE and why in feed.note and feed.images_per_second > 0


def test_no_space_for_the_cache(photographs: Path) -> None:
    program.use(program.current().changed("--cache-limit", cache_limit=1000))
    try:
        (feed,) = measure_feeds(config_of(photographs), seconds=0.0)
        with pytest.raises(FgvcError, match=r"`train\.cache=on`"):
            measure_feeds(config_of(photographs, cache="on"), seconds=0.0)
    finally:
        program.use(None)
    assert "`cache_limit` of 1 kB" in feed.note


def in_memory(images: int) -> Images:
    arrays = [np.full((40, 48, 3), index, np.uint8) for index in range(images)]
    split = Split("train", arrays, [index % 2 for index in range(images)], [str(index) for index in range(images)])
    dataset: Any = SimpleNamespace(name="drawn", class_names=CLASSES, identity=dict, taxonomy=lambda: None)
    return dataset, TrainingSplits(split, None, None)


def test_images_in_memory(photographs: Path) -> None:
    (feed,) = measure_feeds(config_of(photographs), 0.0, in_memory(12))
    assert feed.images == 4 and feed.note.startswith("the images are in memory; a loader process resizes for")


@pytest.mark.parametrize("images", [0, 1])
def test_too_few_images(photographs: Path, images: int) -> None:
    with pytest.raises(FgvcError, match=f"at least 2 images.* {images}"):
        measure_feeds(config_of(photographs), 0.0, in_memory(images))


def test_images_that_cannot_be_read(photographs: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = sorted((photographs / "train").rglob("*.png"))[:3]
    for path in broken:
        path.write_bytes(path.read_bytes()[:60])
    feeds = measure_feeds(config_of(photographs, batch_size=4), seconds=5.0)
    assert feeds[0].note.endswith("3 images could not be read")
    assert sum(any(str(path) in message for path in broken) for message in caplog.messages) == 3  # once each
    with pytest.raises(FgvcError, match="strict.data"):
        measure_feeds(config_of(photographs, strict_data=True), seconds=5.0)
    for path in (photographs / "train").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(FgvcError, match=f"{IMAGES} of its {IMAGES} images are unreadable"):
        measure_feeds(config_of(photographs), seconds=0.0)


def test_a_cache_that_is_filled_in_several_passes(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow disk a pass leaves images out: more passes follow, and the note says what is missing."""
    real, wanted = store.DecodeCache.write, [0]

    def every_other(self: store.DecodeCache, images: Any) -> None:
        wanted[0] += bool(images)
        if wanted[0] % 2 == 0:
            real(self, images)

    monkeypatch.setattr(store.DecodeCache, "write", every_other)
    monkeypatch.setattr(pipeline, "MAX_PASSES", 1)
    *_, later = measure_feeds(config_of(photographs), seconds=60.0)
    assert "not cached" not in later.note
    monkeypatch.setattr(pipeline, "MAX_FILLING_PASSES", 0)
    *_, later = measure_feeds(config_of(photographs), seconds=60.0)
    assert f"of {IMAGES - 2} images were not cached" in later.note


def test_balanced_classes_read_some_images_twice(photographs: Path) -> None:
    for path in sorted((photographs / "train" / "red").glob("*.png"))[2:]:
        path.unlink()
    every, first, _ = measure_feeds(config_of(photographs, sampling="class"), seconds=5.0)
    assert every.images == 12 - 2 and first.images > 0


@pytest.mark.gpu
def test_on_a_gpu(photographs: Path) -> None:
    config = config_of(photographs, {"where": "auto"}, device="cuda", workers=2)
    every, first, later = measure_feeds(config, seconds=0.5)
    assert random_job(config).device.type == "cuda"
    assert "the device alone augments" in every.note
    assert min(feed.images_per_second for feed in (every, first, later)) > 0
