"""Names of the same network elsewhere: torchvision's, and prefixes of modules that a network was part of."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

import timm
import torch
import torchvision
from torch import Tensor

from fgvc_cli import FgvcError

TORCHVISION = {
    **{f"convnext_{size}": f"convnext_{size}" for size in ("tiny", "small", "base", "large")},
    **{f"efficientnet_b{k}": f"efficientnet_b{k}" for k in range(5)},
    "mnasnet_100": "mnasnet1_0",
    "mobilenetv2_100": "mobilenet_v2",
    **{f"swin_{size}_patch4_window7_224": f"swin_{size[0]}" for size in ("tiny", "small", "base")},
    **{f"vit_{size}_patch{k}_224": f"vit_{size[0]}_{k}" for size in ("base", "large") for k in (16, 32)},
}
"""torchvision's name of the same network by timm's, where its entries have other names. Those of ResNet, ResNeXt, Wide
ResNet and DenseNet have the same. The tests compare the logits of each pair."""

CONSTANTS = ("relative_position_index", "num_batches_tracked")
"""Entries that are no weights: constant tables, which timm does not save, and counters."""

LUKEMELAS = "_conv_stem.weight"
"""First entry of a checkpoint of the PyTorch port of EfficientNet (github.com/lukemelas/EfficientNet-PyTorch)."""

LUKEMELAS_STEM, LUKEMELAS_TOP = ("_conv_stem", "_bn0"), ("_conv_head", "_bn1", "_fc")
LUKEMELAS_BLOCK = (
    "_expand_conv",
    "_bn0",
    "_depthwise_conv",
    "_bn1",
    "_se_reduce",
    "_se_expand",
    "_project_conv",
    "_bn2",
)
LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def without_prefix(state: Mapping[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    """Return the entries under the prefix (such as "net.") with which most names are in `names`, without it.

    Returns:
        The state dict unchanged if less than half of `names` are in it, whatever the prefix.

    Raises:
        FgvcError: two networks have as many.
    """
    counts: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        counts.update(".".join([*parts[:k], ""]) for k in range(len(parts)) if ".".join(parts[k:]) in names)
    best = counts.most_common(2)
    if not best or 2 * best[0][1] < len(names):
        return dict(state)
    if len(best) == 2 and best[0][1] == best[1][1]:
        choices = " or ".join(f"`weights=FILE#{prefix.rstrip('.')}`" for prefix, _ in best)
        raise FgvcError(f"the file has several networks; choose one: {choices}")
    prefix = best[0][0]
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def torchvision_shapes(architecture: str) -> dict[str, torch.Size]:
    """Return the shape of each entry that torchvision saves of a timm architecture; empty if it has it not."""
    if architecture not in TORCHVISION:
        return {}
    with torch.device("meta"):
        state = torchvision.models.get_model(TORCHVISION[architecture], weights=None).state_dict()
    return {name: value.shape for name, value in state.items() if not name.endswith(CONSTANTS)}


def from_torchvision(
    state: Mapping[str, Tensor], architecture: str, named: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Rename entries that have torchvision's names (`named`) to timm's.

    Both networks register modules of one shape in the same order, so the k-th entry of a shape is the k-th of it here.
    """
    with torch.device("meta"):
        own = timm.create_model(architecture).state_dict()
    by_shape: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, value in own.items():
        if not name.endswith(CONSTANTS):
            by_shape[_sides(value.shape)].append(name)
    renamed = {}
    for there, shape in named.items():
        here = by_shape[_sides(shape)].pop(0)
        if there in state:
            value = state[there]
            fits = value.shape == shape
            renamed[here] = value.reshape(own[here].shape) if fits else value
    return renamed


def from_lukemelas(state: Mapping[str, Tensor], full_name: str) -> dict[str, Tensor]:
    """Rename the entries of the PyTorch port of EfficientNet, whose layers are the same in number and order.

    Raises:
        FgvcError: it is another network.
    """
    with torch.device("meta"):
        model = timm.create_model(full_name)
    own, classifier = model.state_dict(), f"{model.pretrained_cfg['classifier']}."
    wrong = f"The weights are not for {full_name}"
    if len(own) != len(state):
        raise FgvcError(f"{wrong}: they have {len(state)} entries, expected {len(own)}")
    try:
        there = sorted(state, key=_place)  # a file may have them in another order
    except (ValueError, IndexError) as error:
        raise FgvcError(f"{wrong}: they have entries of another network") from error
    for name, other in zip(own, there, strict=True):
        if own[name].shape != state[other].shape and not name.startswith(classifier):
            sides = [" x ".join(map(str, shape)) for shape in (state[other].shape, own[name].shape)]
            raise FgvcError(f"{wrong}: {other} has shape {sides[0]}, expected {sides[1]}")
    return {name: state[other] for name, other in zip(own, there, strict=True)}


def _place(name: str) -> tuple[int, ...]:
    """Return the place of an entry of the port of EfficientNet in its network."""
    *block, module, leaf = name.split(".")
    if block:
        return 1, int(block[1]), LUKEMELAS_BLOCK.index(module), LEAVES.index(leaf)
    part, modules = (0, LUKEMELAS_STEM) if module in LUKEMELAS_STEM else (2, LUKEMELAS_TOP)
    return part, modules.index(module), LEAVES.index(leaf)


def _sides(shape: torch.Size) -> tuple[int, ...]:
    """Return a shape without sides of 1: a scale per channel may have shape C or C,1,1."""
    return tuple(side for side in shape if side != 1)
