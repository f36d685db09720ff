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
    (note,) = opened.notes
    assert "Finch/more" in note and "`dataset.classes=last`" in note


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
    loose, empty = opened.notes
    assert "empty, text" in empty and "1 image outside class folders" in loose
    assert opened.dataset.ignored_files() == {".txt": 1}


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


def shape(folder: Path, **options: str) -> tuple[tuple[str, ...], dict[str, list[str]], str]:
    """Return the classes, the keys by split, and the notes in one line."""
    opened = Opened(folder, **options)
    dataset = opened.dataset
    for name in dataset.splits():
        split = dataset.split(name)
        assert all(Path(image).is_file() for image in split.images) and len(set(split.keys)) == len(split)
    return (
        dataset.class_names,
        {name: list(dataset.split(name).keys) for name in dataset.splits()},
        " ".join(opened.notes),
    )


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("Training", "Testing"),
        ("trainset", "testset"),
        ("Train Images", "Test Images"),
        ("trainData", "testData"),
        ("seg_train/seg_train", "seg_test/seg_test"),
    ],
)
def test_split_folders_of_other_names(tmp_path: Path, train: str, test: str) -> None:
    write(tmp_path, f"{train}/a/1.png", f"{train}/b/1.png", f"{test}/a/1.png", f"{test}/b/1.png")
    classes, keys, notes = shape(tmp_path)
    assert classes == ("a", "b") and keys == {"train": ["a/1.png", "b/1.png"], "test": ["a/1.png", "b/1.png"]}
    usual = {train.lower(), test.lower()} <= {"training", "testing"}
    assert usual or f"{train.partition('/')[0]}/ as train" in notes


def test_split_folders_in_class_folders(tmp_path: Path) -> None:
    write(tmp_path, *(f"{name}/{split}/1.png" for name in "ab" for split in ("train", "val", "test")), "b/test/2.png")
    classes, keys, notes = shape(tmp_path)
    assert classes == ("a", "b") and keys["train"] == ["a/train/1.png", "b/train/1.png"]
    assert keys["test"] == ["a/test/1.png", "b/test/1.png", "b/test/2.png"] and list(keys) == ["train", "val", "test"]
    assert "in the class folders" in notes
    assert list(shape(tmp_path, classes="first")[1]) == ["train"]


def test_species_in_orders_and_families(tmp_path: Path) -> None:
    species = ("Aves/Parus/major", "Aves/Parus/ater", "Aves/Corvus/corax", "Mammalia/Lutra/lutra")
    write(tmp_path, *(f"{name}/{i}.png" for name in species for i in range(2)))
    classes, keys, notes = shape(tmp_path)
    assert classes == ("ater", "corax", "lutra", "major") and "Aves/Corvus/corax/0.png" in keys["train"]
    assert "4 innermost folders" in notes and "`dataset.classes=first`" in notes
    assert shape(tmp_path, classes="first")[0] == ("Aves", "Mammalia")
    write(tmp_path, "Aves/Lutra/lutra/1.png")  # a name of its own no more
    assert shape(tmp_path)[0] == ("Aves", "Mammalia")
    assert "lutra (Lutra)" in shape(tmp_path, classes="last")[0]


def test_species_in_families_below_split_folders(tmp_path: Path) -> None:
    write(
        tmp_path, "train/Aves/jay/1.png", "train/Aves/wren/1.png", "train/Mammalia/otter/1.png", "test/Aves/jay/1.png"
    )
    classes, keys, _ = shape(tmp_path)
    assert classes == ("jay", "otter", "wren") and keys["test"] == ["Aves/jay/1.png"]


@pytest.mark.parametrize("inner", [("2021", "2022"), ("session_1", "session_2"), ("day 1", "day 2")])
def test_folders_that_divide_a_class_are_no_classes(tmp_path: Path, inner: tuple[str, str]) -> None:
    write(tmp_path, f"jay/{inner[0]}/1.png", f"jay/{inner[1]}/1.png", f"wren/{inner[0]}/1.png")
    assert shape(tmp_path) == (
        ("jay", "wren"),
        {"train": [f"jay/{inner[0]}/1.png", f"jay/{inner[1]}/1.png", f"wren/{inner[0]}/1.png"]},
        "",
    )


@pytest.mark.parametrize("above", ["dataset", "archive/birds"])
def test_one_folder_too_deep(tmp_path: Path, above: str) -> None:
    write(tmp_path / "split", f"{above}/train/a/1.png", f"{above}/train/b/1.png", f"{above}/test/a/1.png")
    write(tmp_path / "plain", f"{above}/a/1.png", f"{above}/b/1.png")
    assert shape(tmp_path / "split")[1] == {"train": ["a/1.png", "b/1.png"], "test": ["a/1.png"]}
    classes, keys, notes = shape(tmp_path / "plain")
    assert (
        classes == ("a", "b") and keys == {"train": ["a/1.png", "b/1.png"]} and "the only folder with images" in notes
    )


@pytest.mark.parametrize("test", ["test/{}.png", "test_set/test/{}.png"])
def test_unlabeled_test_images_are_left_out(tmp_path: Path, test: str) -> None:
    write(tmp_path, "train/a/1.png", "train/b/1.png", *(test.format(i) for i in range(3)))
    classes, keys, notes = shape(tmp_path)
    assert classes == ("a", "b") and list(keys) == ["train"] and "3 images without class folders" in notes


def test_the_folder_that_was_meant_is_named(tmp_path: Path) -> None:
    write(tmp_path / "birds", "train/a/1.png", "train/b/1.png", "val/a/1.png")
    assert f"give {tmp_path / 'birds'}" in shape(tmp_path / "birds/train")[2]
    with pytest.raises(FgvcError, match="one of the classes in .*train, give that"):
        Opened(tmp_path / "birds/train/a")
    write(tmp_path / "flat", "train/1.png", "test/1.png")
    (tmp_path / "flat/labels.csv").touch()
    with pytest.raises(FgvcError, match=r"test/ and train/ have images but no class folders.*labels\.csv"):
        Opened(tmp_path / "flat")


@pytest.mark.parametrize(("one", "other"), [("Jay", "jay"), ("Grünfink", "Gru\u0308nfink"), ("jay", "jay ")])
def test_class_names_that_look_alike_are_noted(tmp_path: Path, one: str, other: str) -> None:
    write(tmp_path, f"{one}/1.png", f"{other}/1.png")
    assert "are two classes" in shape(tmp_path)[2]


def test_folders_above_the_class_folders_are_groups(tmp_path: Path) -> None:
    names = ("fruit/apple/gala/1.png", "fruit/apple/granny/1.png", "fruit/citrus/lemon/1.png", "milk/oat/1.png")
    write(tmp_path, *(f"{split}/{name}" for split in ("train", "test") for name in names))
    opened = Opened(tmp_path)
    found = opened.dataset.taxonomy()
    assert found is not None and found.fault(opened.dataset.class_names) == ""
    assert found.levels == ("class", "level 2", "level 1")
    assert found.ancestors["gala"] == ("apple", "fruit") and found.ancestors["oat"] == ("", "milk")
    named = Opened(tmp_path, levels="kind, plant").dataset.taxonomy()
    assert named is not None and named.levels == ("class", "plant", "kind")
    assert Opened(tmp_path, classes="first").dataset.taxonomy() is None


def test_a_class_in_another_folder_of_another_split_is_noted(tmp_path: Path) -> None:
    write(tmp_path, *(f"train/{name}/1.png" for name in ("x/a", "x/b", "y/c")), "test/y/a/1.png")
    opened = Opened(tmp_path)
    found = opened.dataset.taxonomy()
    assert found is not None and found.ancestors["a"] == ("x",)
    assert any("test/y/a" in note for note in opened.notes)


def test_names_of_levels_differ() -> None:
    with pytest.raises(ValueError, match="levels"):
        FolderOptions(levels="family,family")
    with pytest.raises(ValueError, match="levels"):
        FolderOptions(levels="class")
