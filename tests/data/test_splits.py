"""Training, validation and test splits, subsets, packed paths and balanced choices."""

from __future__ import annotations

import pickle
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.contracts import Dataset, Split
from fgvc_cli.data import splits as splits_module
from fgvc_cli.data.splits import PackedPaths, TrainingSplits, balanced_indices, pack_images, subset
from fgvc_cli.errors import FgvcError, UsageError


def split_of(counts: Mapping[int, int], name: str = "train") -> Split:
    labels = [label for label, count in counts.items() for _ in range(count)]
    keys = [f"{label}/{i}.png" for i, label in enumerate(labels)]
    images = [np.full((4, 4, 3), i % 256, np.uint8) for i in range(len(labels))]
    return Split(name, images, labels, keys, [{"beak": (i, 0, i + 1, 1)} for i in range(len(labels))])


class Fixed(Dataset):
    name = "birds"

    def __init__(self, classes: int, **splits: Split) -> None:
        self.class_names = tuple("abcdefghijklmnop"[:classes])
        self._splits = splits

    def splits(self) -> tuple[str, ...]:
        return tuple(self._splits)

    def split(self, name: str) -> Split:
        return self._splits[name]


def training_splits(
    dataset: Dataset, fraction: float, seed: int, train_on: str = "train", val_by: str = "position"
) -> TrainingSplits:
    options = TrainOptions(val_fraction=fraction, val_seed=seed, train_on=train_on, val_by=val_by)
    return splits_module.training_splits(dataset, options)


def counts(split: Split) -> dict[int, int]:
    return dict(sorted(Counter(split.labels).items()))


def test_existing_splits_are_used() -> None:
    dataset = Fixed(2, train=split_of({0: 3, 1: 3}), val=split_of({0: 1}, "val"), test=split_of({1: 2}, "test"))
    splits = training_splits(dataset, 0.5, 0)
    assert (splits.train, splits.val, splits.test) == tuple(dataset.split(name) for name in ("train", "val", "test"))
    assert training_splits(Fixed(2, train=split_of({0: 3, 1: 3})), 0.5, 0).test is None


def test_a_stratified_validation_split_is_held_out() -> None:
    whole = split_of({0: 40, 1: 20, 2: 10})
    splits = training_splits(Fixed(3, train=whole), 0.2, 7)
    assert counts(splits.val) == {0: 8, 1: 4, 2: 2}
    assert counts(splits.train) == {0: 32, 1: 16, 2: 8}
    assert sorted([*splits.train.keys, *splits.val.keys]) == sorted(whole.keys)
    assert splits.val.name == "val" and splits.val.origin == "split off from train (fraction 0.2, seed 7)"
    for image, label, key, parts in zip(
        *(getattr(splits.val, a) for a in ("images", "labels", "keys", "parts")), strict=True
    ):
        index = whole.keys.index(key)
        assert image is whole.images[index] and label == whole.labels[index] and parts == whole.parts[index]


def test_the_choice_is_a_function_of_the_seed() -> None:
    dataset = Fixed(2, train=split_of({0: 30, 1: 30}))
    first, again, other = (training_splits(dataset, 0.2, seed).val.keys for seed in (0, 0, 1))
    assert first == again != other
    assert first[:4] == ["0/2.png", "0/4.png", "0/10.png", "0/11.png"]  # as in runs of older versions


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 0.5, 0.9, 0.99])
def test_each_class_keeps_an_image_and_the_total_is_right(fraction: float) -> None:
    sizes = {0: 2, 1: 3, 2: 7, 3: 50, 4: 2, 5: 1}
    splits = training_splits(Fixed(6, train=split_of(sizes)), fraction, 0)
    kept, held_out = counts(splits.train), counts(splits.val)
    assert all(kept[label] >= 1 for label in sizes)
    assert 5 not in held_out
    if fraction <= 0.5:  # beyond that, tiny classes cannot contribute their part
        assert len(splits.val) == max(1, round(fraction * 65))
    for label, size in sizes.items():
        taken = held_out.get(label, 0)
        assert abs(taken - fraction * size) < 1 or taken == size - 1


def test_remainders_fill_the_total() -> None:
    dataset = Fixed(10, train=split_of(dict.fromkeys(range(10), 5)))
    chosen = [counts(training_splits(dataset, 0.1, seed).val) for seed in range(8)]
    assert all(sum(taken.values()) == 5 and max(taken.values()) == 1 for taken in chosen)
    assert len({tuple(taken) for taken in chosen}) > 1  # ties are broken at random
    for seed in range(8):  # 1.8 and 1.2 images, 3 in total: the largest remainder first
        assert counts(training_splits(Fixed(2, train=split_of({0: 18, 1: 12})), 0.1, seed).val) == {0: 2, 1: 1}
    # 0.07 * 100 is slightly over 7 in floating point, and the other classes have no image to spare
    single = Fixed(11, train=split_of({0: 100, **dict.fromkeys(range(1, 11), 1)}))
    assert counts(training_splits(single, 0.07, 0).val) == {0: 7}


def test_images_held_out_by_name_stay_when_others_come_and_go() -> None:
    names = {label: [f"{label}/photo {i}.jpg" for i in range(60)] for label in range(4)}

    def split(of: Mapping[int, list[str]]) -> TrainingSplits:
        keys = [key for label in of for key in of[label]]
        labels = [label for label in of for _ in of[label]]
        images = [Path(key) for key in keys]
        return training_splits(Fixed(4, train=Split("train", images, labels, keys)), 0.2, 3, val_by="name")

    whole = split(names)
    fewer = split({label: keys[: 20 + 9 * label : 2] for label, keys in names.items()})
    assert set(fewer.val.keys) < set(whole.val.keys) and set(fewer.train.keys) < set(whole.train.keys)
    assert len(whole.val) == pytest.approx(0.2 * 240, abs=3 * (0.2 * 0.8 * 240) ** 0.5)
    assert whole.val.origin.endswith("fraction 0.2, seed 3, by name)")
    decomposed = {label: [unicodedata.normalize("NFD", f"é{key}") for key in keys] for label, keys in names.items()}
    composed = {label: [f"é{key}" for key in keys] for label, keys in names.items()}
    assert split(composed).val.labels == split(decomposed).val.labels


@pytest.mark.parametrize("seed", range(8))
def test_by_name_each_class_keeps_an_image_and_one_is_held_out(seed: int) -> None:
    small = Fixed(3, train=split_of({0: 2, 1: 1, 2: 3}))
    for fraction in (0.01, 0.99):
        splits = training_splits(small, fraction, seed, val_by="name")
        assert counts(splits.train).keys() == {0, 1, 2} and len(splits.val) >= 1
    assert len(splits.val) == 3
    with pytest.raises(FgvcError, match="validation"):
        training_splits(Fixed(2, train=split_of({0: 1, 1: 1})), 0.2, seed, val_by="name")


def test_a_class_with_a_single_image_is_trained_on_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    splits = training_splits(Fixed(3, train=split_of({0: 9, 1: 1, 2: 9})), 0.3, 0)
    assert counts(splits.train)[1] == 1
    assert "'b'" in caplog.text


def test_unusable_datasets_are_refused() -> None:
    with pytest.raises(FgvcError, match="'b', 'd'"):
        training_splits(Fixed(4, train=split_of({0: 5, 2: 5}), test=split_of({1: 2, 3: 2}, "test")), 0.2, 0)
    with pytest.raises(FgvcError, match=r"1 class \('a'\)"):
        training_splits(Fixed(1, train=split_of({0: 5})), 0.2, 0)
    with pytest.raises(FgvcError, match="'train'.* 'test'"):
        training_splits(Fixed(2, test=split_of({0: 5, 1: 5}, "test")), 0.2, 0)
    with pytest.raises(FgvcError, match="validation"):
        training_splits(Fixed(2, train=split_of({0: 1, 1: 1})), 0.2, 0)
    for fraction in (0.0, 1.0, -1.0):
        with pytest.raises(UsageError, match=f"`train.val_fraction={fraction:g}`"):
            training_splits(Fixed(2, train=split_of({0: 5, 1: 5})), fraction, 0)


def test_training_on_train_and_val_holds_nothing_out() -> None:
    parts = {"train": split_of({0: 3, 1: 3}), "val": split_of({0: 1, 1: 2}, "val"), "test": split_of({1: 2}, "test")}
    parts["val"].origin = "official"
    splits = training_splits(Fixed(2, **parts), 0.5, 0, "train+val")
    assert splits.val is None and splits.test is parts["test"]
    assert splits.train.name == "train+val" and counts(splits.train) == {0: 4, 1: 5}
    assert splits.train.keys[0] == "train/0/0.png" and splits.train.keys[6] == "val/0/0.png"
    assert splits.train.parts[6] == parts["val"].parts[0] and splits.train.images[6] is parts["val"].images[0]
    assert splits.train.origin == "train and val (official) together, nothing held out"
    train = split_of({0: 3, 1: 3})
    assert training_splits(Fixed(2, train=train), 0.5, 0, "train+val").train is train
    only_val = Fixed(2, train=split_of({0: 3}), val=split_of({1: 2}, "val"))  # a class that only val has
    assert counts(training_splits(only_val, 0.5, 0, "train+val").train) == {0: 3, 1: 2}


def test_the_origin_says_official_when_a_part_is_held_out() -> None:
    train = split_of({0: 10, 1: 10})
    train.origin = "official"
    splits = training_splits(Fixed(2, train=train), 0.5, 1)
    assert splits.train.origin == "official, without the images split off as val (fraction 0.5, seed 1)"
    assert splits.val.origin == "split off from train (official; fraction 0.5, seed 1)"


PATHS = [Path("/a/b.jpg"), Path("ä/ö ü.png"), Path("x\udcff.png"), Path("/")]


def test_packed_paths_are_a_sequence() -> None:
    packed = PackedPaths(PATHS)
    assert list(packed) == PATHS and packed[-1] == PATHS[-1] and packed[1:3] == PATHS[1:3]
    assert list(pickle.loads(pickle.dumps(packed))) == PATHS
    with pytest.raises(IndexError):
        packed[4]
    assert list(PackedPaths([])) == []
    many = PackedPaths([f"/data/birds/train/class-{i % 200}/image-{i:06d}.jpg" for i in range(10_000)])
    assert len(pickle.dumps(many)) < 600_000


def test_only_paths_are_packed() -> None:
    arrays = [np.zeros((2, 2, 3), np.uint8)] * 2
    packed = PackedPaths(PATHS)
    assert pack_images(arrays) is arrays and pack_images(packed) is packed
    assert isinstance(pack_images(PATHS), PackedPaths)
    part = subset(Split("some", packed, [0, 1, 0, 1], list("abcd")), [2, 1], "part", "chosen")
    assert isinstance(part.images, PackedPaths) and list(part.images) == [PATHS[2], PATHS[1]]
    assert (part.labels, part.keys, part.parts) == ([0, 1], ["c", "b"], None)


def test_balanced_indices() -> None:
    labels = [0] * 10 + [1] * 10 + [2] * 10
    assert balanced_indices(labels, 6) == [2, 7, 12, 17, 22, 27]
    assert balanced_indices(labels, 30) == balanced_indices(labels, 99) == list(range(30))
    assert balanced_indices(list(range(100)), 4) == [12, 37, 62, 87]
    shuffled = [1, 0, 1, 0, 1, 0, 1, 0]
    assert Counter(shuffled[i] for i in balanced_indices(shuffled, 4)) == {0: 2, 1: 2}


@pytest.mark.parametrize("limit", [1, 2, 5, 11, 17, 24, 29])
def test_each_class_gives_equally_many_as_far_as_it_has_them(limit: int) -> None:
    sizes = [2, 12, 1, 9, 6]
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    chosen = balanced_indices(labels, limit)
    assert len(set(chosen)) == limit and chosen == sorted(chosen)
    given = Counter(labels[i] for i in chosen)
    assert all(given[label] >= min(size, max(given.values()) - 1) for label, size in enumerate(sizes))


def test_the_folds_are_the_images_of_train_and_val() -> None:
    dataset = Fixed(3, train=split_of({0: 9, 1: 9, 2: 1}), val=split_of({0: 3, 1: 3}, "val"))
    found = [
        splits_module.training_splits(dataset, TrainOptions(folds=4, fold=fold, val_seed=2)) for fold in range(1, 5)
    ]
    everything = [f"{name}/{key}" for name in ("train", "val") for key in dataset.split(name).keys]
    held_out = [key for splits in found for key in splits.val.keys]
    assert sorted([*held_out, "train/2/18.png"]) == sorted(everything)  # the only image of a class is always trained on
    for splits in found:
        assert sorted([*splits.train.keys, *splits.val.keys]) == sorted(everything)
        assert counts(splits.val) == {0: 3, 1: 3}
    for folds, fold in ((1, 1), (3, 0), (3, 4), (0, 1)):
        with pytest.raises(ValueError, match="fold"):
            TrainOptions(folds=folds, fold=fold)
    with pytest.raises(FgvcError, match="Fold 9"):
        splits_module.training_splits(Fixed(2, train=split_of({0: 4, 1: 4})), TrainOptions(folds=9, fold=9))
