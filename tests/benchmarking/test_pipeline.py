"""The input pipeline is timed as trainings use it: decoding, filling a store, reading from it."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fgvc_cli import settings as program
from fgvc_cli.benchmarking import pipeline
from fgvc_cli.benchmarking.dry_run import Images, dry_run, random_job, scratch_folder
from fgvc_cli.benchmarking.pipeline import EVERY, FIRST, LATER, measure_feeds
from fgvc_cli.config.run_config import RunConfig, resolve
from fgvc_cli.contracts import Split
from fgvc_cli.data import reading
from fgvc_cli.data.cache import store
from fgvc_cli.data.splits import TrainingSplits
from fgvc_cli.errors import FgvcError
from fgvc_cli.registry import get_registry

CLASSES, EACH = ("blue", "red"), 10
IMAGES = len(CLASSES) * EACH


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Class folders of noise; all are training images but a val split of one class."""
    rng = np.random.default_rng(0)
    folders = [tmp_path / "photos" / "train" / name for name in CLASSES] + [tmp_path / "photos" / "val" / "red"]
    for folder in folders:
        folder.mkdir(parents=True)
        for number in range(EACH):
            Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def _write_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PATIENCE", 60.0)
    monkeypatch.setattr(store, "SLOW", 60.0)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that the loader decodes in this process; each takes some milliseconds."""
    files: list[Path] = []
    real = reading.read_image

    def slowly(source: Path, target_side: int | None = None) -> Any:
        files.append(source)
        time.sleep(0.01)
        return real(source, target_side)

    monkeypatch.setattr(reading, "read_image", slowly)
    return files


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
    assert [feed.name for feed in (every, first, later)] == [EVERY, FIRST, LATER]
    # the first is as long as the time allows, and each other over the same images but a batch that warms up
    assert 4 <= every.images < IMAGES - 2
    assert first.images == every.images - 2
    assert later.images % first.images == 0
    warming = 2
    assert len(decoded) == warming + every.images + every.images  # none for the last feed
    assert len(set(decoded[warming + every.images :])) == every.images
    assert every.images_per_second < 100 and first.images_per_second < 100  # of 10 ms each, and more
    assert later.images_per_second > first.images_per_second


def test_all_images_where_there_is_time(photographs: Path, decoded: list[Path]) -> None:
    every, _, later = measure_feeds(config_of(photographs), seconds=5.0)
    assert every.images == IMAGES - 2  # a batch warms up
    assert every.images_per_second <= 100
    assert later.images / (every.images - 2) <= pipeline.MOST_PASSES


def test_where_the_time_goes(photographs: Path) -> None:
    every, first, later = measure_feeds(config_of(photographs), seconds=0.0)
    assert every.note.startswith("a reading process decodes for ") and "augments for" in every.note
    assert later.note.startswith("a reading process reads the store for ") and not first.note
    shares = [int(word) for word in later.note.split() if word.isdigit()]
    assert sum(shares) == 100


def test_the_devices_part_of_the_augmentation(photographs: Path) -> None:
    every, *_ = measure_feeds(config_of(photographs, {"where": "device"}), seconds=0.0)
    assert "crops for" in every.note and "the device alone augments" in every.note


@pytest.mark.parametrize("workers", [1, 2])
def test_with_processes_that_read(photographs: Path, workers: int) -> None:
    every, first, later = measure_feeds(config_of(photographs, workers=workers), seconds=0.0)
    assert every.images == pipeline.LEAST_ROUNDS * workers * 2
    assert first.images == every.images - 2 * workers and later.images % first.images == 0
    assert multiprocessing.active_children() == []


def test_no_process_is_cut_short_at_work_that_would_not_count(photographs: Path) -> None:
    job = random_job(config_of(photographs, workers=2))
    with scratch_folder() as folder, dry_run(job, folder, keep=False) as trainer:
        fed = pipeline._fed(trainer, 0, lambda found: len(found.indices) >= 3)
        again = pipeline._fed(trainer, 0, lambda found: len(found.indices) >= 3)
    assert len(fed.indices) == 4 and fed.images == 8
    assert all(map(np.array_equal, fed.indices, again.indices))


def test_nothing_is_left_behind(photographs: Path) -> None:
    before = set(photographs.rglob("*"))
    measure_feeds(config_of(photographs, workers=1), seconds=0.0)
    assert set(photographs.rglob("*")) == before
    assert set(program.current().cache.rglob("*")) == set() and not program.current().runs.exists()


@pytest.mark.parametrize(
    ("train", "augment", "why"),
    [
        ({"cache": "off"}, {}, "train.cache is off"),
        ({}, {"before_resize": True}, "`augment.before_resize`"),
    ],
)
def test_nothing_kept(photographs: Path, train: dict[str, Any], augment: dict[str, Any], why: str) -> None:
    (feed,) = measure_feeds(config_of(photographs, augment, **train), seconds=0.0)
    assert feed.name == EVERY and why in feed.note and feed.images_per_second > 0


@pytest.mark.parametrize(("limit", "why"), [(0, "--cache-limit is 0"), (1000, "`cache_limit` of 1 kB")])
def test_no_room(photographs: Path, limit: int, why: str) -> None:
    program.use(program.current().changed("--cache-limit", cache_limit=limit))
    try:
        (feed,) = measure_feeds(config_of(photographs), seconds=0.0)
        with pytest.raises(FgvcError, match=r"`train\.cache=on`"):
            measure_feeds(config_of(photographs, cache="on"), seconds=0.0)
    finally:
        program.use(None)
    assert why in feed.note


def in_memory(count: int) -> Images:
    arrays = [np.full((40, 48, 3), number, np.uint8) for number in range(count)]
    split = Split("train", arrays, [number % 2 for number in range(count)], [str(number) for number in range(count)])
    dataset: Any = SimpleNamespace(name="drawn", class_names=CLASSES, identity=dict)
    return dataset, TrainingSplits(split, None, None)


def test_images_in_memory(photographs: Path) -> None:
    (feed,) = measure_feeds(config_of(photographs), 0.0, in_memory(12))
    assert feed.images == 4 and feed.note.startswith("the images are in memory; a reading process resizes for")


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images(photographs: Path, count: int) -> None:
    with pytest.raises(FgvcError, match=f"at least 2 images, and the train split has {count}"):
        measure_feeds(config_of(photographs), 0.0, in_memory(count))


def test_images_that_cannot_be_read(photographs: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = sorted((photographs / "train").rglob("*.png"))[:3]
    for path in broken:
        path.write_bytes(path.read_bytes()[:60])
    feeds = measure_feeds(config_of(photographs, batch_size=4), seconds=5.0)
    assert feeds[0].note.endswith("3 images could not be read")
    warned = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 3  # once each, though they come up in three feeds
    with pytest.raises(FgvcError, match="`strict_data`"):
        measure_feeds(config_of(photographs, strict_data=True), seconds=5.0)
    for path in (photographs / "train").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(FgvcError, match=f"{IMAGES} of its {IMAGES} images are unreadable"):
        measure_feeds(config_of(photographs), seconds=0.0)


def test_a_store_that_is_not_filled_at_once(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow disk a pass leaves images out: then others follow before reading is timed, or the note says so."""
    real, wanted = store.DecodeCache.write, [0]

    def every_other(self: store.DecodeCache, images: Any) -> None:
        wanted[0] += bool(images)
        if wanted[0] % 2 == 0:
            real(self, images)

    monkeypatch.setattr(store.DecodeCache, "write", every_other)
    monkeypatch.setattr(pipeline, "MOST_PASSES", 1)
    *_, later = measure_feeds(config_of(photographs), seconds=60.0)
    assert "not kept" not in later.note
    monkeypatch.setattr(pipeline, "FILLING", 0)
    *_, later = measure_feeds(config_of(photographs), seconds=60.0)
    assert f"of {IMAGES - 2} images were not kept" in later.note


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
