"""The loss of images as a function of the weights: moving them, directions, losses and gradients."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fgvc_cli.contracts import Split
from fgvc_cli.errors import FgvcError
from fgvc_cli.evaluation import loss_surface
from fgvc_cli.evaluation.loss_surface import (
    LossSurface,
    adaptive_ascent,
    ascent,
    filter_normalized_direction,
    means,
    movable,
    norm,
    random_direction,
    read_images,
)


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
def test_weights_are_restored_bit_for_bit_even_after_an_error(network, error) -> None:
    before, places = bits(network), [parameter.data_ptr() for parameter in network.parameters()]
    with pytest.raises(error) if error is not None else nullcontext(), movable(network) as weights:
        weights.move((0.1, [torch.ones_like(weight) for weight in weights.origin]))
        assert bits(network) != before
        if error is not None:
            raise error
    assert bits(network) == before
    assert [parameter.data_ptr() for parameter in network.parameters()] == places


def test_moves_start_from_the_original_weights(network) -> None:
    with movable(network) as weights:
        ones, twos = ([torch.full_like(weight, value) for weight in weights.origin] for value in (1.0, 2.0))
        weights.move((100.0, ones))
        weights.move((0.5, ones), (-3.0, twos))
        for parameter, origin in zip(weights.parameters, weights.origin, strict=True):
            torch.testing.assert_close(parameter.detach(), origin - 5.5)
        weights.move()
        assert all(torch.equal(p, o) for p, o in zip(weights.parameters, weights.origin, strict=True))


def test_frozen_parameters_do_not_move(network) -> None:
    with movable(network) as weights:
        assert len(weights.parameters) == len(list(network.parameters())) - 1
        bias = network[2].bias.clone()
        weights.move((1.0, [torch.ones_like(weight) for weight in weights.origin]))
        assert torch.equal(network[2].bias, bias)


class CachedBias(nn.Module):
    """Keeps its bias in evaluation mode, as timm's LeViT does."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))
        self.kept: torch.Tensor | None = None

    def train(self, mode: bool = True) -> CachedBias:
        self.kept = None
        return super().train(mode)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.kept is None:
            self.kept = 2 * self.bias
        return images + self.kept.view(3, 1, 1)


def test_weights_that_modules_keep_in_evaluation_mode_move_and_have_a_gradient(ready, colored) -> None:
    bias = CachedBias().eval()
    ready.classifier.backbone.norm = nn.Sequential(ready.classifier.backbone.norm, bias).eval()
    surface = LossSurface(ready, colored(6, 3), lambda n: None)
    with movable(ready.classifier) as weights:
        surface.losses()  # keeps a bias without a gradient
        gradient = surface.gradient(weights.parameters, 3)
        index = next(i for i, parameter in enumerate(weights.parameters) if parameter is bias.bias)
        assert gradient[index].any()
        step = [torch.zeros_like(weight) for weight in weights.origin]
        step[index] = gradient[index]
        moved = []
        for length in (1e-3, -1e-3):  # of both sides, so that the curvature drops out
            weights.move((length, step))
            moved.extend(means([surface.losses()]))
        assert (moved[0] - moved[1]) / 2e-3 == pytest.approx(float(gradient[index].square().sum()), rel=0.02)
    assert bias.kept is None and not bias.training


@pytest.fixture
def weights() -> list[torch.Tensor]:
    """A convolution, its bias, a linear layer, and tokens as a ViT has them."""
    generator = torch.Generator().manual_seed(3)
    shapes = ((4, 3, 5, 5), (4,), (6, 10), (1, 7, 8))
    return [torch.randn(shape, generator=generator) * (1 + index) for index, shape in enumerate(shapes)]


def flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def test_the_ascent_direction_has_one_norm_over_all_parameters() -> None:
    gradient = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0], [12.0]])]
    assert flat(ascent(gradient)).tolist() == pytest.approx([3 / 13, 0, 4 / 13, 12 / 13])
    assert float(norm(gradient)) == 13
    assert gradient[0].tolist() == [3, 0]  # it is still needed


def test_the_adaptive_direction_follows_its_formula(weights) -> None:
    gradient = [torch.cos(weight) for weight in weights]
    kept = flat(gradient).clone()
    w, g = flat(weights).double(), flat(gradient).double()
    expected = w**2 * g / (w.abs() * g).norm()
    torch.testing.assert_close(flat(adaptive_ascent(gradient, weights)).double(), expected, rtol=1e-5, atol=1e-7)
    assert torch.equal(flat(gradient), kept)


def test_random_directions_have_norm_1_and_depend_on_the_seed(weights) -> None:
    draw = [random_direction(weights, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    assert float(norm(draw[0])) == pytest.approx(1, abs=1e-6)
    assert torch.equal(flat(draw[0]), flat(draw[1])) and not torch.equal(flat(draw[0]), flat(draw[2]))
    assert [direction.shape for direction in draw[0]] == [weight.shape for weight in weights]


def test_filters_have_the_norms_of_the_network(weights) -> None:
    conv, bias, linear, tokens = filter_normalized_direction(weights, torch.Generator().manual_seed(1))
    for j in range(4):
        assert float(conv[j].norm()) == pytest.approx(float(weights[0][j].norm()), rel=1e-5)
    for j in range(6):
        assert float(linear[j].norm()) == pytest.approx(float(weights[2][j].norm()), rel=1e-5)
    assert float(tokens.norm()) == pytest.approx(float(weights[3].norm()), rel=1e-5)
    assert bias.tolist() == [0] * 4


def test_the_memory_format_is_kept(weights) -> None:
    last = [weights[0].to(memory_format=torch.channels_last)]
    for draw in (random_direction, filter_normalized_direction):
        (plain,), (channels_last,) = (draw(w, torch.Generator().manual_seed(2)) for w in (weights[:1], last))
        torch.testing.assert_close(channels_last, plain)
        assert channels_last.is_contiguous(memory_format=torch.channels_last)


def counting(ready, batches):
    passed: list[int] = []
    return LossSurface(ready, batches, passed.append), passed


def test_losses_are_the_cross_entropy_of_each_image(ready, colored) -> None:
    found, passed = counting(ready, colored(6, 4))
    pixels, labels = (torch.cat(tensors) for tensors in zip(*colored(6, 4), strict=True))
    classifier = ready.classifier
    expected = F.cross_entropy(classifier.scores(classifier.normalize(pixels)), labels, reduction="none")
    torch.testing.assert_close(found.losses(), expected.detach())
    assert (len(found), passed) == (6, [4, 2])


def test_the_gradient_does_not_depend_on_the_batches(ready, colored) -> None:
    parameters = list(ready.classifier.parameters())
    whole, passed = counting(ready, colored(6, 6))
    parts, _ = counting(ready, colored(6, 4))
    gradient = whole.gradient(parameters, passes=3)
    for one, several in zip(gradient, parts.gradient(parameters, passes=3), strict=True):
        torch.testing.assert_close(one, several)
    assert passed == [18]
    assert all(parameter.grad is None for parameter in parameters)
    pixels, labels = colored(6, 6)[0]
    F.cross_entropy(ready.classifier.scores(ready.classifier.normalize(pixels)), labels).backward()
    for parameter, found in zip(parameters, gradient, strict=True):
        torch.testing.assert_close(found, parameter.grad)


def test_unused_parameters_have_a_gradient_of_0(ready, colored) -> None:
    unused = torch.nn.Parameter(torch.ones(2))
    gradient = LossSurface(ready, colored(), lambda _: None).gradient([*ready.classifier.parameters(), unused], 3)
    assert gradient[-1].tolist() == [0, 0] and float(gradient[0].abs().sum()) > 0


def test_scores_without_a_gradient_are_refused(ready, colored, monkeypatch) -> None:
    real = type(ready.classifier.head).predict
    monkeypatch.setattr(type(ready.classifier.head), "predict", lambda *a: real(*a).detach())
    with pytest.raises(FgvcError, match="runs/colors.*no gradient"):
        LossSurface(ready, colored(), lambda _: None).gradient(list(ready.classifier.parameters()), 3)


def test_losses_do_not_synchronize_with_the_device(ready, colored, strict_device) -> None:
    found = LossSurface(ready, colored(), lambda _: None)
    with strict_device() as counted:
        losses = [found.losses()]
        found.gradient(list(ready.classifier.parameters()), 3)
    assert counted.operations
    assert means(losses).shape == (1,)


def split_of(count: int) -> Split:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (4, 4, 3), np.uint8) for _ in range(count)]
    return Split("train", images, [i % 3 for i in range(count)], [f"{i}.png" for i in range(count)])


def test_unreadable_images_are_skipped_and_reported(ready, tmp_path) -> None:
    (tmp_path / "broken.png").write_bytes(b"broken")
    split = split_of(2)
    partly = Split("train", [split.images[0], tmp_path / "broken.png"], [0, 1], ["a", "b"])
    batches, failures = read_images(ready, partly, lambda _: None)
    assert sum(len(labels) for _, labels in batches) == 1 and set(failures) == {"b"}
    with pytest.raises(FgvcError, match=r"runs/colors: none of the 1 images \(train\) can be read"):
        read_images(ready, Split("train", [tmp_path / "broken.png"], [1], ["b"]), lambda _: None)


def test_many_images_stay_in_host_memory(ready, monkeypatch) -> None:
    asked = []
    real = torch.Tensor.to

    def to(tensor, place, *_, **__):
        asked.append(place)
        return real(tensor, "cpu")

    monkeypatch.setattr(loss_surface, "KEPT_BYTES", 100)
    monkeypatch.setattr(type(ready.classifier), "device", torch.device("meta"))
    monkeypatch.setattr(torch.Tensor, "to", to)
    read_images(ready, split_of(4), lambda _: None)
    assert asked == [torch.device("cpu"), torch.device("meta")]  # pixels, labels
