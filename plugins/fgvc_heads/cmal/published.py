"""State dicts of the public code of CMAL (github.com/Dichao-Liu/CMAL), taken apart for head and backbone.

Its scripts save the whole network, a pickle that is not opened here; this is the state dict of that network. It has
`conv_block<n>` and `classifier<n>` for each expert n = 1, 2, 3 (shallow first), `classifier_concat`, and the children
of a torchvision ResNet or of a TResNet, numbered, as `Features.net_layer_<n>`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from fgvc_cli.contracts import PublishedState

if TYPE_CHECKING:
    from fgvc_heads.cmal.head import CmalHead

EXPERTS = (1, 2, 3)

CONVOLUTIONS = {"0.conv": "reduce.conv", "0.bn": "reduce.norm", "1.conv": "expand.conv", "1.bn": "expand.norm"}
"""Its names in `conv_block<n>`, and ours in an expert."""

CLASSIFIER = {"0": "norm", "1": "hidden", "2": "hidden_norm", "4": "output"}
"""Its names in a classifier, and ours."""

RESNET = {"0.0": "conv1", "1.0": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
TRESNET = {"1": "body.conv1", "2": "body.layer1", "3": "body.layer2", "4": "body.layer3", "5": "body.layer4"}
"""Its numbers of a network's children, and the network's own names of them."""

NORMALIZATION = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Mean and standard deviation of its images, whatever the backbone."""


_TELLING = {"conv_block1.1.conv.weight", "classifier1.1.weight", *(f"conv_block{n}.0.conv.weight" for n in EXPERTS)}
"""Entries whose shapes tell the options that a file was trained with."""


def take_apart(state: Mapping[str, Tensor], head: CmalHead) -> PublishedState | None:
    """Return the parts of CMAL's state dict, or None if it is of something else; see `Head.published`."""
    if not {"classifier_concat.4.weight", "conv_block1.0.conv.weight", "classifier1.4.weight"} <= state.keys():
        return None
    children = RESNET if any(name.startswith("Features.net_layer_7.") for name in state) else TRESNET
    modules = {f"Features.net_layer_{number}.": f"{own}." for number, own in children.items()}
    names = _own_names()
    own: dict[str, Tensor] = {}
    backbone: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith("Features."):
            backbone[_renamed(name, modules)] = value
        else:
            own[_renamed(name, names)] = value
    classes = state["classifier_concat.4.weight"].shape[0]
    wanted = list(_wanted(state, head)) if state.keys() >= _TELLING else []  # if not, the host names what is missing
    advice = f"the file was trained with {', '.join(wanted)}" if wanted else ""
    return PublishedState(own, backbone, classes, advice, NORMALIZATION)


def _own_names() -> dict[str, str]:
    """Return our prefix for each of its prefixes."""
    names = {f"classifier_concat.{theirs}.": f"concat.{ours}." for theirs, ours in CLASSIFIER.items()}
    for index, number in enumerate(EXPERTS):
        names |= {f"conv_block{number}.{t}.": f"experts.{index}.{ours}." for t, ours in CONVOLUTIONS.items()}
        names |= {f"classifier{number}.{t}.": f"experts.{index}.classifier.{ours}." for t, ours in CLASSIFIER.items()}
    return names


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    found = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
    return name if found is None else prefixes[found] + name.removeprefix(found)


def _wanted(state: Mapping[str, Tensor], head: CmalHead) -> Iterator[str]:
    """Yield what would make this head and its backbone the file's, as far as its shapes tell."""
    width, hidden = state["conv_block1.1.conv.weight"].shape[1], state["classifier1.1.weight"].shape[0]
    sizes = {
        "expert_width": width,
        "map_channels": state["conv_block1.1.conv.weight"].shape[0],
        "hidden_width": hidden,
    }
    for option, size in sizes.items():
        if size != getattr(head.options, option):
            yield f"--set head.{option}={size}"
    info = head.backbone_info
    theirs = [state[f"conv_block{number}.0.conv.weight"].shape[1] for number in EXPERTS]
    ours = [info.maps[index].channels for index in head.map_indices]
    if theirs != ours:
        yield (
            f"a backbone whose three maps have {', '.join(map(str, theirs))} channels (those of {info.name} have "
            f"{', '.join(map(str, ours))})"
        )
