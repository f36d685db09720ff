"""Directions against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fgvc_cli.evaluation.loss_surface import (
    adaptive_ascent,
    ascent,
    filter_normalized_direction,
    norm,
    random_direction,
)


@pytest.fixture
def weights() -> list[torch.Tensor]:
    """A convolution, its bias, a linear layer, and tokens as a ViT has them."""
    generator = torch.Generator().manual_seed(3)
    shapes = ((4, 3, 5, 5), (4,), (6, 10), (1, 7, 8))
    return [torch.randn(shape, generator=generator) * (1 + index) for index, shape in enumerate(shapes)]


def flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def test_the_climb_has_one_norm_over_all_parameters() -> None:
    gradient = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0], [12.0]])]
    assert flat(ascent(gradient)).tolist() == pytest.approx([3 / 13, 0, 4 / 13, 12 / 13])
    assert float(norm(gradient)) == 13
    assert gradient[0].tolist() == [3, 0]  # it is still needed


def test_no_gradient_is_no_climb() -> None:
    zeros = [torch.zeros(3), torch.zeros(2, 2)]
    assert flat(ascent(zeros)).tolist() == flat(adaptive_ascent(zeros, zeros)).tolist() == [0] * 7


def test_the_adaptive_climb_is_that_of_its_formula(weights) -> None:
    gradient = [torch.cos(weight) for weight in weights]
    kept = flat(gradient).clone()
    w, g = flat(weights).double(), flat(gradient).double()
    expected = w**2 * g / (w.abs() * g).norm()
    torch.testing.assert_close(flat(adaptive_ascent(gradient, weights)).double(), expected, rtol=1e-5, atol=1e-7)
    assert torch.equal(flat(gradient), kept)


def rises(network: nn.Sequential, inputs: torch.Tensor, radius: float) -> tuple[float, float]:
    """How far the loss rises along the gradient, and along the adaptive direction."""
    parameters = list(network.parameters())
    at = [parameter.detach().clone() for parameter in parameters]
    loss = network(inputs).square().mean()
    gradient = list(torch.autograd.grad(loss, parameters))
    found = []
    for direction in (ascent(gradient), adaptive_ascent(gradient, at)):
        with torch.no_grad():
            for parameter, origin, step in zip(parameters, at, direction, strict=True):
                parameter.copy_(origin + radius * step)
            found.append(float(network(inputs).square().mean() - loss))
            for parameter, origin in zip(parameters, at, strict=True):
                parameter.copy_(origin)
    return found[0], found[1]


def test_the_adaptive_rise_does_not_depend_on_how_layers_are_scaled() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False)).double()
    inputs = torch.randn(16, 5, dtype=torch.float64)
    plain, adaptive = rises(network, inputs, 0.1)
    with torch.no_grad():  # the same function (Dinh et al. 2017, section 3)
        network[0].weight.mul_(4)
        network[2].weight.div_(4)
    scaled_plain, scaled_adaptive = rises(network, inputs, 0.1)
    assert scaled_adaptive == pytest.approx(adaptive, rel=1e-6)
    assert abs(scaled_plain / plain - 1) > 0.1


def test_random_directions_have_norm_1_and_follow_from_the_seed(weights) -> None:
    draw = [random_direction(weights, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    assert float(norm(draw[0])) == pytest.approx(1, abs=1e-6)
    assert torch.equal(flat(draw[0]), flat(draw[1])) and not torch.equal(flat(draw[0]), flat(draw[2]))
    assert [direction.shape for direction in draw[0]] == [weight.shape for weight in weights]


def test_each_filter_gets_the_norm_of_the_networks_own(weights) -> None:
    conv, bias, linear, tokens = filter_normalized_direction(weights, torch.Generator().manual_seed(1))
    for j in range(4):
        assert float(conv[j].norm()) == pytest.approx(float(weights[0][j].norm()), rel=1e-5)
    for j in range(6):
        assert float(linear[j].norm()) == pytest.approx(float(weights[2][j].norm()), rel=1e-5)
    assert float(tokens.norm()) == pytest.approx(float(weights[3].norm()), rel=1e-5)
    assert bias.tolist() == [0] * 4


def test_a_filter_is_a_random_one_made_longer_or_shorter(weights) -> None:
    drawn = torch.randn((4, 3, 5, 5), generator=torch.Generator().manual_seed(1))
    conv = filter_normalized_direction(weights, torch.Generator().manual_seed(1))[0]
    ratios = (conv / drawn).flatten(1)
    assert float((ratios - ratios[:, :1]).abs().max()) < 1e-5
    assert len(set(ratios[:, 0].tolist())) == 4  # each filter by its own factor


def test_a_filter_of_zeros_stays_where_it_is() -> None:
    weights = [torch.stack([torch.zeros(3), torch.ones(3)])]
    (direction,) = filter_normalized_direction(weights, torch.Generator().manual_seed(0))
    assert direction[0].tolist() == [0, 0, 0] and float(direction[1].norm()) == pytest.approx(3**0.5)


def test_the_memory_format_changes_nothing_but_is_kept(weights) -> None:
    last = [weights[0].to(memory_format=torch.channels_last)]
    for draw in (random_direction, filter_normalized_direction):
        (plain,), (channels_last,) = (draw(w, torch.Generator().manual_seed(2)) for w in (weights[:1], last))
        torch.testing.assert_close(channels_last, plain)
        assert channels_last.is_contiguous(memory_format=torch.channels_last)
