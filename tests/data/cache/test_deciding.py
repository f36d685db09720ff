"""Whether images are kept, where, and what must go for it."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fgvc_cli import settings
from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.data.augmentation import Augmentation
from fgvc_cli.data.cache import index, locks, policy
from fgvc_cli.data.cache.index import ABOUT, IMAGES, bytes_per_image, clear, stores
from fgvc_cli.data.cache.policy import TrainingCache, training_cache
from fgvc_cli.data.cache.resize import DATA, CachedResize
from fgvc_cli.data.loading import EvaluationLoader
from fgvc_cli.errors import FgvcError

Decide = Callable[..., TrainingCache]
Splits = dict[str, Split]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """The cache folder in force."""
    with settings.in_force(dataclasses.replace(settings.current(), cache_given=tmp_path / "cache")):
        yield tmp_path / "cache"


@pytest.fixture
def splits(photographs: Callable[..., Split]) -> Splits:
    return {"train": photographs(), "val": photographs(5, "val")}


@pytest.fixture
def decide(splits: Splits, preprocessing: Preprocessing, cache: Path) -> Iterator[Decide]:
    """Decide for a training on twelve photographs, five to validate on; stores are let go of in the end."""
    opened: list[TrainingCache] = []

    def decide(wanted="auto", name="birds", preprocessing=preprocessing, **augment) -> TrainingCache:
        data = SimpleNamespace(name=name, identity=lambda: {"folder": f"/data/{name}"})
        options = AugmentOptions(**augment)
        opened.append(training_cache(wanted, data, splits["train"], splits["val"], preprocessing, options))
        return opened[-1]

    yield decide
    for left in opened:
        left.close()


def fill(opened: TrainingCache, splits: Splits, preprocessing: Preprocessing) -> None:
    for name, split in splits.items():
        list(EvaluationLoader(split, preprocessing, 4, 0, False, kept=getattr(opened, name)))


def limited(amount: float):
    return settings.in_force(dataclasses.replace(settings.current(), cache_limit=int(amount)))


def used_at(store: index.StoreInfo, when: float) -> None:
    os.utime(store.path / ABOUT, (when, when))


def test_one_store_for_both_splits_which_the_next_run_finds(decide: Decide, splits, cache, preprocessing) -> None:
    first = decide()
    assert first.train is not None and first.val is not None
    assert first.train.store is first.val.store
    (store,) = stores(cache)
    (note,) = first.notes
    assert note.startswith("decoded images (train and val, short side 40 px, bilinear) are kept in ")
    assert f"{store.path}: 0 of 17, in all about " in note
    assert (store.data, store.rendition) == ("birds (/data/birds)", "short side 40 px, bilinear")
    assert store.path.parent == cache / IMAGES
    fill(first, splits, preprocessing)
    first.close()
    second = decide()
    assert ": 17 of 17, " in second.notes[0]
    assert stores(cache)[0].images == 17
    assert stores(cache)[0].bytes >= 17 * 40 * 40 * 3


def test_other_data_and_other_sizes_have_other_stores(decide: Decide, cache, preprocessing) -> None:
    decide(), decide(), decide(name="cars")
    decide(preprocessing=dataclasses.replace(preprocessing, resize=50))
    decide(preprocessing=dataclasses.replace(preprocessing, crop_mode="squash"))
    decide(preprocessing=dataclasses.replace(preprocessing, image_size=20, mean=(0.0,) * 3))  # the same pixels
    assert len(stores(cache)) == 4


def test_a_store_says_which_pillow_decoded_it() -> None:
    import PIL

    assert CachedResize("center", 40, "bilinear").identity.endswith(f"Pillow {PIL.__version__}")


def test_crops_of_random_size_are_kept_apart_from_what_is_validated(decide: Decide, cache, preprocessing) -> None:
    opened = decide(crop="resized")
    assert opened.train is not None and opened.val is not None
    assert opened.train.store is not opened.val.store
    side = Augmentation(AugmentOptions(crop="resized"), preprocessing).target_side
    assert {store.rendition for store in stores(cache)} == {
        "short side 40 px, bilinear",
        f"short side at most {side} px, bilinear",
    }


def test_before_resize_keeps_validation_images_alone(decide: Decide) -> None:
    opened = decide(policy="autoaugment", before_resize=True)
    assert opened.train is None and opened.val is not None
    assert "before_resize" in opened.notes[0]
    assert "(val, short side 40 px" in opened.notes[1]


def test_off_and_a_limit_of_nothing(decide: Decide, cache) -> None:
    assert decide("off") == TrainingCache()
    with limited(0):
        assert decide() == TrainingCache()
        with pytest.raises(FgvcError, match=r"train.cache=on: .*--cache-limit 0 bytes"):
            decide("on")
    assert not cache.exists()


def test_images_in_memory_are_not_kept(preprocessing: Preprocessing, cache: Path) -> None:
    split = Split("train", [np.zeros((50, 50, 3), np.uint8)] * 2, [0, 1], ["a", "b"])
    data = SimpleNamespace(name="made")
    assert training_cache("on", data, split, None, preprocessing, AugmentOptions()) == TrainingCache()


def test_what_does_not_fit_is_not_kept_and_nothing_is_removed_for_it(decide: Decide, cache) -> None:
    decide(name="cars").close()
    with limited(100_000):
        opened = decide()
        assert opened.train is None and opened.val is None
        (note,) = opened.notes
        assert "are not kept: they would take about" in note
        assert "--cache-limit 100 kB" in note
        assert note.endswith("every epoch decodes them anew")
        with pytest.raises(
            FgvcError, match=r"^train.cache=on: decoded images .* cannot be kept: they would take about"
        ):
            decide("on")
    assert [store.data for store in stores(cache)] == ["cars (/data/cars)"]


def test_a_disk_that_would_be_too_full(decide: Decide, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(total=10**7, free=10**6 + 50_000)
    monkeypatch.setattr(index.shutil, "disk_usage", lambda _: usage)
    (note,) = decide().notes
    assert "has 1.1 MB free, of which 1 MB are left alone" in note
    monkeypatch.setattr(index.shutil, "disk_usage", lambda _: usage._replace(total=10**13, free=10**13))
    assert index._to_leave(Path("/")) == 5e9
    assert decide().train is not None


def test_the_least_recently_used_make_room_but_never_one_in_use(decide: Decide, splits, cache, preprocessing) -> None:
    for age, name in enumerate(("newest", "in use", "oldest", "old")):
        opened = decide(name=name)
        fill(opened, splits, preprocessing)
        if name != "in use":
            opened.close()
        (store,) = (store for store in stores(cache) if store.data.startswith(name + " "))
        used_at(store, {"newest": 4000, "in use": 100, "oldest": 200, "old": 300}[name] + age)
    each = max(store.bytes for store in stores(cache))
    with limited(3.7 * each):
        opened = decide(name="birds")
        fill(opened, splits, preprocessing)
    assert {store.data.split(" (")[0] for store in stores(cache)} == {"birds", "newest", "in use"}
    told = [note for note in opened.notes if note.startswith("removed to make room: ")]
    assert ["oldest" in told[0], "old" in told[1]] == [True, True]
    assert "1970-01-01" in told[0] and "short side 40 px" in told[0]
    assert not list((cache / IMAGES).glob(".*"))


def test_what_is_still_empty_is_left_the_room_that_it_will_take(decide: Decide, splits, cache, preprocessing) -> None:
    larger = dataclasses.replace(preprocessing, resize=120)
    first = decide(name="cars", preprocessing=larger)
    whole = index.expected(first.train.store.folder)
    assert whole > 2 * stores(cache)[0].bytes
    with limited(1.8 * whole):
        assert "leaves no room for it within --cache-limit" in decide(preprocessing=larger).notes[0]
    with limited(2.5 * whole):
        second = decide(preprocessing=larger)
        assert second.train is not None and whole < second.train.store.most <= 1.5 * whole
        second.close()
    with limited(1.8 * whole):
        first.close()
        assert decide(preprocessing=larger).train is not None  # nobody fills the first any more


def test_two_renditions_of_one_training_stay_within_the_limit_together(
    decide: Decide, splits, cache, preprocessing
) -> None:
    alone = decide(crop="resized")
    limit = index.expected(alone.train.store.folder) + 20_000
    alone.close()
    clear(cache, stores(cache))
    with limited(limit):
        opened = decide(crop="resized")
        assert opened.train is not None and opened.val is None
        assert opened.train.store.most <= limit
        with pytest.raises(FgvcError, match=r"^train.cache=on: decoded images \(val"):
            decide("on", crop="resized")
    opened.close()
    for store in stores(cache):
        locks.FileLock(store.path / index.USE, shared=False).close()  # what failed has let go of it
    assert opened.notes[1].startswith("decoded images (val, short side 40 px, bilinear) are not kept")


def test_the_disk_has_room_for_all_that_are_being_filled(decide: Decide, splits, cache, monkeypatch) -> None:
    first = decide(name="cars")
    there = stores(cache)[0].bytes
    each = index.expected(first.train.store.folder) - there
    usage = shutil.disk_usage("/")._replace(total=0, free=int(1.5 * each))
    monkeypatch.setattr(index.shutil, "disk_usage", lambda _: usage)
    assert re.search(r"free, of which 0 bytes are left alone and \d+ kB awaited by stores in use: ", decide().notes[0])
    first.close()
    assert decide().train is not None


def test_a_store_full_of_files_that_have_changed_begins_anew(decide: Decide, splits, cache, preprocessing) -> None:
    for round_ in range(6):
        for path in splits["train"].images:
            os.utime(path, (round_, round_))
        opened = decide()
        fill(opened, splits, preprocessing)
        opened.close()
    before = stores(cache)[0]
    assert before.images == 6 * 12 + 5
    for path in splits["train"].images:
        os.utime(path, (99, 99))
    with limited(before.bytes):
        opened = decide()
        assert any("files that have changed; it begins anew" in note for note in opened.notes)
        assert opened.train is not None and opened.train.count() == 0


@pytest.mark.parametrize("damage", [b"", b"garbage" * 5000])
def test_a_damaged_store_begins_anew(decide: Decide, splits, cache, preprocessing, damage: bytes) -> None:
    opened = decide()
    fill(opened, splits, preprocessing)
    opened.close()
    (store,) = stores(cache)
    (store.path / DATA).write_bytes(damage)
    assert stores(cache)[0].images == 0
    again = decide()
    assert any("it begins anew" in note for note in again.notes) == bool(damage)
    fill(again, splits, preprocessing)
    assert again.train is not None and again.train.count() == 12


def test_a_damaged_store_that_others_use_is_left_alone(decide: Decide, splits, cache, preprocessing) -> None:
    opened = decide()
    (store,) = stores(cache)
    (store.path / DATA).write_bytes(b"garbage" * 5000)
    assert "other runs use it" in decide().notes[0]
    assert opened.train is not None
    fill(opened, splits, preprocessing)  # decodes


def test_a_cache_folder_that_cannot_be_written(decide: Decide, cache: Path) -> None:
    cache.write_text("a file, where a folder should be")
    (note,) = decide().notes
    assert f"{cache}" in note and "are not kept" in note
    with pytest.raises(FgvcError, match=r"^train\.cache=on: "):
        decide("on")


def test_a_store_that_is_removed_as_it_is_opened_is_made_again(decide: Decide, cache, monkeypatch) -> None:
    removed = []

    class Late(locks.FileLock):
        def __init__(self, file: Path, shared: bool, patience: float = 0.0) -> None:
            super().__init__(file, shared, patience)
            if not removed:
                removed.append(file.parent)
                shutil.rmtree(file.parent)
                file.parent.mkdir(), file.touch()  # which another process makes again, with a lock of its own

    monkeypatch.setattr(policy, "FileLock", Late)
    opened = decide()
    assert removed and opened.train is not None
    with pytest.raises(locks.Locked):
        locks.FileLock(removed[0] / index.USE, shared=False)


def test_locks_that_a_file_system_lacks(decide: Decide, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    assert "are not kept: Operation not supported" in decide().notes[0]


def test_machines_that_share_a_folder_have_a_store_each(decide: Decide, cache, monkeypatch) -> None:
    decide()
    for name, value in {"RANK": 2, "WORLD_SIZE": 4, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "first"), monkeypatch.setenv("MASTER_PORT", "1")
    for node in ("one", "two", "one"):
        monkeypatch.setattr(policy.platform, "node", lambda node=node: node)
        decide()
    assert len(stores(cache)) == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # all on one machine
    decide()
    assert len(stores(cache)) == 3


def test_listing_and_clearing(decide: Decide, splits, cache: Path, preprocessing) -> None:
    assert stores(cache) == []
    for name in ("birds", "cars"):
        fill(decide(name=name), splits, preprocessing)
    used_at(next(store for store in stores(cache) if store.data.startswith("birds")), 1e6)
    (cache / IMAGES / "strange").mkdir()
    (cache / IMAGES / f"{index.REMOVED}left-over").mkdir()
    listed = stores(cache)
    assert [store.data for store in listed][-1] == "birds (/data/birds)"
    assert {store.images for store in listed} == {17, 0}
    assert clear(cache, listed) == sum(store.bytes for store in listed) > 2 * 17 * 4800
    assert stores(cache) == [] and list((cache / IMAGES).iterdir()) == []
    assert clear(cache, listed) == 0  # another was quicker


def test_the_estimate_is_near_what_is_taken(decide: Decide, splits, cache, preprocessing) -> None:
    for crop_mode in ("center", "squash"):
        chosen = dataclasses.replace(preprocessing, crop_mode=crop_mode, resize=120)
        opened = decide(preprocessing=chosen)
        assert opened.train is not None
        empty = index.size(opened.train.store.folder)
        fill(opened, splits, chosen)
        taken = index.size(opened.train.store.folder) - empty
        images = [*splits["train"].images, *splits["val"].images]
        assert 17 * bytes_per_image(CachedResize.resized(chosen), images) == pytest.approx(taken, rel=0.05)
    assert bytes_per_image(CachedResize.resized(chosen), [Path("/nowhere")]) == 0
