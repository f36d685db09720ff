"""Checkpoints that the public code of PIM saves (github.com/chou141253/FGVC-PIM), taken apart for head and backbone.

Its file is `{"model": state dict, "optimizer": ..., "epoch": ...}`. Of L maps, named layer1 to layerL by default, the
state dict has `fpn.Proj_<map>` (two layers), `fpn.Up_<map>` (transformers: from that map's tokens to the ones of the
map before it), `fpn_classifier_<map>` (our selector's), `combiner` and `backbone`. How many points are kept of each map
is not in it: only their sum.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from fgvc_cli import FgvcError
from fgvc_cli.contracts import MapInfo, PublishedState
from fgvc_heads.pim.pyramid import TokenUpsampling

if TYPE_CHECKING:
    from fgvc_heads.pim.head import PimHead

COMBINER = {
    "param_pool0": "pool_points",
    "adj1": "adjacency",
    "alpha1": "alpha",
    "conv_q1": "query",
    "conv_k1": "key",
    "conv1": "conv",
    "batch_norm1": "norm",
    "param_pool1": "pool_joints",
    "classifier": "classifier",
}
"""Its names in `combiner`, and ours."""

CLASSIFIER = "combiner.classifier.weight"

SELECTOR = {"0": "hidden", "1": "norm", "3": "classifier"}
"""Its names in `fpn_classifier_<map>`, and ours in `selectors.<index>`."""

NORMALIZATION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of its images, whatever the backbone."""

LINEAR_HERE = re.compile(r"(pyramid\.projections\.\d+\.\d|selectors\.\d+\.\w+)\.weight")
"""Layers that act on each point alone: linear here, 1x1 convolutions there (except transformers' projections)."""


def take_apart(state: Mapping[str, Tensor], head: PimHead) -> PublishedState | None:
    """Return the parts of PIM's state dict, or None if it is of something else; see `Head.published`.

    Raises:
        FgvcError: it was made without the feature pyramid or the combiner, or on torchvision's EfficientNet.
    """
    levels = _levels(state)
    combines = "combiner.param_pool0.weight" in state
    if not levels and not combines:
        return None
    if not levels or not combines:
        lacking = "use_fpn" if combines else "use_combiner"
        raise FgvcError(f"PIM's checkpoint was made with {lacking}: False, and the head pim always has that part.")
    if "backbone.features.0.0.weight" in state:
        raise FgvcError(
            "PIM's EfficientNet is torchvision's, whose entries have other names than timm's: this checkpoint has no "
            "backbone here. Checkpoints of its Swin, ResNet and ViT do."
        )
    names = _own_names(levels)
    own: dict[str, Tensor] = {}
    backbone: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith("backbone."):
            backbone[name.removeprefix("backbone.")] = value
        else:
            own.update([_in_our_layout(_renamed(name, names), value)])
    classes = len(state[CLASSIFIER]) if CLASSIFIER in state else 0
    whole = state.keys() >= {"combiner.conv1.weight", "combiner.adj1"}  # if not, the host names what is missing
    wanted = list(_wanted(state, levels, head)) if whole else []
    advice = f"the file was trained with {', '.join(wanted)}" if wanted else ""
    return PublishedState(own, backbone, classes, advice, NORMALIZATION)


def _levels(state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of its maps, shallow first: by their number, or as they stand where one has none."""
    found = [re.fullmatch(r"fpn\.Proj_(.+)\.0\.weight", name) for name in state]
    names = [match[1] for match in found if match]
    numbers = [re.search(r"(\d+)$", name) for name in names]
    if not all(numbers):
        return names
    return [
        name
        for _, name in sorted((int(number[1]), name) for number, name in zip(numbers, names, strict=True) if number)
    ]


def _own_names(levels: Sequence[str]) -> dict[str, str]:
    """Return our module for each of its modules."""
    names = {f"combiner.{theirs}": f"combiner.{ours}" for theirs, ours in COMBINER.items()}
    for index, level in enumerate(levels):
        names |= {f"fpn.Proj_{level}.{layer}": f"pyramid.projections.{index}.{layer}" for layer in "02"}
        names[f"fpn.Up_{level}"] = f"pyramid.upsamplers.{index - 1}.mix"
        names |= {f"fpn_classifier_{level}.{i}": f"selectors.{index}.{ours}" for i, ours in SELECTOR.items()}
    return names


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """Return our name of an entry: of a parameter by itself (adj1), or of one in a module."""
    if name in names:
        return names[name]
    module, _, entry = name.rpartition(".")
    return f"{names[module]}.{entry}" if module in names else name


def _in_our_layout(name: str, value: Tensor) -> tuple[str, Tensor]:
    return (name, value.flatten(1)) if LINEAR_HERE.fullmatch(name) and value.ndim > 2 else (name, value)


def _wanted(state: Mapping[str, Tensor], levels: Sequence[str], head: PimHead) -> Iterator[str]:
    """Yield the settings that would make this head and its backbone the file's, as far as its shapes tell."""
    maps = [head.backbone_info.maps[index] for index in head.map_indices]
    width, points = state["combiner.conv1.weight"].shape[0], state["combiner.param_pool0.weight"].shape[1]
    if width != head.options.fpn_size:
        yield f"--set head.fpn_size={width}"
    if len(levels) != len(maps):
        yield f"--set head.maps={len(levels)}"
        return
    kept, asked = sum(head.keeps), sum(head.asked)
    if points == asked > kept:
        yield f"a larger --image-size (here the maps have only {kept} of its {points} points)"
    elif points != kept:
        yield f"--set head.num_selects that sum to {points} (these sum to {asked})"
    elif state["combiner.adj1"].shape[0] != max(1, kept // head.options.joints_divisor):
        yield "--set head.joints_divisor=32"
    yield from _wanted_of_maps(state, levels, head, maps)


def _wanted_of_maps(
    state: Mapping[str, Tensor], levels: Sequence[str], head: PimHead, maps: Sequence[MapInfo]
) -> Iterator[str]:
    theirs = [state[f"fpn.Proj_{level}.0.weight"].shape[1] for level in levels]
    ours = [info.channels for info in maps]
    class_token = "backbone.cls_token" in state and all(info.grid[0] > 1 for info in maps)
    other_maps = [c * ours[-1] for c in theirs] != [c * theirs[-1] for c in ours]
    merged = theirs[-2:-1] == theirs[-1:]  # Swin's; of another backbone's maps that is all one can tell
    if class_token or (other_maps and (merged or theirs[-1] == ours[-1])):
        yield "--set backbone.maps=published" + (" (its maps keep the class token)" if class_token else "")
    if theirs[-1] != ours[-1]:
        yield f"a backbone whose last map has {theirs[-1]} channels (that of {head.backbone_info.name} has {ours[-1]})"
    if theirs == ours:
        yield from _wanted_of_tokens(state, levels, head, maps)


def _wanted_of_tokens(
    state: Mapping[str, Tensor], levels: Sequence[str], head: PimHead, maps: Sequence[MapInfo]
) -> Iterator[str]:
    """Compare how deep maps reach shallow grids; a learned map over tokens tells the image size."""
    mixes = {i - 1: w for i, level in enumerate(levels) if (w := state.get(f"fpn.Up_{level}.weight")) is not None}
    learned = [isinstance(module, TokenUpsampling) for module in head.pyramid.upsamplers]
    if mixes and not any(learned):
        yield "--set head.upsampling=tokens"
    elif any(learned) and not mixes and state[f"fpn.Proj_{levels[0]}.0.weight"].ndim > 2:
        yield "--set head.upsampling=bilinear"
    elif mixes:
        shallow = min(mixes)
        side = head.backbone_info.image_size * math.sqrt(mixes[shallow].shape[0] / maps[shallow].points)
        if side != head.backbone_info.image_size:
            yield f"--image-size {side:.0f}" if side.is_integer() else "another image size"
