"""Every built-in head has a loss whose rise can be measured, and weights that come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fgvc_cli.contracts import Classifier
from fgvc_cli.evaluation.loss_surface import LossSurface, means, movable
from fgvc_cli.evaluation.sharpness import SharpnessSettings, measure
from fgvc_cli.scoring.model import ReadyClassifier
from fgvc_cli.testing.models import spread_scores

SIZE, CLASSES = 64, 5
MODEL = Path("run/model.safetensors")
SMALL = {"pim": {"fpn_size": 16, "num_selects": 4}, "cmal": {"map_channels": 32, "expert_width": 16}}
ZERO_AT_FIRST = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.BatchNorm2d)
PAIRS = [
    ("timm/test_resnet", "pim"),
    ("timm/test_vit", "linear"),
    pytest.param("timm/test_resnet", "cmal", marks=pytest.mark.slow),
]


class Unwatched:
    def advance(self, n: int = 1, text: str = "") -> None:
        """Count nothing."""


@pytest.fixture
def small(classifier_of):
    """A function that makes a small classifier in which every weight has a say."""

    def make(backbone: str, head: str, size: int = SIZE) -> Classifier:
        classifier = classifier_of(backbone, head, size, CLASSES, SMALL.get(head))
        for module in classifier.modules():  # weights that are 0 at first leave those before them without a gradient
            if isinstance(module, ZERO_AT_FIRST) and not module.weight.abs().sum():
                torch.nn.init.normal_(module.weight, std=0.1)
        spread_scores(classifier)
        return classifier

    return make


@pytest.mark.parametrize(("backbone", "head"), PAIRS)
def test_the_rise_begins_with_the_gradients_norm_and_the_weights_come_back(small, backbone, head) -> None:
    classifier = small(backbone, head)
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    pixels = torch.randint(0, 256, (3, 3, SIZE, SIZE), dtype=torch.uint8)
    batches = [(pixels[:2], torch.arange(2)), (pixels[2:], torch.tensor([4]))]
    ready = ReadyClassifier(classifier.eval(), MODEL, "fp32", 4, 0)
    asked = SharpnessSettings(rho=2e-4, points=3)  # CMAL's regions jump further out
    found = measure(ready, batches, asked, Unwatched())
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.state_dict().items())
    # of both sides, so that the curvature drops out
    slope = (found.gradient[5] - found.gradient[4]) / 2e-4
    assert slope == pytest.approx(found.gradient_norm, rel=0.02) and found.gradient_norm > 0.01
    assert np.abs(found.random_rises()).max() < found.uphill_rises(found.gradient)[-1]
    assert len(np.unique(found.plane)) == 9 and np.isfinite(found.plane).all()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param("efficientvit_m0", 64, marks=pytest.mark.slow),
        pytest.param("efficientformer_l1", 224, marks=pytest.mark.slow),
        pytest.param("levit_128s", 64, marks=pytest.mark.slow),
        pytest.param("tiny_vit_5m_224", 64, marks=pytest.mark.slow),
    ],
)
def test_attention_biases_that_timm_keeps_in_evaluation_mode_move(small, name, size) -> None:
    ready = ReadyClassifier(small(f"timm/{name}", "linear", size).eval(), MODEL, "fp32", 4, 0)
    pixels = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    surface = LossSurface(ready, [(pixels, torch.arange(2))], lambda n: None)
    names = [name for name, parameter in ready.classifier.named_parameters() if parameter.requires_grad]
    with movable(ready.classifier) as weights:
        surface.losses()  # keeps the biases
        gradient = surface.gradient(weights.parameters, 3)
        step = [
            g if name.endswith("attention_biases") else torch.zeros_like(g)
            for name, g in zip(names, gradient, strict=True)
        ]
        squares = float(sum(g.square().sum() for g in step))
        assert squares > 0
        reach, losses = 1 / squares**0.5, []
        for length in (reach, -reach):  # of both sides, so that the curvature drops out
            weights.move((length, step))
            losses.extend(means([surface.losses()]))
    assert (losses[0] - losses[1]) / (2 * reach) == pytest.approx(squares, rel=0.05)


@pytest.mark.gpu
@pytest.mark.parametrize(("backbone", "head"), PAIRS[:3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_measures_what_a_cpu_does(small, backbone, head, precision) -> None:
    pixels, labels = torch.randint(0, 256, (6, 3, SIZE, SIZE), dtype=torch.uint8), torch.arange(6) % CLASSES
    asked = SharpnessSettings(rho=0.05, points=3)
    found = {}
    for device in ("cpu", "cuda"):
        ready = ReadyClassifier(small(backbone, head).to(device).eval(), MODEL, "fp32", 4, 0)
        if device == "cuda":
            object.__setattr__(ready, "precision", precision)
        found[device] = measure(ready, [(pixels.to(device), labels.to(device))], asked, Unwatched())
    tolerance = 2e-2 if precision == "fp32" else 0.2
    assert found["cuda"].loss == pytest.approx(found["cpu"].loss, rel=tolerance)
    assert found["cuda"].plane == pytest.approx(found["cpu"].plane, rel=tolerance)
