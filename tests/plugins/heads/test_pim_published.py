"""Checkpoints in the layout of PIM's public code: its names and shapes, and its forward pass in plain functions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fgvc_cli import FgvcError
from fgvc_cli.contracts import BackboneInfo
from fgvc_heads.options import PimOptions
from fgvc_heads.pim import PimHead

CLASSES, WIDTH = 5, 12
KEEPS = (40, 12, 6, 9)  # 67 points: 2 joints
LEVELS = ("layer1", "layer2", "layer3", "layer4")


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Fill a state dict: anything, but variances positive."""
    generator = torch.Generator().manual_seed(7)
    state = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator) * 0.4
        state[name] = value.abs() + 0.5 if name.endswith("running_var") else value
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(11)
    return state


def layer(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    entries = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (width,))
    return {f"{name}.{entry}": shape for entry, shape in {**entries, "num_batches_tracked": ()}.items()}


def public_state(
    info: BackboneInfo,
    classes: int = CLASSES,
    width: int = WIDTH,
    points: int = sum(KEEPS),
    levels: Sequence[str] = LEVELS,
) -> dict[str, Tensor]:
    """Write what its checkpoint has under "model", for a backbone with such maps."""
    one = (1, 1) if info.architecture == "convolutional" else ()
    shapes: dict[str, tuple[int, ...]] = {"backbone.stem.weight": (3, 2)}
    for number, (level, found) in enumerate(zip(levels, info.maps, strict=True)):
        shapes |= layer(f"fpn.Proj_{level}.0", found.channels, found.channels, *one)
        shapes |= layer(f"fpn.Proj_{level}.2", width, found.channels, *one)
        if number and not one and info.maps[number - 1].points != found.points:
            shapes |= layer(f"fpn.Up_{level}", info.maps[number - 1].points, found.points, 1)
    for level in levels:
        shapes |= layer(f"fpn_classifier_{level}.0", width, width, 1) | norm(f"fpn_classifier_{level}.1", width)
        shapes |= layer(f"fpn_classifier_{level}.3", classes, width, 1)
    joints = points // 32
    shapes |= {"combiner.adj1": (joints, joints), "combiner.alpha1": (1,)} | layer("combiner.conv1", width, width, 1)
    shapes |= layer("combiner.param_pool0", joints, points) | norm("combiner.batch_norm1", width)
    shapes |= layer("combiner.conv_q1", width // 4, width, 1) | layer("combiner.conv_k1", width // 4, width, 1)
    shapes |= layer("combiner.param_pool1", 1, joints) | layer("combiner.classifier", classes, width)
    return random_state(shapes)


def public_forward(state: dict[str, Tensor], maps: Sequence[Tensor], keeps: Sequence[int]) -> Tensor:
    """Compute the combiner's scores from its tensors in their own layout, by the method notes."""

    def apply(function, name: str, x: Tensor) -> Tensor:
        return function(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def normalized(name: str, x: Tensor) -> Tensor:
        entries = (state[f"{name}.{entry}"] for entry in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *entries)

    convolves = state["fpn.Proj_layer1.0.weight"].ndim == 4
    levels = []
    for level, found in zip(LEVELS, maps, strict=True):
        x = found if convolves else found.flatten(2).transpose(1, 2)
        project = F.conv2d if convolves else F.linear
        levels.append(apply(project, f"fpn.Proj_{level}.2", apply(project, f"fpn.Proj_{level}.0", x).relu()))
    for i in (3, 2, 1):
        deep = levels[i]
        if convolves:
            deep = F.interpolate(deep, levels[i - 1].shape[-2:], mode="bilinear", align_corners=False)
        elif f"fpn.Up_{LEVELS[i]}.weight" in state:
            deep = apply(F.conv1d, f"fpn.Up_{LEVELS[i]}", deep)
        levels[i - 1] = levels[i - 1] + deep
    selected = []
    for level, x, keep in zip(LEVELS, levels, keeps, strict=True):
        points = x.flatten(2) if convolves else x.transpose(1, 2)  # B,F,N
        name = f"fpn_classifier_{level}"
        hidden = normalized(f"{name}.1", apply(F.conv1d, f"{name}.0", points)).relu()
        confidence = apply(F.conv1d, f"{name}.3", hidden).softmax(dim=1).amax(dim=1)
        order = confidence.argsort(dim=1, descending=True)[:, :keep]
        selected += [torch.stack([points[b][:, order[b]] for b in range(len(points))])]
    joints = apply(F.linear, "combiner.param_pool0", torch.cat(selected, dim=2))
    query, key = (apply(F.conv1d, f"combiner.conv_{part}1", joints).mean(dim=1) for part in "qk")
    adjacency = state["combiner.adj1"] + state["combiner.alpha1"] * (query[:, :, None] - key[:, None]).tanh()
    mixed = normalized("combiner.batch_norm1", apply(F.conv1d, "combiner.conv1", joints) @ adjacency)
    return apply(F.linear, "combiner.classifier", apply(F.linear, "combiner.param_pool1", mixed).flatten(1))


def head_on(info: BackboneInfo, classes: int = CLASSES, **options) -> PimHead:
    settings = {"fpn_size": WIDTH, "num_selects": KEEPS, **options}
    return PimHead(info, classes, PimOptions(**settings)).eval()


@pytest.fixture(params=["cnn", "transformer", "vit"])
def info(request) -> BackboneInfo:
    return request.getfixturevalue(request.param)


def keeps_of(info: BackboneInfo) -> tuple[int, ...]:
    return tuple(min(keep, found.points) for keep, found in zip(KEEPS, info.maps, strict=True))


def test_the_head_computes_what_the_public_tensors_do(info, features_of):
    keeps = keeps_of(info)
    state, head = public_state(info, points=sum(keeps)), head_on(info, num_selects=keeps)
    parts = head.published(state)
    assert parts.head.keys() == head.state_dict().keys()
    head.load_state_dict(parts.head)
    assert (parts.classes, parts.advice) == (CLASSES, "")
    assert parts.backbone == {"stem.weight": state["backbone.stem.weight"]}
    features = features_of(info, 3)
    with torch.no_grad():
        ours = head(features).scores
        theirs = public_forward(state, list(features.maps.values()), keeps)
    assert ours.std() > 0.05
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_maps_are_sorted_by_their_numbers(cnn):
    state = public_state(cnn)
    shuffled = dict(sorted(state.items(), reverse=True))
    ours, expected = head_on(cnn).published(shuffled), head_on(cnn).published(state)
    assert all(torch.equal(value, expected.head[name]) for name, value in ours.head.items())
    named = public_state(cnn, levels=("fine", "middling", "coarse", "coarsest"))
    parts = head_on(cnn).published(named)
    assert torch.equal(parts.head["pyramid.projections.1.0.bias"], named["fpn.Proj_middling.0.bias"])


def test_a_checkpoint_without_pyramid_or_combiner_is_rejected(cnn):
    head, state = head_on(cnn), public_state(cnn)
    assert head.published({"conv1.weight": torch.ones(1)}) is None
    bare = {name: value for name, value in state.items() if not name.startswith("fpn")}
    with pytest.raises(FgvcError, match="use_fpn: False"):
        head.published(bare)
    with pytest.raises(FgvcError, match="use_combiner: False"):
        head.published({name: value for name, value in state.items() if not name.startswith("combiner")})


def test_torchvisions_efficientnet_is_rejected(cnn):
    state = public_state(cnn) | {"backbone.features.0.0.weight": torch.zeros(1)}
    with pytest.raises(FgvcError, match="EfficientNet is torchvision's"):
        head_on(cnn).published(state)


@pytest.mark.parametrize(
    ("options", "changes", "advice"),
    [
        ({}, {}, ""),
        ({}, {"classes": 9}, ""),
        ({"fpn_size": 16}, {}, "`head.fpn_size=12`"),
        ({"num_selects": (8, 8, 8, 8)}, {}, "`head.num_selects` with a sum of 67 (here it is 32)"),
        ({}, {"points": 70}, "`head.num_selects` with a sum of 70 (here it is 67)"),
        (
            {"num_selects": (40, 12, 6, 12)},
            {"points": 70},
            "a larger `image_size` (here the maps have only 67 of its 70 points)",
        ),
        ({"joints_divisor": 8}, {}, "`head.joints_divisor=32`"),
        ({"maps": 3, "num_selects": 8}, {}, "`head.maps=4`"),
        ({"upsampling": "bilinear"}, {}, "`head.upsampling=tokens`"),
    ],
)
def test_required_settings_are_named(transformer, options, changes, advice):
    parts = head_on(transformer, **options).published(public_state(transformer, **changes))
    assert parts.advice == (f"the file was trained with {advice}" if advice else "")
    assert parts.classes == changes.get("classes", CLASSES)


def test_published_maps_other_backbones_and_other_sizes_are_distinguished(transformer, cnn, vit):
    from dataclasses import replace

    from fgvc_cli.contracts import MapInfo

    stages = (MapInfo(2, 4, (9, 9)), MapInfo(4, 8, (5, 5)), MapInfo(6, 16, (3, 3)), MapInfo(8, 32, (2, 2)))
    head = head_on(replace(transformer, maps=stages))
    assert "`backbone.maps=published`" in head.published(public_state(transformer)).advice

    larger = replace(transformer, maps=tuple(replace(m, grid=(2 * m.grid[0], 2 * m.grid[1])) for m in transformer.maps))
    assert head_on(transformer).published(public_state(larger)).advice == "the file was trained with `image_size=72`"

    wider = replace(cnn, maps=tuple(replace(m, channels=2 * m.channels) for m in cnn.maps))
    another = replace(wider, maps=(replace(wider.maps[0], channels=13), *wider.maps[1:]))
    assert "maps=published" not in head_on(cnn).published(public_state(another)).advice
    advice = head_on(cnn).published(public_state(wider)).advice
    assert advice == "the file was trained with a backbone whose last map has 20 channels (that of fake has 10)"

    state = public_state(vit, points=35) | {"backbone.cls_token": torch.zeros(1, 1, 8)}
    plain = replace(vit, maps=(MapInfo(8, 16, (3, 3)),) * 4)
    head = head_on(plain, num_selects=(9, 9, 9, 8))
    parts = head.published(state)
    assert "`backbone.maps=published` (its maps keep the class token)" in parts.advice
    assert all(parts.head[name].shape == value.shape for name, value in head.state_dict().items())
    assert head_on(vit, num_selects=(9, 9, 9, 8)).published(state).advice == ""
