"""Images of one group stay together when splits are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.contracts import Dataset, Split
from fgvc_cli.data.drawing import NEVER, parts_of
from fgvc_cli.data.grouping import GroupedDataset, warn_of_shared_groups
from fgvc_cli.data.identity import DataIdentity
from fgvc_cli.data.splits import subset, training_splits
from fgvc_cli.errors import FgvcError, UsageError


class Photos(Dataset):
    """Photographs `CLASS/SESSION_NUMBER.jpg` with an attribute `Individual`."""

    name = "photos"

    def __init__(self, **splits: Sequence[tuple[str, str]]) -> None:
        self._splits = splits
        self.class_names = tuple(sorted({key.partition("/")[0] for rows in splits.values() for key, _ in rows}))

    def splits(self) -> tuple[str, ...]:
        return tuple(self._splits)

    def split(self, name: str) -> Split:
        keys = [key for key, _ in self._splits[name]]
        labels = [self.class_names.index(key.partition("/")[0]) for key in keys]
        return Split(name, [Path(key) for key in keys], labels, keys)

    def attributes(self) -> tuple[str, ...]:
        return ("Individual",)

    def attribute(self, name: str, split: str) -> Sequence[str]:
        return [value for _, value in self._splits[split]]


def photos(classes: int, individuals: int, images: int) -> list[tuple[str, str]]:
    return [(f"c{c}/s{i}_{n}.jpg", f"{c}-{i}") for c in range(classes) for i in range(individuals)
            for n in range(images + i % 3)]  # fmt: skip


@pytest.mark.parametrize("val_by", ["name", "position"])
@pytest.mark.parametrize("seed", range(4))
def test_a_group_is_in_one_split_in_any_order(val_by: str, seed: int) -> None:
    rows = photos(6, 12, 3)
    options = TrainOptions(val_by=val_by, val_seed=seed, group_by="individual", val_fraction=0.25)
    splits = training_splits(GroupedDataset(Photos(train=rows), "individual"), options)
    assert splits.val is not None and not set(splits.train.groups) & set(splits.val.groups)
    assert sorted([*splits.train.keys, *splits.val.keys]) == sorted(key for key, _ in rows)
    shuffled = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    again = training_splits(GroupedDataset(Photos(train=shuffled), "individual"), options)
    assert set(again.val.keys) == set(splits.val.keys)
    if val_by == "position":  # stratified as far as groups of 3 to 5 images allow
        assert all(abs(n - 0.25 * 48) <= 5 for n in Counter(splits.val.labels).values())
        assert len(splits.val) == pytest.approx(0.25 * len(rows), abs=5)
    else:  # other groups do not matter
        fewer = [row for row in rows if not row[1].endswith("-3")]
        found = training_splits(GroupedDataset(Photos(train=fewer), "individual"), options).val
        assert set(found.keys) == {
            key for key, individual in rows if key in splits.val.keys and (key, individual) in fewer
        }


@pytest.mark.parametrize("grouped", [False, True])
def test_folds_are_stratified_and_disjoint(grouped: bool) -> None:
    rows = [*photos(5, 10, 2), ("c0/single_0.jpg", "0-0"), *[(f"c9/x_{n}.jpg", "9-0") for n in range(4)]]
    split = GroupedDataset(Photos(train=rows), "individual" if grouped else "(.*)").split("train")
    part = parts_of(split, [0.2] * 5, seed=1)
    by_group = {(group, p) for group, p in zip(split.groups, part, strict=True)}
    assert len(by_group) == len(set(split.groups))
    labels = np.asarray(split.labels)
    if grouped:  # the only individual of its class is always trained on
        assert set(part[labels == 5]) == {NEVER} and NEVER not in part[labels != 5]
    counts = np.array([[((labels == c) & (part == k)).sum() for k in range(5)] for c in range(5)])
    assert (np.ptp(counts, axis=1) <= (5 if grouped else 1)).all() and np.ptp(counts.sum(axis=0)) <= 4
    reordered = subset(split, np.random.default_rng(0).permutation(len(split)), "train", "")
    of_key = dict(zip(split.keys, part, strict=True))
    assert [of_key[key] for key in reordered.keys] == parts_of(reordered, [0.2] * 5, seed=1).tolist()


def test_groups_are_a_column_the_folder_or_captured_from_the_path() -> None:
    rows = [("a/one/1.jpg", "x"), ("a/one/2.jpg", ""), ("b/two/3.jpg", "")]
    dataset = Photos(train=rows)
    groups = {by: GroupedDataset(dataset, by).split("train").groups for by in ("individual", "folder", r"(\d)\.jpg")}
    assert groups["folder"] == ["a/one", "a/one", "b/two"] and groups[r"(\d)\.jpg"] == ["1", "2", "3"]
    assert len(set(groups["individual"])) == 3  # images without a value are groups of their own
    for by, fact in (("indivdual", "Individual"), ("(", "regular"), ("(x)|(y)", "column"), (r"(\d)\.png", "3 images")):
        with pytest.raises(UsageError, match=fact):
            GroupedDataset(dataset, by).split("train")
    options = TrainOptions(val_by="name", group_by="folder")
    with pytest.raises(FgvcError, match="group"):  # the class folder is the only group of each class
        training_splits(GroupedDataset(dataset, "folder"), options)


def test_shared_groups_are_one_warning_with_counts(caplog: pytest.LogCaptureFixture) -> None:
    train, val, test = [("a/1", "x"), ("b/2", "y")], [("a/3", "x")], [("b/4", "y"), ("a/5", "x"), ("a/6", "z")]
    dataset = GroupedDataset(Photos(train=train, val=val, test=test), "Individual")
    warn_of_shared_groups([dataset.split(name) for name in dataset.splits()])
    (record,) = caplog.records
    assert all(fact in record.getMessage() for fact in ("2 groups", "1 in train and val", "2 in train and test"))


def test_changed_groups_are_changed_data() -> None:
    def identity(individual: str) -> DataIdentity:
        rows = [("a/1.jpg", "x"), ("a/2.jpg", individual), ("b/3.jpg", "z")]
        return DataIdentity.of(GroupedDataset(Photos(train=rows), "individual"))

    before = DataIdentity.from_json(identity("x").as_json())
    assert before.changes_to(identity("x")) == []
    assert len(before.changes_to(identity("y"))) == 1 and "groups" in before.changes_to(identity("y"))[0]
