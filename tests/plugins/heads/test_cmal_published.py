"""State dicts in the layout of CMAL's public code: its names and shapes, and its forward pass in plain functions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fgvc_cli.contracts import BackboneInfo
from fgvc_heads.cmal import CmalHead
from fgvc_heads.options import CmalOptions

CLASSES, EXPERT, MAP, HIDDEN = 5, 6, 8, 7


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    entries = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (width,))
    return {f"{name}.{entry}": shape for entry, shape in {**entries, "num_batches_tracked": ()}.items()}


def classifier(name: str, width: int, classes: int) -> dict[str, tuple[int, ...]]:
    shapes = norm(f"{name}.0", width) | norm(f"{name}.2", HIDDEN)
    shapes |= {f"{name}.1.weight": (HIDDEN, width), f"{name}.1.bias": (HIDDEN,)}
    return shapes | {f"{name}.4.weight": (classes, HIDDEN), f"{name}.4.bias": (classes,)}


def public_state(info: BackboneInfo, classes: int = CLASSES) -> dict[str, Tensor]:
    """Write the state dict of its network on a torchvision ResNet with such maps."""
    shapes: dict[str, tuple[int, ...]] = {
        "Features.net_layer_0.0.weight": (4, 3, 7, 7),
        **norm("Features.net_layer_1.0", 4),
        "Features.net_layer_4.0.conv1.weight": (4, 4, 1, 1),
        "Features.net_layer_6.5.downsample.0.weight": (4, 4, 1, 1),
        **norm("Features.net_layer_7.2.bn3", 4),
    }
    for number, found in enumerate(info.maps[-3:], start=1):
        shapes[f"conv_block{number}.0.conv.weight"] = (EXPERT, found.channels, 1, 1)
        shapes[f"conv_block{number}.1.conv.weight"] = (MAP, EXPERT, 3, 3)
        shapes |= norm(f"conv_block{number}.0.bn", EXPERT) | norm(f"conv_block{number}.1.bn", MAP)
        shapes |= classifier(f"classifier{number}", MAP, classes)
    shapes |= classifier("classifier_concat", 3 * MAP, classes)
    generator = torch.Generator().manual_seed(7)
    state = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator) * 0.4
        state[name] = value.abs() + 0.5 if name.endswith("running_var") else value
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(3)
    return state


def public_forward(state: dict[str, Tensor], maps: list[Tensor]) -> list[Tensor]:
    """Compute the four scores from its tensors, by the method notes."""

    def normalized(name: str, x: Tensor) -> Tensor:
        entries = (state[f"{name}.{entry}"] for entry in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *entries)

    def scores(name: str, x: Tensor) -> Tensor:
        hidden = F.linear(normalized(f"{name}.0", x), state[f"{name}.1.weight"], state[f"{name}.1.bias"])
        return F.linear(F.elu(normalized(f"{name}.2", hidden)), state[f"{name}.4.weight"], state[f"{name}.4.bias"])

    pooled = []
    for number, x in enumerate(maps, start=1):
        for block, padding in ((0, 0), (1, 1)):
            name = f"conv_block{number}.{block}"
            x = normalized(f"{name}.bn", F.conv2d(x, state[f"{name}.conv.weight"], padding=padding)).relu()
        pooled.append(x.amax((2, 3)))
    of_experts = [scores(f"classifier{number}", x) for number, x in enumerate(pooled, start=1)]
    return [*of_experts, scores("classifier_concat", torch.cat(pooled, dim=1))]


@pytest.fixture
def info(cnn) -> BackboneInfo:
    """A backbone with the last three of the odd grids, of strides 4, 8 and 16."""
    return replace(cnn, maps=cnn.maps[:3])


def head_on(info: BackboneInfo, **options) -> CmalHead:
    settings = {"expert_width": EXPERT, "map_channels": MAP, "hidden_width": HIDDEN, **options}
    return CmalHead(info, CLASSES, CmalOptions(**settings)).eval()


def test_the_head_computes_what_the_public_tensors_do(info, features_of):
    state, head = public_state(info), head_on(info)
    parts = head.published(state)
    assert parts.head.keys() == head.state_dict().keys()
    head.load_state_dict(parts.head)
    assert (parts.classes, parts.advice, parts.normalization) == (CLASSES, "", ((0.5,) * 3, (0.5,) * 3))
    features = features_of(info, 3)
    with torch.no_grad():
        ours = head(features)
        theirs = public_forward(state, list(features.maps.values()))
    for mine, reference in zip([*ours.expert_scores, ours.concat_scores], theirs, strict=True):
        assert mine.std() > 0.05
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-5)


def test_a_tresnets_children_get_their_names(info):
    state = {name: value for name, value in public_state(info).items() if not name.startswith("Features.")}
    state |= {
        "Features.net_layer_1.0.weight": torch.ones(1),
        "Features.net_layer_2.0.conv1.0.weight": torch.ones(1),
        "Features.net_layer_5.1.conv2.1.running_var": torch.ones(1),
    }
    assert head_on(info).published(state).backbone.keys() == {
        "body.conv1.0.weight", "body.layer1.0.conv1.0.weight", "body.layer4.1.conv2.1.running_var",
    }  # fmt: skip


def test_required_settings_are_named(info):
    assert head_on(info).published({"conv1.weight": torch.ones(1)}) is None
    parts = head_on(info, map_channels=16, hidden_width=9).published(public_state(info, classes=9))
    assert parts.advice == "the file was trained with `head.map_channels=8`, `head.hidden_width=7`"
    assert parts.classes == 9
    wider = replace(info, maps=tuple(replace(m, channels=2 * m.channels) for m in info.maps))
    advice = head_on(wider).published(public_state(info)).advice
    assert "a backbone whose three maps have 4, 6, 8 channels (those of fake have 8, 12, 16)" in advice
