from __future__ import annotations

import numpy as np
import pytest
import torch

from fgvc_cli.data.order import Shard, batches_in_epoch, count_repeats, epoch_batches, epoch_order, image_seed, seeded

UNBALANCED = np.repeat(np.arange(5), [1, 4, 9, 100, 36])  # 150 images of 5 classes


def labels(images: int) -> np.ndarray:
    return np.zeros(images, np.int64)


def test_an_epoch_is_a_permutation_given_by_seed_and_epoch() -> None:
    orders = {(seed, epoch): epoch_order(labels(50), seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    for (seed, epoch), order in orders.items():
        assert sorted(order.tolist()) == list(range(50))
        assert np.array_equal(order, epoch_order(labels(50), seed, epoch))
    assert len({tuple(order) for order in orders.values()}) == 4
    # pinned: resumed runs must see the same order and augmentation
    assert epoch_order(labels(8), 3, 1).tolist() == [6, 7, 2, 3, 5, 0, 4, 1]
    assert epoch_order(np.array([0, 0, 0, 0, 0, 1, 1, 2]), 3, 1, "sqrt").tolist() == [5, 3, 6, 7, 4, 1, 2, 7]
    assert image_seed(3, 1, 5) == 14145726508227122592 and image_seed(3, 1, 5, 2) == 4606857227696329247


@pytest.mark.parametrize(
    ("images", "batch_size", "sizes"),
    [(8, 4, [4, 4]), (10, 4, [4, 4, 2]), (9, 4, [4, 4]), (3, 4, [3]), (2, 4, [2]), (3, 1, [1, 1, 1]), (5, 2, [2, 2])],
)
def test_a_last_batch_of_one_is_dropped(images: int, batch_size: int, sizes: list[int]) -> None:
    assert [len(batch.indices) for batch in epoch_batches(labels(images), batch_size, 0, 0)] == sizes
    assert batches_in_epoch(images, batch_size) == len(sizes)


def test_each_image_has_its_own_seed_in_each_epoch() -> None:
    seeds = {image_seed(seed, epoch, index) for seed in range(3) for epoch in range(10) for index in range(100)}
    assert len(seeds) == 3000


def test_the_generator_is_restored_even_after_an_error() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with pytest.raises(RuntimeError), seeded(1):
        torch.rand(7).view(2, 2)
    assert torch.equal(torch.rand(3), expected)
    with seeded(1):
        first = torch.rand(3)
    with seeded(1):
        assert torch.equal(torch.rand(3), first)


def test_class_sampling_draws_every_class_equally_often() -> None:
    order = epoch_order(UNBALANCED, 0, 0, "class")
    assert len(order) == len(UNBALANCED)
    assert np.bincount(UNBALANCED[order]).tolist() == [30] * 5
    of_small = np.bincount(order, minlength=150)[:14]  # numbers of occurrences differ by at most one
    assert of_small[0] == 30 and set(of_small[1:5]) <= {7, 8} and set(of_small[5:14]) <= {3, 4}
    assert np.bincount(order, minlength=150)[14:].max() == 1


def test_sqrt_sampling_is_proportional_to_the_square_root_of_class_size() -> None:
    counts = np.mean([np.bincount(UNBALANCED[epoch_order(UNBALANCED, 0, e, "sqrt")]) for e in range(200)], axis=0)
    expected = 150 * np.sqrt([1, 4, 9, 100, 36]) / (1 + 2 + 3 + 10 + 6)
    assert counts.sum() == 150
    assert np.allclose(counts, expected, atol=0.12), (counts, expected)  # rounded at random, unbiased


def test_class_sampling_reaches_every_image_of_a_large_class() -> None:
    seen = np.concatenate([epoch_order(UNBALANCED, 0, epoch, "class") for epoch in range(20)])
    assert set(seen.tolist()) == set(range(150))


def test_labels_without_images_are_never_drawn() -> None:
    gaps = np.array([3, 3, 7])
    assert sorted(np.bincount(gaps[epoch_order(gaps, 0, 0, "class")])[[3, 7]].tolist()) == [1, 2]
    assert set(epoch_order(gaps, 0, 0, "sqrt").tolist()) <= {0, 1, 2}


def test_repeated_images_have_their_own_augmentation() -> None:
    assert count_repeats(np.array([4, 1, 4, 4, 1, 0])).tolist() == [0, 0, 1, 2, 1, 0]
    batches = epoch_batches(UNBALANCED, 16, 0, 3, sampling="class")
    pairs = [(i, r) for batch in batches for i, r in zip(*map(np.ndarray.tolist, batch), strict=True)]
    assert len(set(pairs)) == len(pairs) == 150
    assert {image_seed(0, 0, 5), image_seed(0, 0, 5, 0)} == {image_seed(0, 0, 5)}
    assert len({image_seed(0, 0, 5, repeat) for repeat in range(10)}) == 10


def test_shards_of_a_sampled_epoch() -> None:
    whole = epoch_batches(UNBALANCED, 16, 0, 0, sampling="class")
    shares = [epoch_batches(UNBALANCED, 8, 0, 0, Shard(rank, 2), "class") for rank in (0, 1)]
    for batch, left, right in zip(whole, *shares, strict=True):
        assert np.array_equal(batch.indices, np.concatenate([left.indices, right.indices]))
        assert np.array_equal(batch.repeats, np.concatenate([left.repeats, right.repeats]))


@pytest.mark.parametrize(("images", "batches"), [(35, 1), (39, 1), (40, 2)])
def test_an_end_with_fewer_than_two_images_per_process_is_dropped(images: int, batches: int) -> None:
    shares = [epoch_batches(np.zeros(images, np.int64), 8, 0, 0, Shard(rank, 4)) for rank in range(4)]
    assert [len(share) for share in shares] == [batches] * 4 and batches_in_epoch(images, 8, 4) == batches
    assert {len(batch.indices) for share in shares for batch in share} == {8, 2} if batches == 2 else {8}
