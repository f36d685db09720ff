from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fgvc_cli.contracts import DatasetRequest
from fgvc_cli.errors import FgvcError
from fgvc_datasets.demo import dataset as module
from fgvc_datasets.demo.dataset import DemoDataset
from fgvc_datasets.options import DemoOptions

SMALL = DemoOptions(train=2, val=1, test=1, size=32)


class Told:
    """What a dataset said while it was made."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.progress: list[tuple[str, int, int]] = []


def opened(cache: Path, options: DemoOptions = SMALL, seed: int = 0, told: Told | None = None) -> DemoDataset:
    told = told or Told()
    show = told.progress.append
    request = DatasetRequest(None, cache / "data", cache, seed, told.notes.append, lambda *done: show(done))
    return DemoDataset(request=request, options=options)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    opened(folder)
    return folder


def test_splits_with_labels_from_the_class_names(cache: Path) -> None:
    dataset = opened(cache)
    assert dataset.splits() == ("train", "val", "test")
    assert len(dataset.class_names) >= 10
    assert list(dataset.class_names) == sorted(dataset.class_names)
    for name, count in (("train", 2), ("val", 1), ("test", 1)):
        split = dataset.split(name)
        assert len(split) == count * len(dataset.class_names)
        assert len(set(split.keys)) == len(split)
        for image, label, key in zip(split.images, split.labels, split.keys, strict=True):
            assert isinstance(image, Path)
            assert image == dataset.folder / name / key
            assert image.parent.name == dataset.class_names[label]
            with Image.open(image) as picture:
                assert picture.size == (32, 32)


def test_images_are_generated_once_for_any_training_seed(cache: Path) -> None:
    folder = opened(cache).folder
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    told = Told()
    again = opened(cache, seed=17, told=told)
    assert again.folder == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == times
    assert told.progress == told.notes == []


def test_other_options_have_other_images(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(module, "generate", lambda folder, *_: drawn.append(folder.name))
    monkeypatch.setattr(module, "_read_truth", lambda folder: {"classes": []})
    for options in (SMALL, replace(SMALL, seed=1), replace(SMALL, size=40), replace(SMALL, test=2)):
        opened(tmp_path, options)
    monkeypatch.setattr(module, "DRAWING_VERSION", module.DRAWING_VERSION + 1)
    opened(tmp_path)
    assert len(set(drawn)) == 5
    assert drawn[0] == next(cache.iterdir()).name


def test_without_a_writable_cache_images_are_temporary(tmp_path: Path) -> None:
    told = Told()
    in_the_way = tmp_path / "cache"
    in_the_way.touch()  # a file where the cache should be: not even root can write there
    dataset = opened(in_the_way, replace(SMALL, train=1), told=told)
    assert len(dataset.split("train")) == len(dataset.class_names)
    (note,) = told.notes
    assert f"the cache {in_the_way} is not writable" in note
    folder = dataset.folder
    assert folder.is_dir()
    del dataset
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["image", "truth", "json"])
def test_damaged_images_are_named(tmp_path: Path, damage: str) -> None:
    dataset = opened(tmp_path, replace(SMALL, train=1))
    victim = dataset.folder / "parts.json" if damage != "image" else Path(dataset.split("val").images[3])
    if damage == "json":
        victim.write_text(json.dumps({"classes": []})[:9])
    else:
        victim.unlink()
    with pytest.raises(FgvcError, match=rf"are damaged: .*{victim.name}.*delete that folder"):
        opened(tmp_path, replace(SMALL, train=1))
