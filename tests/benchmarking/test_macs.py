"""MACs against counts worked out by hand, and against torch's where those are right."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fgvc_cli.benchmarking.macs import OWN_FORMULAS, MacCounter, count_macs

aten = torch.ops.aten
B, H, W = 2, 6, 5


def of_convolution(layer, inputs, needs_input_gradient):
    inputs = inputs.requires_grad_(needs_input_gradient)
    forward = count_macs(lambda: layer(inputs))
    both = count_macs(lambda: layer(inputs).sum().backward())
    return forward, both - forward


def by_torch(work):
    with FlopCounterMode(display=False) as counted:
        work()
    return counted.get_total_flops() // 2


CONVOLUTIONS = {  # layer, MACs of a forward pass: images x points x output channels x weights per output channel
    "plain": (nn.Conv2d(4, 8, 3, padding=1), B * H * W * 8 * 4 * 9),
    "grouped": (nn.Conv2d(4, 8, 3, padding=1, groups=2), B * H * W * 8 * 2 * 9),
    "depthwise": (nn.Conv2d(4, 4, 3, padding=1, groups=4), B * H * W * 4 * 1 * 9),
    "depthwise, two a channel": (nn.Conv2d(4, 8, 3, padding=1, groups=4), B * H * W * 8 * 1 * 9),
    "stride": (nn.Conv2d(4, 8, 3, stride=2, padding=1), B * 3 * 3 * 8 * 4 * 9),
    "transposed": (nn.ConvTranspose2d(4, 8, 3), B * H * W * 4 * 8 * 9),
    "transposed, grouped": (nn.ConvTranspose2d(4, 8, 3, groups=2), B * H * W * 4 * 4 * 9),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_each_gradient_of_a_convolution_costs_a_forward_pass(name):
    layer, by_hand = CONVOLUTIONS[name]
    assert of_convolution(layer, torch.randn(B, 4, H, W), True) == (by_hand, 2 * by_hand)
    assert of_convolution(layer, torch.randn(B, 4, H, W), False) == (by_hand, by_hand)  # the first layer's


def test_torch_overcounts_the_weight_gradient_of_grouped_convolutions():
    layer, by_hand = CONVOLUTIONS["depthwise"]
    inputs = torch.randn(B, 4, H, W, requires_grad=True)
    assert by_torch(lambda: layer(inputs).sum().backward()) == (1 + 1 + 4) * by_hand  # 4 groups
    assert count_macs(lambda: layer(inputs).sum().backward()) == 3 * by_hand
    plain, by_hand = CONVOLUTIONS["plain"]
    assert by_torch(lambda: plain(inputs).sum().backward()) == 3 * by_hand


def test_a_gradient_that_is_not_required_is_not_counted():
    layer = nn.Conv2d(4, 8, 3, padding=1, groups=2).requires_grad_(False)
    inputs = torch.randn(B, 4, H, W, requires_grad=True)
    forward = B * H * W * 8 * 2 * 9
    assert count_macs(lambda: layer(inputs).sum().backward()) == 2 * forward


def test_linear_layers_and_batched_products():
    layer = nn.Linear(5, 3)
    images = torch.randn(4, 7, 5, requires_grad=True)
    assert count_macs(lambda: layer(images)) == 4 * 7 * 5 * 3
    assert count_macs(lambda: layer(images).sum().backward()) == 3 * 4 * 7 * 5 * 3
    left, right = torch.randn(6, 2, 5), torch.randn(6, 5, 3)
    assert count_macs(lambda: left @ right) == 6 * 2 * 5 * 3
    assert count_macs(lambda: (left.relu() + 1).softmax(dim=2)) == 0


def test_composite_operations_in_inference_mode():
    layer, query = nn.Linear(5, 3), torch.randn(2, 4, 16, 8)
    with torch.inference_mode():
        assert count_macs(lambda: layer(torch.randn(7, 5))) == 7 * 5 * 3
        counted = count_macs(lambda: F.scaled_dot_product_attention(query, query, query))
    assert counted == 2 * 2 * 4 * 16 * 16 * 8


def test_the_fast_path_of_attention_layers_is_off():
    """In inference they would run as one kernel without a formula."""
    layer, tokens = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True).eval(), torch.randn(2, 5, 16)
    trained = count_macs(lambda: layer(tokens))
    with torch.inference_mode():
        assert count_macs(lambda: layer(tokens)) == trained > 2 * 5 * 16 * (4 * 16 + 2 * 32)
    assert torch.backends.mha.get_fastpath_enabled()


SCORES = 2 * 4 * 16 * 12 * 8
"""Queries 2,4,16,8 by keys 2,4,12,8; values have the same width."""


@pytest.mark.parametrize(("backend", "backward"), [(SDPBackend.FLASH_ATTENTION, 5), (SDPBackend.MATH, 4)])
def test_attention_in_each_cpu_kernel(backend, backward):
    """Two products forward; their gradients, and the recomputed scores, backward."""
    query, key, value = (torch.randn(2, 4, n, 8, requires_grad=True) for n in (16, 12, 12))
    with sdpa_kernel(backend):
        assert count_macs(lambda: F.scaled_dot_product_attention(query, key, value)) == 2 * SCORES
        both = count_macs(lambda: F.scaled_dot_product_attention(query, key, value).sum().backward())
    assert both == (2 + backward) * SCORES


def test_attention_in_gpu_kernels():
    """Called directly, without a GPU."""
    names = ("flash_attention", "efficient_attention", "cudnn_attention", "fused_attention_overrideable")
    query, key, value = (torch.empty(2, 4, n, 8, device="meta") for n in (16, 12, 12))
    for name in names:
        forward = OWN_FORMULAS[getattr(aten, f"_scaled_dot_product_{name}")]
        backward = OWN_FORMULAS[getattr(aten, f"_scaled_dot_product_{name}_backward")]
        assert forward(query, key, value, None, True) == 2 * SCORES
        assert backward(query, query, key, value, query, None) == 5 * SCORES


def test_autocast_and_counting_change_nothing():
    layer, inputs = nn.Conv2d(4, 8, 3), torch.randn(2, 4, 8, 8)
    expected = layer(inputs)
    with MacCounter() as counter:
        assert torch.equal(layer(inputs), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert count_macs(lambda: layer(inputs)) == counter.total > 0
