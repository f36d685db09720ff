"""Whether images are cached, where, and which caches are removed for it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL
import pytest

from fgvc_cli import files, settings
from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.data.augmentation import Augmentation
from fgvc_cli.data.cache import index, policy
from fgvc_cli.data.cache.index import ABOUT, IMAGES, bytes_per_image, clear, list_caches
from fgvc_cli.data.cache.policy import TrainingCache, training_cache
from fgvc_cli.data.cache.store import DATA
from fgvc_cli.data.images import CachedResize
from fgvc_cli.data.loading import EvaluationLoader
from fgvc_cli.errors import FgvcError

OpenCaches = Callable[..., TrainingCache]
Splits = dict[str, Split]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """The cache folder in force."""
    with settings.override(dataclasses.replace(settings.current(), cache_given=tmp_path / "cache")):
        yield tmp_path / "cache"


@pytest.fixture
def splits(photographs: Callable[..., Split]) -> Splits:
    return {"train": photographs(), "val": photographs(5, "val")}


@pytest.fixture
def open_caches(splits, preprocessing, cache) -> Iterator[OpenCaches]:
    """Open the caches of a training on twelve photographs, with five to validate on; closed at the end."""
    opened: list[TrainingCache] = []

    def open_caches(wanted="auto", name="birds", preprocessing=preprocessing, **augment) -> TrainingCache:
        data = SimpleNamespace(name=name, identity=lambda: {"folder": f"/data/{name}"})
        options = AugmentOptions(**augment)
        opened.append(training_cache(wanted, data, splits["train"], splits["val"], preprocessing, options))
        return opened[-1]

    yield open_caches
    for left in opened:
        left.close()


def fill(opened: TrainingCache, splits: Splits, preprocessing: Preprocessing) -> None:
    for name, split in splits.items():
        list(EvaluationLoader(split, preprocessing, 4, 0, False, cached=getattr(opened, name)))


def limited(amount: float):
    return settings.override(dataclasses.replace(settings.current(), cache_limit=int(amount)))


def used_at(info: index.CacheInfo, when: float) -> None:
    os.utime(info.path / ABOUT, (when, when))


def test_one_cache_for_both_splits_that_the_next_run_finds(open_caches, splits, cache, preprocessing) -> None:
    first = open_caches()
    assert first.train is not None and first.val is not None
    assert first.train.cache is first.val.cache
    (info,) = list_caches(cache)
    (note,) = first.notes
    assert "train and val, short side 40 px, bilinear" in note and f"{info.path}: 0 of 17" in note
    assert (info.data, info.resize) == ("birds (/data/birds)", "short side 40 px, bilinear")
    assert info.path.parent == cache / IMAGES
    fill(first, splits, preprocessing)
    first.close()
    assert ": 17 of 17 " in open_caches().notes[0]
    assert list_caches(cache)[0].images == 17
    assert list_caches(cache)[0].bytes >= 17 * 40 * 40 * 3


def test_the_folder_of_a_cache_never_changes(open_caches, cache, monkeypatch) -> None:
    """It is a digest of these facts; caches of the same format that other versions wrote must be found."""
    monkeypatch.setattr(PIL, "__version__", "1.2.3")
    about = {"data": "birds (/data/birds)", "rendition": "short side 40 px, bilinear"}
    about["identity"] = "short side 40 px, bilinear, format 2, Pillow 1.2.3"
    open_caches()
    (info,) = list_caches(cache)
    assert info.path.name == hashlib.sha256(repr(about).encode()).hexdigest()[:16]
    assert json.loads((info.path / ABOUT).read_text()).items() >= about.items()
    assert list(info.as_json()) == ["path", "data", "images", "bytes", "used", "rendition"]


def test_each_dataset_and_size_has_its_own_cache(open_caches, cache, preprocessing) -> None:
    open_caches(), open_caches(), open_caches(name="cars")
    open_caches(preprocessing=dataclasses.replace(preprocessing, resize=50))
    open_caches(preprocessing=dataclasses.replace(preprocessing, crop_mode="squash"))
    open_caches(preprocessing=dataclasses.replace(preprocessing, image_size=20, mean=(0.0,) * 3))  # the same pixels
    assert len(list_caches(cache)) == 4


def test_random_resized_crops_and_validation_have_separate_caches(open_caches, cache, preprocessing) -> None:
    opened = open_caches(crop="resized")
    assert opened.train is not None and opened.val is not None
    assert opened.train.cache is not opened.val.cache
    side = Augmentation(AugmentOptions(crop="resized"), preprocessing).target_side
    assert {info.resize for info in list_caches(cache)} == {
        "short side 40 px, bilinear",
        f"short side at most {side} px, bilinear",
    }


def test_before_resize_caches_only_validation_images(open_caches) -> None:
    opened = open_caches(policy="autoaugment", before_resize=True)
    assert opened.train is None and opened.val is not None
    assert "before_resize" in opened.notes[0]
    assert "(val, short side 40 px" in opened.notes[1]


def test_off_and_a_limit_of_zero(open_caches, cache) -> None:
    assert open_caches("off") == TrainingCache()
    with limited(0):
        assert open_caches() == TrainingCache()
        with pytest.raises(FgvcError, match=r"`train.cache=on`: .*`cache_limit` of 0 bytes"):
            open_caches("on")
    assert not cache.exists()


def test_images_in_memory_are_not_cached(preprocessing: Preprocessing, cache: Path) -> None:
    split = Split("train", [np.zeros((50, 50, 3), np.uint8)] * 2, [0, 1], ["a", "b"])
    data = SimpleNamespace(name="made")
    assert training_cache("on", data, split, None, preprocessing, AugmentOptions()) == TrainingCache()


def test_what_does_not_fit_is_not_cached_and_removes_nothing(open_caches, cache) -> None:
    open_caches(name="cars").close()
    with limited(100_000):
        opened = open_caches()
        assert opened.train is None and opened.val is None
        (note,) = opened.notes
        assert "are not cached: they would take about" in note and "`cache_limit` of 100 kB" in note
        with pytest.raises(FgvcError, match=r"`train.cache=on`: .* they would take about"):
            open_caches("on")
    assert [info.data for info in list_caches(cache)] == ["cars (/data/cars)"]


def test_reserved_disk_space(open_caches, monkeypatch) -> None:
    usage = shutil.disk_usage("/")._replace(total=10**7, free=10**6 + 50_000)
    monkeypatch.setattr(index.shutil, "disk_usage", lambda _: usage)
    (note,) = open_caches().notes
    assert "has 1.1 MB free, of which 1 MB stay reserved" in note
    monkeypatch.setattr(index.shutil, "disk_usage", lambda _: usage._replace(total=10**13, free=10**13))
    assert index._reserved(Path("/")) == 5e9
    assert open_caches().train is not None


def test_the_least_recently_used_are_removed_but_never_one_in_use(open_caches, splits, cache, preprocessing) -> None:
    for age, name in enumerate(("newest", "in use", "oldest", "old")):
        opened = open_caches(name=name)
        fill(opened, splits, preprocessing)
        if name != "in use":
            opened.close()
        (info,) = (info for info in list_caches(cache) if info.data.startswith(name + " "))
        used_at(info, {"newest": 4000, "in use": 100, "oldest": 200, "old": 300}[name] + age)
    each = max(info.bytes for info in list_caches(cache))
    with limited(3.7 * each):
        opened = open_caches(name="birds")
        fill(opened, splits, preprocessing)
    assert {info.data.split(" (")[0] for info in list_caches(cache)} == {"birds", "newest", "in use"}
    removed = [note for note in opened.notes if note.startswith("removed to make room: ")]
    assert ["oldest" in removed[0], "old" in removed[1]] == [True, True]
    assert "1970-01-01" in removed[0] and "short side 40 px" in removed[0]
    assert not list((cache / IMAGES).glob(".*"))


def test_caches_being_filled_keep_their_expected_room(open_caches, splits, cache, preprocessing) -> None:
    larger = dataclasses.replace(preprocessing, resize=120)
    first = open_caches(name="cars", preprocessing=larger)
    whole = index.expected_size(first.train.cache.folder)
    assert whole > 2 * list_caches(cache)[0].bytes
    with limited(1.8 * whole):
        assert "with the caches in use, exceeds" in open_caches(preprocessing=larger).notes[0]
    with limited(2.5 * whole):
        second = open_caches(preprocessing=larger)
        assert second.train is not None and whole < second.train.cache.max_size <= 1.5 * whole
        second.close()
    with limited(1.8 * whole):
        first.close()
        assert open_caches(preprocessing=larger).train is not None  # nobody fills the first any more


def test_two_caches_of_one_training_share_the_limit(open_caches, splits, cache, preprocessing) -> None:
    alone = open_caches(crop="resized")
    limit = index.expected_size(alone.train.cache.folder) + 20_000
    alone.close()
    clear(cache, list_caches(cache))
    with limited(limit):
        opened = open_caches(crop="resized")
        assert opened.train is not None and opened.val is None
        assert opened.train.cache.max_size <= limit
        with pytest.raises(FgvcError, match=r"`train.cache=on`: decoded images \(val"):
            open_caches("on", crop="resized")
    opened.close()
    for info in list_caches(cache):
        files.FileLock(info.path / index.USE_LOCK, shared=False).close()  # what failed has let go of it
    assert opened.notes[1].startswith("decoded images (val, short side 40 px, bilinear) are not cached")


def test_the_disk_must_have_room_for_all_caches_being_filled(open_caches, splits, cache, monkeypatch) -> None:
    first = open_caches(name="cars")
    there = list_caches(cache)[0].bytes
    each = index.expected_size(first.train.cache.folder) - there
    usage = shutil.disk_usage("/")._replace(total=0, free=int(1.5 * each))
    monkeypatch.setattr(index.shutil, "disk_usage", lambda _: usage)
    assert re.search(r"0 bytes stay reserved and caches in use will take \d+ kB", open_caches().notes[0])
    first.close()
    assert open_caches().train is not None


def test_a_cache_full_of_changed_files_is_emptied(open_caches, splits, cache, preprocessing) -> None:
    for round_ in range(4):
        for path in splits["train"].images:
            os.utime(path, (round_, round_))
        opened = open_caches()
        fill(opened, splits, preprocessing)
        opened.close()
    before = list_caches(cache)[0]
    assert before.images == 4 * 12 + 5
    for path in splits["train"].images:
        os.utime(path, (99, 99))
    with limited(before.bytes):
        opened = open_caches()
        assert any("files that have changed" in note for note in opened.notes)
        assert opened.train is not None and opened.train.count() == 0


def test_an_empty_cache_that_is_too_large_is_not_emptied_again_and_again(open_caches, splits, preprocessing) -> None:
    each = bytes_per_image(CachedResize.of_preprocessing(preprocessing), splits["val"].images)
    with limited(1.01 * 5 * each):
        opened = open_caches(policy="autoaugment", before_resize=True)  # LMDB's own files are larger
    assert opened.val is None and "not cached" in opened.notes[1]


@pytest.mark.parametrize("damage", [b"", b"garbage" * 5000])
def test_a_damaged_cache_is_emptied(open_caches, splits, cache, preprocessing, damage: bytes) -> None:
    opened = open_caches()
    fill(opened, splits, preprocessing)
    opened.close()
    (info,) = list_caches(cache)
    (info.path / DATA).write_bytes(damage)
    assert list_caches(cache)[0].images == 0
    again = open_caches()
    assert any(note.endswith("; emptied") for note in again.notes) == bool(damage)
    fill(again, splits, preprocessing)
    assert again.train is not None and again.train.count() == 12


def test_a_damaged_cache_in_use_is_left_alone(open_caches, splits, cache, preprocessing) -> None:
    opened = open_caches()
    (info,) = list_caches(cache)
    (info.path / DATA).write_bytes(b"garbage" * 5000)
    assert "other runs use it" in open_caches().notes[0]
    assert opened.train is not None
    fill(opened, splits, preprocessing)  # decodes


def test_a_cache_folder_that_cannot_be_written(open_caches, cache: Path) -> None:
    cache.write_text("a file, where a folder should be")
    (note,) = open_caches().notes
    assert f"{cache}" in note and "are not cached" in note
    with pytest.raises(FgvcError, match=r"`train\.cache=on`: "):
        open_caches("on")


def test_a_cache_removed_while_it_is_opened_is_created_again(open_caches, cache, monkeypatch) -> None:
    removed = []

    class Late(files.FileLock):
        def __init__(self, file: Path, shared: bool, timeout: float = 0.0) -> None:
            super().__init__(file, shared, timeout)
            if not removed:
                removed.append(file.parent)
                shutil.rmtree(file.parent)
                file.parent.mkdir(), file.touch()  # which another process makes again, with a lock of its own

    monkeypatch.setattr(policy, "FileLock", Late)
    opened = open_caches()
    assert removed and opened.train is not None
    with pytest.raises(files.Locked):
        files.FileLock(removed[0] / index.USE_LOCK, shared=False)


def test_a_file_system_without_locks(open_caches, monkeypatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    assert "are not cached: Operation not supported" in open_caches().notes[0]


def test_machines_that_share_a_folder_have_separate_caches(open_caches, cache, monkeypatch) -> None:
    open_caches()
    for name, value in {"RANK": 2, "WORLD_SIZE": 4, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "first"), monkeypatch.setenv("MASTER_PORT", "1")
    for node in ("one", "two", "one"):
        monkeypatch.setattr(policy.platform, "node", lambda node=node: node)
        open_caches()
    assert len(list_caches(cache)) == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # all on one machine
    open_caches()
    assert len(list_caches(cache)) == 3


def test_listing_and_clearing(open_caches, splits, cache, preprocessing) -> None:
    assert list_caches(cache) == []
    for name in ("birds", "cars"):
        fill(open_caches(name=name), splits, preprocessing)
    used_at(next(info for info in list_caches(cache) if info.data.startswith("birds")), 1e6)
    (cache / IMAGES / "strange").mkdir()
    (cache / IMAGES / f"{index.REMOVED}left-over").mkdir()
    listed = list_caches(cache)
    assert [info.data for info in listed][-1] == "birds (/data/birds)"
    assert {info.images for info in listed} == {17, 0}
    assert clear(cache, listed) == sum(info.bytes for info in listed) > 2 * 17 * 4800
    assert list_caches(cache) == [] and list((cache / IMAGES).iterdir()) == []
    assert clear(cache, listed) == 0  # another was quicker


def test_the_size_estimate_is_close(open_caches, splits, cache, preprocessing) -> None:
    for crop_mode in ("center", "squash"):
        chosen = dataclasses.replace(preprocessing, crop_mode=crop_mode, resize=120)
        opened = open_caches(preprocessing=chosen)
        assert opened.train is not None
        empty = index.disk_size(opened.train.cache.folder)
        fill(opened, splits, chosen)
        taken = index.disk_size(opened.train.cache.folder) - empty
        images = [*splits["train"].images, *splits["val"].images]
        assert 17 * bytes_per_image(CachedResize.of_preprocessing(chosen), images) == pytest.approx(taken, rel=0.05)
    assert bytes_per_image(CachedResize.of_preprocessing(chosen), [Path("/nowhere")]) == 0
