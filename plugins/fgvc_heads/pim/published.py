"""Load checkpoints of the public code of PIM (github.com/chou141253/FGVC-PIM).

The file is `{"model": state dict, "optimizer": ..., "epoch": ...}`. For L maps, named layer1 to layerL by default, the
state dict has `fpn.Proj_<map>` (two layers), `fpn.Up_<map>` (transformers: from that map's tokens to those of the map
before it), `fpn_classifier_<map>` (our selector's), `combiner` and `backbone`. The number of points kept of each map is
not in it, only their sum.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from fgvc_cli import FgvcError
from fgvc_cli.contracts import BackboneInfo, MapInfo, PublishedState
from fgvc_heads.options import PimOptions

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
"""Published names in `combiner`, and ours."""

SELECTOR = {"0": "hidden", "1": "norm", "3": "classifier"}
"""Published names in `fpn_classifier_<map>`, and ours in `selectors.<index>`."""

NORMALIZATION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of the published training, for every backbone."""

LINEAR_HERE = re.compile(r"(pyramid\.projections\.\d+\.\d|selectors\.\d+\.\w+)\.weight")
"""Layers that are linear here and 1x1 convolutions in the public code (except projections of transformers)."""


def split_checkpoint(
    state: Mapping[str, Tensor],
    options: PimOptions,
    requested: Sequence[int],
    backbone: BackboneInfo,
    maps: Sequence[MapInfo],
    learned: bool,
) -> PublishedState | None:
    """Return the parts of PIM's state dict, or None if it is another model's; see `Head.published`.

    Args:
        state: the state dict.
        options: of the head to load into.
        requested: number of points that it requests of each map.
        backbone: its backbone.
        maps: the maps that it uses, shallow first.
        learned: whether its pyramid upsamples by a learned map over tokens.

    Raises:
        FgvcError: it was trained without the feature pyramid or the combiner, or on torchvision's EfficientNet.
    """
    levels = _levels(state)
    combines = "combiner.param_pool0.weight" in state
    if not levels and not combines:
        return None
    if not levels or not combines:
        lacking = "use_fpn" if combines else "use_combiner"
        raise FgvcError(f"PIM's checkpoint was trained with {lacking}: False, and the head pim always has that part")
    if "backbone.features.0.0.weight" in state:
        raise FgvcError(
            "PIM's EfficientNet is torchvision's, whose entries are named differently from timm's; its checkpoints "
            "cannot be loaded, those of its Swin, ResNet and ViT can"
        )
    names = _own_names(levels)
    own: dict[str, Tensor] = {}
    for published, value in state.items():
        if not published.startswith("backbone."):
            name = _renamed(published, names)
            own[name] = value.flatten(1) if LINEAR_HERE.fullmatch(name) and value.ndim > 2 else value
    differences: list[str] = []
    if state.keys() >= {"combiner.conv1.weight", "combiner.adj1"}:  # if not, the host reports what is missing
        differences = list(_differences(state, levels, options, requested, maps))
        if len(levels) == len(maps):
            differences += _differences_of_maps(state, levels, backbone, maps, learned)
    return PublishedState(
        own,
        {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")},
        classes=len(state.get("combiner.classifier.weight", ())),
        advice=f"the file was trained with {', '.join(differences)}" if differences else "",
        normalization=NORMALIZATION,
    )


def _levels(state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of its maps, shallow first: sorted by their number, or in file order if one has none."""
    found = [re.fullmatch(r"fpn\.Proj_(.+)\.0\.weight", name) for name in state]
    names = [match[1] for match in found if match]
    numbers = {name: int(number[1]) for name in names if (number := re.search(r"(\d+)$", name))}
    return sorted(names, key=numbers.__getitem__) if len(numbers) == len(names) else names


def _own_names(levels: Sequence[str]) -> dict[str, str]:
    """Return our module name for each published one."""
    names = {f"combiner.{theirs}": f"combiner.{ours}" for theirs, ours in COMBINER.items()}
    for index, level in enumerate(levels):
        names |= {f"fpn.Proj_{level}.{layer}": f"pyramid.projections.{index}.{layer}" for layer in "02"}
        names[f"fpn.Up_{level}"] = f"pyramid.upsamplers.{index - 1}.mix"
        names |= {f"fpn_classifier_{level}.{i}": f"selectors.{index}.{ours}" for i, ours in SELECTOR.items()}
    return names


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """Return our name of an entry: of a bare parameter (adj1), or of one in a module."""
    if name in names:
        return names[name]
    module, _, entry = name.rpartition(".")
    return f"{names[module]}.{entry}" if module in names else name


def _differences(
    state: Mapping[str, Tensor],
    levels: Sequence[str],
    options: PimOptions,
    requested: Sequence[int],
    maps: Sequence[MapInfo],
) -> Iterator[str]:
    """Yield the head settings that the shapes in the file require."""
    width, points = state["combiner.conv1.weight"].shape[0], state["combiner.param_pool0.weight"].shape[1]
    if width != options.fpn_size:
        yield f"`head.fpn_size={width}`"
    if len(levels) != len(maps):
        yield f"`head.maps={len(levels)}`"
        return
    kept = sum(min(number, info.points) for number, info in zip(requested, maps, strict=True))
    if points == sum(requested) > kept:
        yield f"a larger `image_size` (here the maps have only {kept} of its {points} points)"
    elif points != kept:
        yield f"`head.num_selects` with a sum of {points} (here it is {sum(requested)})"
    elif state["combiner.adj1"].shape[0] != max(1, kept // options.joints_divisor):
        yield "`head.joints_divisor=32`"


def _differences_of_maps(
    state: Mapping[str, Tensor], levels: Sequence[str], backbone: BackboneInfo, maps: Sequence[MapInfo], learned: bool
) -> Iterator[str]:
    """Yield the backbone, maps, upsampling or image size that the shapes in the file require."""
    theirs = [state[f"fpn.Proj_{level}.0.weight"].shape[1] for level in levels]
    ours = [info.channels for info in maps]
    class_token = "backbone.cls_token" in state and all(info.grid[0] > 1 for info in maps)
    other_maps = [c * ours[-1] for c in theirs] != [c * theirs[-1] for c in ours]
    merged = theirs[-2:-1] == theirs[-1:]  # two equal widths at the end are Swin's after patch merging
    if class_token or (other_maps and (merged or theirs[-1] == ours[-1])):
        yield "`backbone.maps=published`" + (" (its maps keep the class token)" if class_token else "")
    if theirs[-1] != ours[-1]:
        yield f"a backbone whose last map has {theirs[-1]} channels (that of {backbone.name} has {ours[-1]})"
    if theirs != ours:
        return
    mixes = {i - 1: w for i, level in enumerate(levels) if (w := state.get(f"fpn.Up_{level}.weight")) is not None}
    if mixes and not learned:
        yield "`head.upsampling=tokens`"
    elif learned and not mixes and state[f"fpn.Proj_{levels[0]}.0.weight"].ndim > 2:
        yield "`head.upsampling=bilinear`"
    elif mixes:  # a learned map over tokens determines the image size
        shallow = min(mixes)
        side = backbone.image_size * math.sqrt(mixes[shallow].shape[0] / maps[shallow].points)
        if side != backbone.image_size:
            yield f"`image_size={side:.0f}`" if side.is_integer() else "another `image_size`"
