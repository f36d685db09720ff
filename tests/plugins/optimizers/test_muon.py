"""`muon`: which parameters it orthogonalizes, and that its update is the published one."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from fgvc_cli.contracts import ParameterGroup
from fgvc_optimizers.muon import Muon, is_hidden_matrix
from fgvc_optimizers.options import MuonOptions


@pytest.fixture
def weights() -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    shapes = {
        "stem.weight": (8, 3, 3, 3),
        "block.conv.weight": (8, 6, 3, 3),
        "block.depthwise.weight": (8, 1, 3, 3),
        "block.linear.weight": (6, 16),
        "block.bias": (6,),
    }
    return {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}


def orthogonalized(matrix: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz with Jordan's coefficients, in bfloat16."""
    x = matrix.bfloat16() if matrix.shape[0] <= matrix.shape[1] else matrix.bfloat16().T
    x = x / x.norm()
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x if matrix.shape[0] <= matrix.shape[1] else x.T).float()


def test_the_rule(given, weights):
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    start = dict(before)
    optimizer = Muon([ParameterGroup("backbone", weights, 0.5)], MuonOptions(lr=0.02, weight_decay=0.1))
    plain = {name: nn.Parameter(before[name].clone()) for name in weights}
    adamw = torch.optim.AdamW(
        [{"params": [p], "weight_decay": 0.1 if p.ndim > 1 else 0} for p in plain.values()], lr=0.01, betas=(0.9, 0.95)
    )
    momentum = {name: torch.zeros_like(weight) for name, weight in before.items()}
    for seed in range(3):
        optimizer.step(given(weights, seed))
        given(plain, seed)()
        adamw.step()
        for name in ("block.conv.weight", "block.linear.weight"):
            gradient = plain[name].grad  # the same; timm 1.0.27 changes that of its own parameters in place
            momentum[name] = 0.95 * momentum[name] + 0.05 * gradient
            matrix = (0.05 * gradient + 0.95 * momentum[name]).flatten(1)
            update = 0.2 * max(matrix.shape) ** 0.5 * orthogonalized(matrix).view_as(gradient)
            before[name] = before[name] - 0.01 * (0.1 * before[name] + update)
    for name, weight in weights.items():
        if name in ("block.conv.weight", "block.linear.weight"):
            assert (weight - before[name]).norm() < 0.02 * (weight - start[name]).norm()  # bfloat16 products
        else:
            torch.testing.assert_close(weight.data, plain[name].data, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch 2.9 or later")
def test_on_matrices_it_is_torchs(given):
    torch.manual_seed(0)
    ours, theirs = ({"qkv.weight": nn.Parameter(torch.randn(12, 20).clone())} for _ in range(2))
    theirs["qkv.weight"].data.copy_(ours["qkv.weight"].data)
    optimizer = Muon([ParameterGroup("backbone", ours)], MuonOptions(lr=0.02, weight_decay=0.1))
    torchs = torch.optim.Muon(theirs.values(), lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for seed in range(4):
        optimizer.step(given(ours, seed))
        given(theirs, seed)()
        torchs.step()
    torch.testing.assert_close(ours["qkv.weight"].data, theirs["qkv.weight"].data, rtol=0, atol=3e-4)


@pytest.mark.parametrize(
    ("model", "hidden", "others"),
    [
        ("swin_tiny_patch4_window7_224", ["layers.0.blocks.0.attn.qkv.weight", "layers.1.downsample.reduction.weight"],
         ["patch_embed.proj.weight", "layers.0.blocks.0.attn.relative_position_bias_table", "norm.weight"]),
        ("efficientnet_lite0", ["blocks.1.0.conv_pw.weight", "conv_head.weight"],
         ["conv_stem.weight", "blocks.1.0.conv_dw.weight", "bn1.weight"]),
        ("vit_tiny_patch16_224", ["blocks.0.mlp.fc1.weight"], ["pos_embed", "cls_token", "blocks.0.mlp.fc1.bias"]),
    ],
)  # fmt: skip
def test_what_is_a_hidden_matrix(model, hidden, others):
    with torch.device("meta"):
        parameters = dict(timm.create_model(model, num_classes=0).named_parameters())
    for name in [*hidden, *others]:
        assert is_hidden_matrix(name, parameters[name]) == (name in hidden), name


def test_the_head_is_left_to_adamw(given):
    torch.manual_seed(0)
    ours, plain = ({"weight": nn.Parameter(torch.ones(5, 4))} for _ in range(2))
    optimizer = Muon([ParameterGroup("head", ours)], MuonOptions(lr=0.1, head_lr=0.01, weight_decay=0.2))
    adamw = torch.optim.AdamW(plain.values(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.2)
    for seed in range(3):
        optimizer.step(given(ours, seed))
        given(plain, seed)()
        adamw.step()
    torch.testing.assert_close(ours["weight"].data, plain["weight"].data)
