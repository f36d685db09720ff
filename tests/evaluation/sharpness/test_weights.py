"""Weights that were moved come back, bit for bit, whatever happened."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from fgvc_cli.evaluation.loss_surface import movable


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    network[0].weight.data = network[0].weight.data.to(memory_format=torch.channels_last)
    network[2].bias.requires_grad_(False)
    return network


def bits(network: nn.Module) -> list[bytes]:
    return [tensor.contiguous().numpy().tobytes() for tensor in network.state_dict().values()]


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_they_come_back_after_an_error_too(network, error) -> None:
    before, places = bits(network), [parameter.data_ptr() for parameter in network.parameters()]
    with pytest.raises(error) if error is not None else nullcontext(), movable(network) as weights:
        weights.move((0.1, [torch.ones_like(weight) for weight in weights.origin]))
        assert bits(network) != before
        if error is not None:
            raise error
    assert bits(network) == before
    assert [parameter.data_ptr() for parameter in network.parameters()] == places


def test_moves_start_from_the_weights_and_add_up_their_steps_alone(network) -> None:
    with movable(network) as weights:
        ones, twos = ([torch.full_like(weight, value) for weight in weights.origin] for value in (1.0, 2.0))
        weights.move((100.0, ones))
        weights.move((0.5, ones), (-3.0, twos))
        for parameter, origin in zip(weights.parameters, weights.origin, strict=True):
            torch.testing.assert_close(parameter.detach(), origin - 5.5)
        weights.move()
        assert all(torch.equal(p, o) for p, o in zip(weights.parameters, weights.origin, strict=True))


def test_what_training_does_not_move_stays(network) -> None:
    with movable(network) as weights:
        assert len(weights.parameters) == len(list(network.parameters())) - 1
        bias = network[2].bias.clone()
        weights.move((1.0, [torch.ones_like(weight) for weight in weights.origin]))
        assert torch.equal(network[2].bias, bias)
