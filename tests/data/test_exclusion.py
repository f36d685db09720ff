"""Images that a CSV file excludes from a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fgvc_cli.contracts import Dataset, Split
from fgvc_cli.data.exclusion import ExcludingDataset, Exclusion
from fgvc_cli.data.identity import DataIdentity
from fgvc_cli.errors import FgvcError
from fgvc_cli.files import write_csv


class Birds(Dataset):
    name = "birds"
    class_names = ("jay", "owl")

    def splits(self) -> tuple[str, ...]:
        return ("train", "test")

    def split(self, name: str) -> Split:
        keys = ["jay/1", "jay/2", "owl/=3", "owl/\u00e4"]
        return Split(name, [np.full((2, 2, 3), i, np.uint8) for i in range(4)], [0, 0, 1, 1], keys, origin="official")


def excluding(tmp_path: Path, *rows: tuple[str, ...], header=("split", "file", "exclude")) -> Dataset:
    write_csv(tmp_path / "audit.csv", header, rows)
    return ExcludingDataset(Birds(), Exclusion.read(tmp_path / "audit.csv"))


def test_marked_images_are_left_out_of_their_split_and_change_the_identity(tmp_path) -> None:
    # a name that a spreadsheet would take for a formula, and one in another Unicode form
    data = excluding(tmp_path, ("train", "owl/a\u0308", "yes"), ("train", "jay/1", "no"), ("test", "jay/2", " Yes "))
    train, test = data.split("train"), data.split("test")
    assert train.keys == ["jay/1", "jay/2", "owl/=3"] and test.keys == ["jay/1", "owl/=3", "owl/\u00e4"]
    assert [int(image[0, 0, 0]) for image in train.images] == [0, 1, 2] and list(train.labels) == [0, 0, 1]
    assert train.origin == "official, without 1 excluded image" and data.identity()["excluded"] == 2
    changes = DataIdentity.of(Birds()).changes_to(DataIdentity.of(data))
    assert changes == ["1 image was removed from train ('owl')", "1 image was removed from test ('jay')"]


def test_without_marks_every_row_counts_and_formulas_keep_their_name(tmp_path) -> None:
    data = excluding(tmp_path, ("train", "owl/=3"), header=("split", "file"))
    assert data.split("train").keys == ["jay/1", "jay/2", "owl/\u00e4"] and len(data.split("test")) == 4


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_files_that_a_spreadsheet_saved(tmp_path, delimiter) -> None:
    """With a byte order mark, other delimiters, columns in another order, and blank lines."""
    rows = ["Exclude", "file", " split"], ["yes", "jay/1", "train"], ["", "", ""], ["no", "jay/2", "train"]
    text = "".join(delimiter.join(row) + "\r\n" for row in rows)
    (tmp_path / "audit.csv").write_text(text, encoding="utf-8-sig")
    data = ExcludingDataset(Birds(), Exclusion.read(tmp_path / "audit.csv"))
    assert data.split("train").keys == ["jay/2", "owl/=3", "owl/\u00e4"]


@pytest.mark.parametrize(
    ("rows", "facts"),
    [
        ([("val", "jay/1", "yes")], "split 'val'.*birds has train, test"),
        ([("train", "jay/9", "yes")], "1 image that train of birds does not have .'jay/9'"),
        ([("train", "owl/=3", "yes"), ("train", "owl/\u00e4", "yes")], "no training image of 'owl'"),
        ([("train", "jay/1", "maybe")], "line 2: exclude is 'maybe'; write yes or no"),
    ],
)
def test_files_of_other_data_and_emptied_classes_are_refused(tmp_path, rows, facts) -> None:
    with pytest.raises(FgvcError, match=facts):
        excluding(tmp_path, *rows).split("train")


@pytest.mark.parametrize(
    ("content", "facts"),
    [(b"", "no column 'file'"), (b"file,class\na,b\n", "no column 'split'"), (b"file,split\n\xff\xfe,\n", "UTF-8")],
)
def test_files_that_are_no_audit_are_refused(tmp_path, content, facts) -> None:
    (tmp_path / "audit.csv").write_bytes(content)
    with pytest.raises(FgvcError, match=facts):
        Exclusion.read(tmp_path / "audit.csv")
    with pytest.raises(FgvcError, match="missing.csv` cannot be read: No such file"):
        Exclusion.read(tmp_path / "missing.csv")


def test_a_split_is_never_emptied(tmp_path) -> None:
    data = excluding(tmp_path, *(("test", key, "yes") for key in Birds().split("test").keys))
    with pytest.raises(FgvcError, match="leaves no image in test"):
        data.split("test")
