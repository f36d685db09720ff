"""The loss around weights, compared with a function whose rise is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.evaluation import sharpness
from fgvc_cli.evaluation.loss_surface import filter_normalized_direction, random_direction
from fgvc_cli.evaluation.sharpness import MULTIPLES, RANDOM_DIRECTIONS, SharpnessSettings, measure


def settings(**options: Any) -> SharpnessSettings:
    return SharpnessSettings(**{"points": 5, **options})


class Bowl:
    """Replaces the loss by c + b'w + w'Aw / 2 of the weights w, in double precision."""

    def __init__(self, network: nn.Module, slope: float, count: int) -> None:
        self.network, self.images = network, count
        rng = np.random.default_rng(0)
        half = rng.normal(size=(9, 9))
        self.curvature, self.slope = torch.from_numpy(half @ half.T), slope * torch.from_numpy(rng.normal(size=9))

    def __len__(self) -> int:
        return self.images

    def value(self, w: torch.Tensor) -> torch.Tensor:
        return 2 + self.slope @ w + w @ self.curvature @ w / 2

    def losses(self) -> torch.Tensor:
        return self.value(flat(self.network)).detach().repeat(self.images)

    def gradient(self, parameters: list[torch.Tensor], passes: int) -> list[torch.Tensor]:
        return list(torch.autograd.grad(self.value(flat(self.network)), parameters))


def flat(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.flatten() for parameter in network.parameters()])


@pytest.fixture
def bowl(ready, monkeypatch):
    """Function that replaces the loss by a bowl over the six weights and three biases of a layer."""

    def make(slope: float = 1.0, at: float = 0.3) -> Bowl:
        network = nn.Linear(2, 3).double()
        nn.init.constant_(network.bias, at)
        nn.init.constant_(network.weight, at)
        network.class_names = ("a", "b", "c")
        object.__setattr__(ready, "classifier", network)
        found = Bowl(network, slope, 4)
        monkeypatch.setattr(sharpness, "LossSurface", lambda *_: found)
        return found

    return make


def test_the_rise_along_the_gradient_has_its_closed_form(ready, bowl, bar) -> None:
    surface = bowl()
    w = flat(surface.network).detach()
    g = surface.slope + surface.curvature @ w
    found = measure(ready, [], settings(rho=0.2), bar())
    assert found.gradient_norm == pytest.approx(float(g.norm()), rel=1e-9)
    assert found.loss == pytest.approx(float(surface.value(w)), rel=1e-12)
    for multiple, rise in zip(MULTIPLES, found.uphill_rises(found.gradient), strict=True):
        radius = 0.2 * multiple
        expected = radius * g.norm() + radius**2 / 2 * (g @ surface.curvature @ g) / g.norm() ** 2
        assert rise == pytest.approx(float(expected), rel=1e-9)


def test_the_adaptive_rise_follows_its_formula(ready, bowl, bar) -> None:
    surface = bowl()
    w = flat(surface.network).detach()
    g = surface.slope + surface.curvature @ w
    step = w**2 * g / (w.abs() * g).norm()
    found = measure(ready, [], settings(adaptive_rho=0.5), bar())
    assert found.uphill_rises(found.adaptive)[1] == pytest.approx(
        float(surface.value(w + 0.5 * step) - surface.value(w))
    )
    assert measure(ready, [], settings(), bar()).adaptive is None


def test_the_slope_cancels_in_the_mean_of_both_sides(ready, bowl, bar) -> None:
    surface = bowl()
    found = measure(ready, [], settings(rho=0.2, seed=3), bar())
    generator = torch.Generator().manual_seed(3)
    assert found.random.shape == (RANDOM_DIRECTIONS, 2 * len(MULTIPLES))
    for rises in found.random_rises():
        direction = torch.cat(
            [part.flatten() for part in random_direction(list(surface.network.parameters()), generator)]
        )
        curved = float(direction @ surface.curvature @ direction) / 2
        assert rises.tolist() == pytest.approx([(0.2 * multiple) ** 2 * curved for multiple in MULTIPLES], rel=1e-6)


def test_the_first_direction_of_the_plane_is_along_its_rows(ready, bowl, bar) -> None:
    surface = bowl()
    weights = [parameter.detach().clone() for parameter in surface.network.parameters()]
    found = measure(ready, [], settings(seed=3), bar())
    generator = torch.Generator().manual_seed(3)
    for _ in range(RANDOM_DIRECTIONS):
        random_direction(weights, generator)
    x, y = (torch.cat([part.flatten() for part in filter_normalized_direction(weights, generator)]) for _ in range(2))
    w = flat(surface.network).detach()
    for row, b in enumerate((-1, -0.5, 0, 0.5, 1)):
        for column, a in enumerate((-1, -0.5, 0, 0.5, 1)):
            assert found.plane[row, column] == pytest.approx(float(surface.value(w + a * x + b * y)), rel=1e-6)
    assert found.plane[2, 2] == found.loss


def test_the_initial_rise_of_a_cross_entropy_is_the_gradient_norm(ready, colored, bar) -> None:
    found = measure(ready, colored(), settings(rho=1e-3), bar())
    assert found.uphill_rises(found.gradient)[0] / 0.5e-3 == pytest.approx(found.gradient_norm, rel=0.03)
    assert (found.images, found.classes, found.parameters) == (6, 3, 6)


def test_weights_modes_and_random_state_are_restored(ready, colored, bar) -> None:
    classifier = ready.classifier.train()
    classifier.head.frozen.eval()
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    random_numbers = torch.get_rng_state()
    measure(ready, colored(), settings(), bar())
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.state_dict().items())
    assert classifier.training and not classifier.head.frozen.training
    assert torch.equal(torch.get_rng_state(), random_numbers)


def test_the_progress_counts_all_passes(ready, colored, bar) -> None:
    for options in ({}, {"adaptive_rho": 1.0, "points": 3}):
        shown, wanted = bar(), settings(**options)
        measure(ready, colored(), wanted, shown)
        assert shown.done == 6 * wanted.passes
    assert list(shown.stages) == ["at the weights", "along the gradient", "random directions", "plane"]


def stop() -> None:
    raise KeyboardInterrupt


def test_an_interruption_keeps_the_lines_and_restores_the_weights(ready, colored, bar) -> None:
    whole, before = measure(ready, colored(), settings(), bar()), flat(ready.classifier).clone()
    cut = measure(ready, colored(), settings(), bar("plane", stop))
    assert cut.plane is None and np.array_equal(cut.random, whole.random)
    with pytest.raises(KeyboardInterrupt):
        measure(ready, colored(), settings(), bar("random directions", stop))
    assert torch.equal(flat(ready.classifier), before)


def test_a_non_finite_loss_at_the_weights_is_refused(ready, colored, bar) -> None:
    with torch.no_grad():
        ready.classifier.backbone.norm.weight.fill_(float("inf"))
    with pytest.raises(FgvcError, match="runs/colors.*not finite"):
        measure(ready, colored(), settings(), bar())


def test_a_loss_may_overflow_away_from_the_weights(ready, bowl, bar, monkeypatch) -> None:
    surface = bowl()
    real = surface.value
    monkeypatch.setattr(surface, "value", lambda w: torch.where(real(w) > 20, torch.inf, real(w)))
    found = measure(ready, [], settings(rho=1.0), bar())
    assert np.isinf(found.uphill_rises(found.gradient)[-1]) and np.isfinite(found.uphill_rises(found.gradient)[0])


def test_bf16_is_close_to_fp32(ready, colored, bar) -> None:
    exact = measure(ready, colored(), settings(rho=0.5), bar())
    object.__setattr__(ready, "precision", "bf16")
    rough = measure(ready, colored(), settings(rho=0.5), bar())
    assert rough.gradient == pytest.approx(exact.gradient, rel=0.02)


@pytest.mark.parametrize(
    ("name", "value"),
    [("rho", -1.0), ("rho", float("nan")), ("adaptive_rho", 0.0), ("points", 1), ("points", 6), ("limit", 0)],
)
def test_values_out_of_range_are_refused(name, value) -> None:
    with pytest.raises(UsageError, match=f"{name}="):
        SharpnessSettings(**{name: value})
