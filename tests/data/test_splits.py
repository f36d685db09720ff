from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest

from fgvc_cli.contracts import Dataset, Split
from fgvc_cli.data.splits import subset, training_splits
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


def counts(split: Split) -> dict[int, int]:
    return dict(sorted(Counter(split.labels).items()))


def test_splits_that_are_there_are_taken() -> None:
    dataset = Fixed(2, train=split_of({0: 3, 1: 3}), val=split_of({0: 1}, "val"), test=split_of({1: 2}, "test"))
    splits = training_splits(dataset, 0.5, 0)
    assert (splits.train, splits.val, splits.test) == tuple(dataset.split(name) for name in ("train", "val", "test"))
    assert training_splits(Fixed(2, train=split_of({0: 3, 1: 3})), 0.5, 0).test is None


def test_a_validation_part_is_split_off_by_class() -> None:
    dataset = Fixed(3, train=split_of({0: 40, 1: 20, 2: 10}))
    splits = training_splits(dataset, 0.2, 7)
    assert counts(splits.val) == {0: 8, 1: 4, 2: 2}
    assert counts(splits.train) == {0: 32, 1: 16, 2: 8}
    assert not set(splits.train.keys) & set(splits.val.keys)
    assert set(splits.train.keys) | set(splits.val.keys) == set(dataset.split("train").keys)
    assert splits.val.name == "val"
    assert splits.val.origin == "split off from train (share 0.2, seed 7)"
    assert "without what was split off" in splits.train.origin


def test_what_belongs_to_an_image_goes_with_it() -> None:
    whole = split_of({0: 10, 1: 10})
    val = training_splits(Fixed(2, train=whole), 0.3, 1).val
    assert len(val) == 6
    for image, label, key, parts in zip(val.images, val.labels, val.keys, val.parts or [], strict=True):
        index = whole.keys.index(key)
        assert image is whole.images[index]
        assert label == whole.labels[index]
        assert parts == whole.parts[index]


def test_the_choice_follows_from_the_seed() -> None:
    dataset = Fixed(2, train=split_of({0: 30, 1: 30}))
    first, again, other = (training_splits(dataset, 0.2, seed).val.keys for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.9, 0.99])
def test_each_class_keeps_an_image_and_the_total_is_right(share: float) -> None:
    sizes = {0: 2, 1: 3, 2: 7, 3: 50, 4: 2, 5: 1}
    splits = training_splits(Fixed(6, train=split_of(sizes)), share, 0)
    kept, held_out = counts(splits.train), counts(splits.val)
    assert all(kept[label] >= 1 for label in sizes)
    assert 5 not in held_out
    if share <= 0.5:  # beyond that, what tiny classes keep is missing from the total
        assert len(splits.val) == max(1, round(share * 65))
    for label, size in sizes.items():
        taken = held_out.get(label, 0)
        assert abs(taken - share * size) < 1 or taken == size - 1


def test_remainders_fill_the_total_with_classes_drawn_by_lot() -> None:
    dataset = Fixed(10, train=split_of(dict.fromkeys(range(10), 5)))
    chosen = [counts(training_splits(dataset, 0.1, seed).val) for seed in range(8)]
    assert all(sum(taken.values()) == 5 and max(taken.values()) == 1 for taken in chosen)
    assert len({tuple(taken) for taken in chosen}) > 1


def test_the_largest_remainders_come_first() -> None:
    for seed in range(8):  # 1.8 and 1.2 images, 3 in all
        splits = training_splits(Fixed(2, train=split_of({0: 18, 1: 12})), 0.1, seed)
        assert counts(splits.val) == {0: 2, 1: 1}


def test_a_whole_share_leaves_no_remainder() -> None:
    """0.07 * 100 is a little over 7 in floating point, and the others have no image to spare."""
    dataset = Fixed(11, train=split_of({0: 100, **dict.fromkeys(range(1, 11), 1)}))
    assert counts(training_splits(dataset, 0.07, 0).val) == {0: 7}


def test_a_class_with_a_single_image_is_trained_on_and_warned_about(capsys: pytest.CaptureFixture[str]) -> None:
    splits = training_splits(Fixed(3, train=split_of({0: 9, 1: 1, 2: 9})), 0.3, 0)
    assert counts(splits.train)[1] == 1
    assert "a single training image of 'b'" in capsys.readouterr().err


def test_a_class_without_training_images_is_named() -> None:
    dataset = Fixed(4, train=split_of({0: 5, 2: 5}), test=split_of({1: 2, 3: 2}, "test"))
    with pytest.raises(FgvcError, match="birds has no training image of 'b', 'd'"):
        training_splits(dataset, 0.2, 0)


def test_what_cannot_be_trained_on() -> None:
    with pytest.raises(FgvcError, match=r"1 class \('a'\).*two or more"):
        training_splits(Fixed(1, train=split_of({0: 5})), 0.2, 0)
    with pytest.raises(FgvcError, match="no split 'train', only 'test'"):
        training_splits(Fixed(2, test=split_of({0: 5, 1: 5}, "test")), 0.2, 0)
    with pytest.raises(FgvcError, match="No class has a second image"):
        training_splits(Fixed(2, train=split_of({0: 1, 1: 1})), 0.2, 0)
    for share in (0.0, 1.0, -1.0):
        with pytest.raises(UsageError, match="must lie between 0 and 1"):
            training_splits(Fixed(2, train=split_of({0: 5, 1: 5})), share, 0)


def test_subset_of_a_split_without_parts() -> None:
    whole = split_of({0: 3, 1: 3})
    whole.parts = None
    part = subset(whole, [4, 0], "some", "chosen")
    assert (part.labels, part.keys, part.parts) == ([1, 0], ["1/4.png", "0/0.png"], None)


def test_training_on_train_and_val_holds_nothing_out() -> None:
    parts = {"train": split_of({0: 3, 1: 3}), "val": split_of({0: 1, 1: 2}, "val"), "test": split_of({1: 2}, "test")}
    parts["val"].origin = "official"
    splits = training_splits(Fixed(2, **parts), 0.5, 0, "train+val")
    assert splits.val is None and splits.test is parts["test"]
    assert splits.train.name == "train+val" and counts(splits.train) == {0: 4, 1: 5}
    assert splits.train.keys[0] == "train/0/0.png" and splits.train.keys[6] == "val/0/0.png"
    assert len(set(splits.train.keys)) == 9
    assert splits.train.parts[6] == parts["val"].parts[0] and splits.train.images[6] is parts["val"].images[0]
    assert splits.train.origin == "train and val (official) together, nothing held out"


def test_without_a_val_split_training_on_both_takes_all_of_train() -> None:
    train = split_of({0: 3, 1: 3})
    splits = training_splits(Fixed(2, train=train), 0.5, 0, "train+val")
    assert splits.train is train and splits.val is None


def test_an_official_split_stays_named_when_a_part_of_it_is_held_out() -> None:
    train = split_of({0: 10, 1: 10})
    train.origin = "official"
    splits = training_splits(Fixed(2, train=train), 0.5, 1)
    assert splits.train.origin == "official, without what was split off as val (share 0.5, seed 1)"
    assert splits.val.origin == "split off from train (official; share 0.5, seed 1)"


def test_a_class_that_only_val_has_is_trained_on_where_both_are() -> None:
    dataset = Fixed(2, train=split_of({0: 3}), val=split_of({1: 2}, "val"))
    assert counts(training_splits(dataset, 0.5, 0, "train+val").train) == {0: 3, 1: 2}
    with pytest.raises(FgvcError, match="birds has no training image of 'b'"):
        training_splits(dataset, 0.5, 0)
