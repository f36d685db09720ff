from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fgvc_cli.contracts import DatasetRequest
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_datasets.folder import FolderDataset
from fgvc_datasets.options import FolderOptions


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)


class Opened:
    """A folder dataset and what it noted."""

    def __init__(self, folder: Path | None, **options: str) -> None:
        self.notes: list[str] = []
        request = DatasetRequest(folder, Path("data"), Path("cache"), 0, self.notes.append)
        self.dataset = FolderDataset(request=request, options=FolderOptions(**options))


def test_class_folders(tmp_path: Path) -> None:
    write(tmp_path, "Wren/b.png", "Wren/a.JPG", "Finch/a.png", "Finch/more/c.png")
    opened = Opened(tmp_path)
    dataset = opened.dataset
    assert dataset.class_names == ("Finch", "Wren")
    assert dataset.splits() == ("train",)
    split = dataset.split("train")
    assert list(split.keys) == ["Finch/a.png", "Finch/more/c.png", "Wren/a.JPG", "Wren/b.png"]
    assert list(split.labels) == [0, 0, 1, 1]
    assert [Path(image) for image in split.images] == [tmp_path / key for key in split.keys]
    assert "no split folders" in split.origin
    assert dataset.name == tmp_path.name
    assert opened.notes == []


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Train", "VALID", "Test"), ("training", "validation", "testing")],
)
def test_split_folders(tmp_path: Path, train: str, val: str, test: str) -> None:
    write(tmp_path, f"{train}/a/1.png", f"{train}/b/1.png", f"{train}/c/1.png", f"{val}/c/1.png", f"{test}/b/1.png")
    dataset = Opened(tmp_path).dataset
    assert dataset.splits() == ("train", "val", "test")
    assert dataset.class_names == ("a", "b", "c")
    # labels come from the names of the classes, though these splits have a single folder each
    assert list(dataset.split("val").labels) == [2]
    assert list(dataset.split("test").labels) == [1]
    assert list(dataset.split("test").keys) == ["b/1.png"]
    assert dataset.split("test").origin == ""


def test_classes_may_be_called_like_splits(tmp_path: Path) -> None:
    write(tmp_path, "train/1.png", "car/1.png", "test/1.png")
    dataset = Opened(tmp_path).dataset
    assert dataset.splits() == ("train",)
    assert dataset.class_names == ("car", "test", "train")


def test_named_split_folders(tmp_path: Path) -> None:
    write(tmp_path, "part1/a/1.png", "part1/b/1.png", "held/a/1.png", "val/b/1.png")
    dataset = Opened(tmp_path, train="part1", test="held").dataset
    assert dataset.splits() == ("train", "val", "test")
    assert list(dataset.split("train").keys) == ["a/1.png", "b/1.png"]
    assert list(dataset.split("test").keys) == ["a/1.png"]
    dataset = Opened(tmp_path, train="part1", val="held", test="val").dataset
    assert list(dataset.split("test").keys) == ["b/1.png"]
    with pytest.raises(FgvcError, match=r"dataset\.train=part2.*Did you mean 'part1'"):
        Opened(tmp_path, train="part2")


def test_ignored_files_are_noted(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.png", "train/b/1.png", "train/stray.png")
    (tmp_path / "train" / "empty").mkdir()
    (tmp_path / "train" / "text").mkdir()
    (tmp_path / "train" / "text" / "notes.txt").touch()
    (tmp_path / "docs").mkdir()
    opened = Opened(tmp_path)
    assert opened.dataset.class_names == ("a", "b")
    empty, loose = opened.notes
    assert "empty, text" in empty and "1 image outside class folders" in loose


def test_mixed_layouts_are_rejected(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.png", "train/b/1.png", "more/1.png", "other/a/1.png")
    with pytest.raises(FgvcError, match=r"mixes split folders \(train/\).*\(more, other\).*`dataset\.train`"):
        Opened(tmp_path)


def test_two_folders_for_one_split(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.png", "val/a/1.png", "valid/a/1.png")
    with pytest.raises(FgvcError, match=r"val and valid.*`dataset\.val`"):
        Opened(tmp_path)


def test_folders_without_a_dataset_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path, "loose/1.png", "loose/2.png")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "readme.txt").touch()
    expected = {
        "empty": "is empty; one folder of images per class is expected",
        "loose": "has 2 images but no class folders",
        "text": "contains no images",
        "text/readme.txt": "is a file; `data` takes a folder",
        "emty": r"no such folder. Did you mean 'empty'\?",
    }
    for name, message in expected.items():
        with pytest.raises(FgvcError, match=message) as caught:
            Opened(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="`data`"):
        Opened(None)


def test_identity_changes_with_the_files(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.png", "train/b/1.png")
    first = Opened(tmp_path).dataset.identity()
    assert first["images"] == {"train": 2}
    assert first["folder"] == str(tmp_path)
    assert Opened(tmp_path).dataset.identity() == first
    write(tmp_path, "train/b/2.png")
    assert Opened(tmp_path).dataset.identity()["names_sha256"] != first["names_sha256"]


def test_a_relative_folder_survives_a_change_of_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "birds/a/1.png", "birds/b/1.png")
    monkeypatch.chdir(tmp_path)
    dataset = Opened(Path("birds")).dataset
    monkeypatch.chdir(tmp_path / "birds")
    assert all(Path(image).is_file() for image in dataset.split("train").images)
