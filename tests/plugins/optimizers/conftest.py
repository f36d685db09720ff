"""A small model, closures that fill in given gradients, and both optimizers under one roof."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from fgvc_cli.contracts import Evaluation, ParameterGroup, TorchOptimizer
from fgvc_optimizers.adamw import AdamW
from fgvc_optimizers.muon import Muon
from fgvc_optimizers.options import AdamWOptions, MuonOptions, SgdOptions
from fgvc_optimizers.sgd import Sgd

TARGETS = {"sgd": (Sgd, SgdOptions), "adamw": (AdamW, AdamWOptions), "muon": (Muon, MuonOptions)}


@dataclass
class Given:
    """A closure that leaves gradients drawn from `seed` in the parameters; `bad` and `without` as a test wants."""

    parameters: dict[str, nn.Parameter]
    seed: int = 0
    found_inf: Tensor = field(default_factory=lambda: torch.zeros(()))
    without: tuple[str, ...] = ()

    def __call__(self) -> Evaluation:
        generator = torch.Generator().manual_seed(self.seed)
        for name, parameter in self.parameters.items():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.grad = None if name in self.without else torch.empty_like(parameter).copy_(drawn)
            if self.found_inf and parameter.grad is not None:
                parameter.grad[(0,) * parameter.ndim] = float("nan")
        return Evaluation([self.seed], [])

    def ascent(self) -> Evaluation:
        raise AssertionError("not for an optimizer of one pass")


@pytest.fixture(params=list(TARGETS))
def kind(request) -> str:
    return request.param


@pytest.fixture
def parameters() -> dict[str, nn.Parameter]:
    """A convolution (channels-last), a norm and a classifier."""
    torch.manual_seed(0)
    return {
        "conv.weight": nn.Parameter(torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last)),
        "norm.weight": nn.Parameter(torch.randn(4)),
        "classifier.weight": nn.Parameter(torch.randn(5, 4)),
        "classifier.bias": nn.Parameter(torch.randn(5)),
    }


@pytest.fixture
def make(kind) -> Callable[..., TorchOptimizer]:
    """Make an optimizer of either kind: `make(parameters, **options)`."""

    def build(parameters: dict[str, nn.Parameter], **options) -> TorchOptimizer:
        target, dataclass_of = TARGETS[kind]
        head = {name: p for name, p in parameters.items() if name.startswith("classifier")}
        backbone = {name: p for name, p in parameters.items() if name not in head}
        groups = [ParameterGroup("backbone", backbone), ParameterGroup("head", head)]
        return target(groups=groups, options=dataclass_of(**options))

    return build


@pytest.fixture
def given() -> type[Given]:
    return Given
