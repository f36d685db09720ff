"""A limit spreads over classes and within them."""

from __future__ import annotations

from collections import Counter

import pytest

from fgvc_cli.data.splits import spread


def test_a_limit_spreads_over_classes_and_within_them() -> None:
    labels = [0] * 10 + [1] * 10 + [2] * 10
    assert spread(labels, 6) == [2, 7, 12, 17, 22, 27]
    assert spread(labels, 6) == spread(labels, 6)
    assert spread(labels, 30) == spread(labels, 99) == list(range(30))


@pytest.mark.parametrize("limit", [1, 2, 5, 11, 17, 24, 29])
def test_each_class_gives_equally_many_as_far_as_it_has_them(limit: int) -> None:
    counts = [2, 12, 1, 9, 6]
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    chosen = spread(labels, limit)
    assert len(set(chosen)) == limit and chosen == sorted(chosen)
    given = Counter(labels[i] for i in chosen)
    most = max(given.values())
    assert all(given[label] >= min(count, most - 1) for label, count in enumerate(counts))


def test_fewer_images_than_classes_lie_evenly_among_them() -> None:
    assert spread(list(range(100)), 4) == [12, 37, 62, 87]


def test_labels_need_not_come_in_order() -> None:
    labels = [1, 0, 1, 0, 1, 0, 1, 0]
    assert Counter(labels[i] for i in spread(labels, 4)) == {0: 2, 1: 2}
