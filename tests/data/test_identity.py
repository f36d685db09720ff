"""The identity of a dataset, and what it says of changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fgvc_cli.contracts import Dataset, Split
from fgvc_cli.data.identity import DataIdentity
from fgvc_cli.data.opening import open_dataset
from fgvc_cli.registry import get_registry


@pytest.fixture
def photos(tmp_path) -> Path:
    """Class folders in train and test, with files that are never read."""
    for split, count in (("train", 5), ("test", 2)):
        for name in ("jay", "robin", "wren"):
            for i in range(count):
                file = tmp_path / "photos" / split / name / f"{i}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(b"x" * (10 + i + 5 * len(name)))
    return tmp_path / "photos"


def identity(photos: Path) -> DataIdentity:
    folder = get_registry().find("dataset", "folder")
    return DataIdentity.of(open_dataset(folder, folder.options_type()(), photos, 0))


def rename(photos: Path) -> None:
    for split in ("train", "test"):
        (photos / split / "robin").rename(photos / split / "aaa")


def swap_files(photos: Path) -> None:
    (photos / "train/jay/1.jpg").rename(photos / "train/jay/7.jpg")


CHANGES = {
    "renamed": (rename, ["class 'robin' was renamed 'aaa'"]),
    "added": (
        lambda p: [(p / f"train/wren/new{i}.jpg").write_bytes(b"new") for i in range(3)],
        ["3 images were added to train ('wren')"],
    ),
    "removed": (lambda p: (p / "test/jay/0.jpg").unlink(), ["1 image was removed from test ('jay')"]),
    "edited": (
        lambda p: (p / "train/robin/2.jpg").write_bytes(b"edited"),
        ["images of 'robin' in train were replaced or edited"],
    ),
    "one for another": (swap_files, ["images of 'jay' in train were replaced or edited"]),
    "class removed": (
        lambda p: [shutil.rmtree(p / split / "jay") for split in ("train", "test")],
        [
            "class 'jay' was removed",
            "5 images were removed from train ('jay')",
            "2 images were removed from test ('jay')",
        ],
    ),
    "class added": (
        lambda p: shutil.copytree(p / "test/jay", p / "train/owl"),
        ["class 'owl' was added", "2 images were added to train ('owl')"],
    ),
    "split removed": (lambda p: shutil.rmtree(p / "test"), ["split 'test' was removed"]),
}


@pytest.mark.parametrize("what", CHANGES)
def test_changes_are_named(photos, what) -> None:
    before = identity(photos)
    recorded = DataIdentity.from_json(json.loads(json.dumps(before.as_json())))
    assert recorded == before and not recorded.changes_to(identity(photos))
    change, expected = CHANGES[what]
    change(photos)
    assert recorded.changes_to(identity(photos)) == expected


def test_a_copy_elsewhere_is_the_same_data(photos, tmp_path) -> None:
    shutil.copytree(photos, tmp_path / "copy")
    assert not identity(photos).changes_to(identity(tmp_path / "copy"))


def test_one_split_can_be_compared_alone(photos) -> None:
    before = identity(photos)
    (photos / "train/wren/new.jpg").write_bytes(b"new")
    assert not before.changes_to(identity(photos), ["test"]) and before.changes_to(identity(photos), ["train"])
    assert before.training_digest != identity(photos).training_digest


def test_arrays_are_identified_by_their_pixels_and_order_counts() -> None:
    class Arrays(Dataset):
        name, class_names = "arrays", ("a", "b")

        def __init__(self, values, keys) -> None:
            self.values, self.keys = values, keys

        def splits(self):
            return ("train",)

        def split(self, name):
            return Split(name, [np.full((2, 2, 3), v, np.uint8) for v in self.values], [0, 0, 1], self.keys)

    first = DataIdentity.of(Arrays([1, 2, 3], ["x", "y", "z"]))
    assert first.changes_to(DataIdentity.of(Arrays([1, 2, 4], ["x", "y", "z"])))
    assert first.changes_to(DataIdentity.of(Arrays([2, 1, 3], ["y", "x", "z"]))) == [
        "the order of the images in train changed"
    ]


def test_what_older_versions_recorded_is_compared(photos) -> None:
    now = identity(photos)
    old = {"classes": ["jay", "robin", "wren"], "dataset": {"name": "folder", "names_sha256": now.fingerprint}}
    assert not DataIdentity.recorded(old).changes_to(now)
    assert DataIdentity.recorded({**old, "classes": ["jay", "robin", "wrens"]}).changes_to(now) == [
        "class 'wrens' was renamed or removed",
        "class 'wren' was added",
    ]
    (photos / "test/jay/0.jpg").unlink()
    assert DataIdentity.recorded(old).changes_to(identity(photos)) == ["its files differ"]
    assert DataIdentity.recorded({}) is None
