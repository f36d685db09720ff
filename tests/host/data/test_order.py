from __future__ import annotations

import numpy as np
import pytest
import torch

from fgvc_cli.data.order import batches_in_epoch, epoch_batches, epoch_order, image_seed, seeded


def test_an_epoch_is_a_permutation_that_follows_from_seed_and_epoch() -> None:
    orders = {(seed, epoch): epoch_order(50, seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    for (seed, epoch), order in orders.items():
        assert sorted(order.tolist()) == list(range(50))
        assert np.array_equal(order, epoch_order(50, seed, epoch))
    assert len({tuple(order) for order in orders.values()}) == 4


@pytest.mark.parametrize(
    ("images", "batch_size", "sizes"),
    [(8, 4, [4, 4]), (10, 4, [4, 4, 2]), (9, 4, [4, 4]), (3, 4, [3]), (2, 4, [2]), (3, 1, [1, 1, 1]), (5, 2, [2, 2])],
)
def test_a_last_batch_of_one_is_dropped(images: int, batch_size: int, sizes: list[int]) -> None:
    assert [len(batch) for batch in epoch_batches(images, batch_size, 0, 0)] == sizes
    assert batches_in_epoch(images, batch_size) == len(sizes)


def test_each_image_has_its_own_seed_in_each_epoch() -> None:
    seeds = {image_seed(seed, epoch, index) for seed in range(3) for epoch in range(10) for index in range(100)}
    assert len(seeds) == 3000


def test_the_generator_is_set_back_even_after_an_error() -> None:
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
