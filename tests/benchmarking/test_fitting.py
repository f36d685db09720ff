"""The largest batch that fits."""

from __future__ import annotations

import pytest

from fgvc_cli.benchmarking.memory import MOST, largest_batch
from fgvc_cli.errors import FgvcError


class Memory:
    """Room for so many images; what was tried is remembered."""

    def __init__(self, room):
        self.room, self.tried = room, []

    def __call__(self, images):
        self.tried.append(images)
        return images <= self.room


@pytest.mark.parametrize(
    ("room", "largest"), [(8, 8), (15, 8), (16, 16), (100, 96), (127, 120), (128, 128), (999, 992)]
)
def test_it_is_the_largest_multiple_of_8_that_fits(room, largest):
    memory = Memory(room)
    assert largest_batch(memory) == largest
    assert len(memory.tried) == len(set(memory.tried)) <= 16


def test_it_doubles_then_halves_the_interval():
    memory = Memory(100)
    largest_batch(memory)
    assert memory.tried == [8, 16, 32, 64, 128, 96, 112, 104]


def test_it_does_not_grow_for_ever():
    assert largest_batch(lambda images: True) == MOST
    assert largest_batch(lambda images: True, most=100) == 96


def test_where_nothing_fits_it_says_so():
    with pytest.raises(FgvcError, match="not even batches of 8 images fit"):
        largest_batch(Memory(7))
