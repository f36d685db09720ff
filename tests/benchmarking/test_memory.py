"""Peak memory against peaks worked out by hand, and the search for the largest batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fgvc_cli.benchmarking.memory import MAX_BATCH, PeakMemory, largest_batch
from fgvc_cli.errors import FgvcError

CPU = torch.device("cpu")
N = 1000
BYTES = 4 * N
"""Of a vector of N numbers."""


def vector():
    return torch.ones(N)


def test_freed_storage_is_subtracted():
    with PeakMemory(CPU) as memory:
        first = vector() + 1  # the sum and its operand
        assert (memory.bytes, memory.peak) == (BYTES, 2 * BYTES)
        second = first * 2
        assert memory.bytes == 2 * BYTES
        del first, second
        assert memory.bytes == 0
    assert memory.peak == 2 * BYTES


def test_existing_tensors_count_once_and_views_do_not():
    there = vector()
    with PeakMemory(CPU, [there, there.view(10, 100)]) as memory:
        part = there[:10]
        reshaped = there.reshape(10, 100).t()
        assert (memory.bytes, memory.peak) == (BYTES, BYTES)
        del part, reshaped
    del there
    assert memory.bytes == 0


def test_in_place_operations_allocate_nothing():
    there = vector()
    with PeakMemory(CPU, [there]) as memory:
        there.add_(1).relu_()
        torch._foreach_mul_([there], 2.0)
    assert memory.peak == BYTES


def test_saved_activations_live_until_the_backward_pass():
    weight = vector().requires_grad_()
    with PeakMemory(CPU, [weight]) as memory:
        out = (weight * 2).exp().exp()  # both results of exp are kept for the backward pass, the product is not
        assert memory.bytes == 3 * BYTES
        loss = out.sum()
        del out
        assert memory.bytes == 3 * BYTES + 4  # and the loss
        loss.backward()
        del loss
        assert memory.bytes == 2 * BYTES  # the weight and its gradient
    # at worst: weight, one result of exp, the gradient there, the gradient before it, the loss and its gradient
    assert memory.peak == 4 * BYTES + 8


def test_an_update_counts_weights_gradients_and_optimizer_state():
    layer = nn.Linear(N, 1, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    inputs = torch.ones(1, N)

    def update():
        optimizer.zero_grad()
        layer(inputs).sum().backward()
        optimizer.step()

    update()
    momentum = optimizer.state[layer.weight]["momentum_buffer"]
    memory = PeakMemory(CPU, [inputs, layer.weight, layer.weight.grad, momentum])
    with memory:
        update()
    assert memory.bytes == 4 * BYTES  # weight, gradient, momentum, input
    assert 4 * BYTES <= memory.peak < 4 * BYTES + 100  # the old gradient went before the new one came


def test_other_devices_are_ignored():
    with PeakMemory(torch.device("cuda")) as memory:
        vector()
    assert memory.peak == 0


class Memory:
    """Room for a number of images; remembers the batch sizes tried."""

    def __init__(self, room):
        self.room, self.tried = room, []

    def __call__(self, images):
        self.tried.append(images)
        return images <= self.room


@pytest.mark.parametrize(("room", "largest"), [(8, 8), (15, 8), (16, 16), (100, 96), (127, 120), (128, 128)])
def test_largest_multiple_of_8_that_fits(room, largest):
    memory = Memory(room)
    assert largest_batch(memory) == largest
    assert len(memory.tried) == len(set(memory.tried)) <= 16


def test_the_search_is_limited():
    assert largest_batch(lambda images: True) == MAX_BATCH
    assert largest_batch(lambda images: True, limit=100) == 96


def test_no_batch_fits():
    with pytest.raises(FgvcError, match=r"batches of 8 images.*`image_size`"):
        largest_batch(Memory(7))
