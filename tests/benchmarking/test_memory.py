"""Peaks of memory against those worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fgvc_cli.benchmarking.memory import DevicePeak, PeakMemory, tensors_in

CPU = torch.device("cpu")
N = 1000
BYTES = 4 * N
"""Of a vector of N numbers."""


def vector():
    return torch.ones(N)


def test_what_is_let_go_counts_no_more():
    with PeakMemory(CPU) as memory:
        first = vector() + 1  # the sum beside what it was made of
        assert (memory.bytes, memory.peak) == (BYTES, 2 * BYTES)
        second = first * 2
        assert memory.bytes == 2 * BYTES
        del first, second
        assert memory.bytes == 0
    assert memory.peak == 2 * BYTES


def test_what_was_there_counts_and_views_of_it_do_not():
    there = vector()
    with PeakMemory(CPU, [there, there.view(10, 100)]) as memory:
        part = there[:10]
        reshaped = there.reshape(10, 100).t()
        assert (memory.bytes, memory.peak) == (BYTES, BYTES)
        del part, reshaped
    del there
    assert memory.bytes == 0


def test_in_place_operations_take_nothing():
    there = vector()
    with PeakMemory(CPU, [there]) as memory:
        there.add_(1).relu_()
        torch._foreach_mul_([there], 2.0)
    assert memory.peak == BYTES


def test_what_the_backward_pass_needs_stays_until_it_is_done():
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


def test_an_update_counts_weights_gradients_and_the_optimizers_state():
    layer = nn.Linear(N, 1, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    inputs = torch.ones(1, N)

    def update():
        optimizer.zero_grad()
        layer(inputs).sum().backward()
        optimizer.step()

    update()
    memory = PeakMemory(CPU, [inputs, layer.weight, layer.weight.grad, *tensors_in(optimizer.state_dict())])
    with memory:
        update()
    assert memory.bytes == 4 * BYTES  # weight, gradient, momentum, input
    assert 4 * BYTES <= memory.peak < 4 * BYTES + 100  # the old gradient went before the new one came


def test_other_devices_do_not_count():
    with PeakMemory(torch.device("cuda")) as memory:
        vector()
    assert memory.peak == 0


def test_tensors_are_found_in_an_optimizers_state():
    a, b = vector(), vector()
    state = {"state": {0: {"step": 3, "momentum": a}}, "groups": [{"lr": 0.1, "more": (b, "text")}]}
    assert [id(tensor) for tensor in tensors_in(state)] == [id(a), id(b)]


def test_the_allocators_statistics_are_for_cuda_alone():
    peak = DevicePeak(CPU)
    peak.begin()
    assert peak.end() is None


@pytest.mark.gpu
def test_a_gpus_allocator_tells_the_peak():
    device = torch.device("cuda")
    before = torch.cuda.memory_allocated(device)
    peak = DevicePeak(device)
    torch.ones(2**22, device=device)  # 16 MiB, before
    peak.begin()
    torch.ones(2**20, device=device) + 1  # twice 4 MiB
    found = peak.end()
    assert found is not None and found - before == 2**23
