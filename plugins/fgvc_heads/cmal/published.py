"""Load state dicts of the public code of CMAL (github.com/Dichao-Liu/CMAL).

Its scripts pickle the whole network, which is not opened here; this module reads the state dict of that network. It
has `conv_block<n>` and `classifier<n>` for each expert n = 1, 2, 3 (shallow first), `classifier_concat`, and the
children of a torchvision ResNet or of a TResNet, numbered, as `Features.net_layer_<n>`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from fgvc_cli.contracts import PublishedState
from fgvc_heads.options import CmalOptions

EXPERTS = (1, 2, 3)

CONVOLUTIONS = {"0.conv": "reduce.conv", "0.bn": "reduce.norm", "1.conv": "expand.conv", "1.bn": "expand.norm"}
"""Published names in `conv_block<n>`, and ours in `Expert`."""

CLASSIFIER = {"0": "norm", "1": "hidden", "2": "hidden_norm", "4": "output"}
"""Published names in a classifier, and ours."""

RESNET = {"0.0": "conv1", "1.0": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
TRESNET = {"1": "body.conv1", "2": "body.layer1", "3": "body.layer2", "4": "body.layer3", "5": "body.layer4"}
"""Published numbers of the backbone's children, and the backbone's own names."""

NORMALIZATION = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Mean and standard deviation of the published training, for every backbone."""

SIZES = {
    "expert_width": ("conv_block1.1.conv.weight", 1),
    "map_channels": ("conv_block1.1.conv.weight", 0),
    "hidden_width": ("classifier1.1.weight", 0),
}
"""Entry and dimension that each option is read from."""


def split_checkpoint(
    state: Mapping[str, Tensor], options: CmalOptions, channels: Sequence[int], backbone: str
) -> PublishedState | None:
    """Return the parts of CMAL's state dict, or None if it is another model's; see `Head.published`.

    `options`, the `channels` of the three maps that the experts read, and the name of the backbone are those of the
    head to load into.
    """
    if not {"classifier_concat.4.weight", "conv_block1.0.conv.weight", "classifier1.4.weight"} <= state.keys():
        return None
    children = RESNET if any(name.startswith("Features.net_layer_7.") for name in state) else TRESNET
    modules = {f"Features.net_layer_{number}.": f"{own}." for number, own in children.items()}
    names = {f"classifier_concat.{theirs}.": f"concat.{ours}." for theirs, ours in CLASSIFIER.items()}
    for index, n in enumerate(EXPERTS):
        names |= {f"conv_block{n}.{theirs}.": f"experts.{index}.{ours}." for theirs, ours in CONVOLUTIONS.items()}
        names |= {f"classifier{n}.{key}.": f"experts.{index}.classifier.{own}." for key, own in CLASSIFIER.items()}
    differences = list(_differences(state, options, channels, backbone))
    return PublishedState(
        {_renamed(name, names): value for name, value in state.items() if not name.startswith("Features.")},
        {_renamed(name, modules): value for name, value in state.items() if name.startswith("Features.")},
        classes=state["classifier_concat.4.weight"].shape[0],
        advice=f"the file was trained with {', '.join(differences)}" if differences else "",
        normalization=NORMALIZATION,
    )


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    found = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
    return name if found is None else prefixes[found] + name.removeprefix(found)


def _differences(
    state: Mapping[str, Tensor], options: CmalOptions, channels: Sequence[int], backbone: str
) -> Iterator[str]:
    """Yield the settings that the shapes in the file require; nothing if the file is incomplete."""
    inputs = [f"conv_block{n}.0.conv.weight" for n in EXPERTS]
    if not state.keys() >= {*inputs, *(entry for entry, _ in SIZES.values())}:
        return  # the host reports what is missing
    for option, (entry, dim) in SIZES.items():
        size = state[entry].shape[dim]
        if size != getattr(options, option):
            yield f"`head.{option}={size}`"
    theirs = [state[entry].shape[1] for entry in inputs]
    if theirs != list(channels):
        yield (
            f"a backbone whose three maps have {', '.join(map(str, theirs))} channels (those of {backbone} have "
            f"{', '.join(map(str, channels))})"
        )
