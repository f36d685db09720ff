from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fgvc_cli.contracts import DatasetRequest
from fgvc_cli.errors import FgvcError
from fgvc_datasets.mammalia import MammaliaDataset
from fgvc_datasets.options import MammaliaOptions


def write(root: Path, *names: str) -> None:
    for name in names:
        path = root / "mammalia" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)


def opened(root: Path, seed: int = 0, **options: int) -> tuple[MammaliaDataset, list[str]]:
    notes: list[str] = []
    request = DatasetRequest(None, root, root / "cache", seed, notes.append)
    return MammaliaDataset(request=request, options=MammaliaOptions(**options)), notes


def keys(dataset: MammaliaDataset) -> dict[str, list[str]]:
    return {name: list(dataset.split(name).keys) for name in dataset.splits()}


def test_train_and_test_folders_are_used_as_found(tmp_path: Path) -> None:
    write(tmp_path, "train/fox/2.jpg", "train/fox/1.jpg", "train/wolf/1.jpg", "test/wolf/9.jpg")
    dataset, notes = opened(tmp_path)
    assert dataset.class_names == ("fox", "wolf")
    assert keys(dataset) == {
        "train": ["train/fox/1.jpg", "train/fox/2.jpg", "train/wolf/1.jpg"],
        "test": ["test/wolf/9.jpg"],
    }
    assert list(dataset.split("test").labels) == [1]
    for name in ("train", "test"):
        assert dataset.split(name).origin == f"the folder {name}/ as found; no official list is published"
    assert len(notes) == 1 and "has 2 classes; the report's Mammalia has 100" in notes[0]


def test_unlabeled_test_images_are_ignored_with_a_note(tmp_path: Path) -> None:
    write(tmp_path, "train/fox/1.jpg", "train/wolf/1.jpg", "test/a.jpg", "test/b.jpg")
    dataset, notes = opened(tmp_path)
    assert dataset.splits() == ("train",) and len(dataset.split("train")) == 2
    assert any("2 images outside class folders" in note for note in notes)


def test_images_are_held_out_where_there_are_only_class_folders(tmp_path: Path) -> None:
    names = [f"{label}/{n:02}.jpg" for label in ("fox", "wolf") for n in range(8)]
    write(tmp_path, *names)
    dataset, _ = opened(tmp_path, test_images=3)
    found = keys(dataset)
    assert sorted(found["train"] + found["test"]) == names
    assert [list(dataset.split("test").labels).count(label) for label in (0, 1)] == [3, 3]
    assert [list(dataset.split("train").labels).count(label) for label in (0, 1)] == [5, 5]
    assert "drawn with seed 42" in dataset.split("test").origin and "official" not in dataset.split("test").origin
    assert keys(opened(tmp_path, seed=7, test_images=3)[0]) == found  # the training's seed changes nothing
    assert keys(opened(tmp_path, test_images=3, test_seed=1)[0]) != found
    write(tmp_path, "fox/99.jpg")
    grown = keys(opened(tmp_path, test_images=3)[0])["test"]
    assert len(set(grown) & set(found["test"])) >= 5  # one image more displaces one at most


def test_ten_images_per_class_are_held_out_by_default(tmp_path: Path) -> None:
    write(tmp_path, *(f"{label}/{n:02}.jpg" for label in ("fox", "wolf") for n in range(12)))
    assert {name: len(keys) for name, keys in keys(opened(tmp_path)[0]).items()} == {"train": 4, "test": 20}
    everything, _ = opened(tmp_path, test_images=0)
    assert everything.splits() == ("train",) and len(everything.split("train")) == 24
    with pytest.raises(FgvcError, match=r"fox: 12 images are too few to hold out 12"):
        opened(tmp_path, test_images=12)


def test_a_missing_dataset_has_instructions(tmp_path: Path) -> None:
    with pytest.raises(FgvcError, match=r"mammalia not found.*lacks train"):
        opened(tmp_path)
    provision = MammaliaDataset.provision(DatasetRequest(None, tmp_path, tmp_path, 0), MammaliaOptions())
    assert provision.downloads == () and "not public" in provision.by_hand and str(tmp_path) in provision.by_hand
    (tmp_path / "mammalia/train/fox").mkdir(parents=True)
    with pytest.raises(FgvcError, match="train: none of its class folders contains an image"):
        opened(tmp_path)
