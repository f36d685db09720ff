"""What bf16 computes: the update of fp32 within its rounding, with weights, statistics and losses in fp32."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fgvc_cli.contracts import Classifier, Evaluation, Optimizer, Preprocessing
from fgvc_cli.devices import autocast, resolve_precision
from fgvc_cli.options import build
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.model_file import build_backbone, build_head
from fgvc_cli.training.update import Update

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
HEADS = {
    "linear": {},
    "pim": {"fpn_size": 16, "num_selects": 4},
    "cmal": {"expert_width": 16, "map_channels": 32, "hidden_width": 16},
}


class FirstObjective(Optimizer):
    """Keeps the gradient and the loss of the first objective; weights stay as they are."""

    def __init__(self) -> None:
        self.gradient: Tensor | None = None
        self.loss: Tensor | None = None

    def step(self, closure) -> Evaluation:
        evaluation = closure()
        if self.gradient is None:
            gradients = [p.grad.flatten() for p in closure.update.parameters if p.grad is not None]
            assert all(gradient.dtype == torch.float32 for gradient in gradients)
            self.gradient, self.loss = torch.cat(gradients), evaluation.losses[0].value.detach()
        return evaluation

    set_rate = rates = state_dict = load_state_dict = None


def first_objective(head: str, device: torch.device, precision: str) -> tuple[Tensor, Tensor, Classifier]:
    registry = get_registry()
    torch.manual_seed(0)
    body, top = registry.find("backbone", "timm/test_resnet"), registry.find("head", head)
    backbone = build_backbone(body, body.options_type()(), 64)
    built = build_head(top, build(top.options_type(), HEADS[head], "head"), backbone, 5)
    names, preprocessing = [str(k) for k in range(5)], Preprocessing(64, 64, backbone.info.mean, backbone.info.std)
    model = Classifier(backbone, built, names, preprocessing).to(device).train()
    optimizer = FirstObjective()
    update = Update(model, model.head, optimizer, partial(autocast, device, precision))
    images = torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(1)).to(device)
    update([(images, torch.arange(16, device=device) % 5)])
    return optimizer.gradient, optimizer.loss, model


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("head", HEADS)
def test_bf16_takes_the_step_of_fp32(device, head):
    device = torch.device(device)
    exact, loss, _ = first_objective(head, device, "fp32")
    rounded, rounded_loss, model = first_objective(head, device, "bf16")
    assert rounded_loss.dtype == torch.float32
    assert float(rounded_loss) == pytest.approx(float(loss), rel=0.02)
    assert F.cosine_similarity(exact, rounded, dim=0) > 0.9
    tensors = [*model.parameters(), *model.buffers()]
    assert all(tensor.dtype == torch.float32 for tensor in tensors if tensor.is_floating_point())


@pytest.mark.gpu
def test_auto_is_bf16_on_a_gpu_that_has_it():
    expected = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    assert resolve_precision("auto", torch.device("cuda")) == expected
