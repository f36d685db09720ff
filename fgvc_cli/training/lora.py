"""Low-rank adapters (LoRA) in the backbone, through peft: added before training, merged when the model is saved."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.contracts import Classifier
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.scoring.scores import evaluation_mode

ADAPTER = "default"
"""peft's name of a single adapter."""


@dataclass(frozen=True)
class Adapters:
    """The adapters of a classifier's backbone.

    An adapted layer computes W x + b + alpha / r * B A x, with A of r rows and B of r columns. A and B train, and the
    head; the rest of the backbone is frozen. B starts at 0, so the first output is that of the backbone.

    Reference: Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models, arXiv 2106.09685.

    Attributes:
        classifier: with adapters in its backbone.
        layers: peft's layers, by their name in the classifier.
        note: one line on them for the user.
    """

    classifier: Classifier
    layers: dict[str, Any]
    note: str

    @torch.no_grad()
    def merged(self) -> dict[str, Tensor]:
        """Return the state dict of the classifier without adapters, with W + alpha / r * B A as weights."""
        state = {
            name: value
            for name, value in self.classifier.state_dict().items()
            if not any(name.startswith(f"{layer}.") for layer in self.layers)
        }
        for name, layer in self.layers.items():
            own = layer.base_layer.state_dict()
            own["weight"] = own["weight"] + layer.get_delta_weight(ADAPTER).to(own["weight"].dtype)
            state |= {f"{name}.{entry}": value for entry, value in own.items()}
        return state

    def remove(self) -> None:
        """Put the backbone's own layers back in place."""
        for name, layer in self.layers.items():
            parent, _, attribute = name.rpartition(".")
            setattr(self.classifier.get_submodule(parent), attribute, layer.base_layer)


def add_adapters(classifier: Classifier, options: TrainOptions) -> Adapters | None:
    """Add adapters to the layers of the backbone, if the options ask for them, and freeze everything else in it.

    All linear layers that the head's features pass through are adapted; with `lora_layers="linear+conv"`, 1x1
    convolutions too. Layers whose weights the backbone uses without calling them are not.

    Raises:
        UsageError: the backbone has no such layer.
        FgvcError: peft is not installed.
    """
    if not options.lora_rank or not options.epochs:
        return None
    given = f"`train.lora_rank={options.lora_rank}`"
    if find_spec("peft") is None:
        raise FgvcError(f"{given} needs peft: pip install 'fgvc-cli[lora]'")
    names = _called(classifier, options.lora_layers == "linear+conv")
    backbone = classifier.backbone
    if not names:
        way_out = "adapt its 1x1 convolutions (`train.lora_layers=linear+conv`), or " * (
            options.lora_layers == "linear" and bool(_called(classifier, convolutions=True))
        )
        raise UsageError(
            f"{given}: {backbone.info.name} has no linear layers to adapt; {way_out}freeze stages (`train.freeze`)"
        )
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    total = sum(parameter.numel() for parameter in backbone.parameters())
    config = LoraConfig(r=options.lora_rank, lora_alpha=options.lora_alpha, target_modules=names)
    inject_adapter_in_model(config, backbone)
    layers = {f"backbone.{name}": module for name, module in backbone.named_modules() if isinstance(module, LoraLayer)}
    assert len(layers) == len(names), "each name is that of one layer"
    adapted = sum(parameter.numel() for parameter in backbone.parameters()) - total
    note = (
        f"LoRA of rank {options.lora_rank} (alpha {options.lora_alpha:g}) in {len(layers)} layers of the backbone: "
        f"{adapted:,} parameters in place of its {total:,}"
    )
    return Adapters(classifier, layers, note)


def _called(classifier: Classifier, convolutions: bool) -> list[str]:
    """Return the names, within the backbone, of layers that can be adapted and that a forward pass calls."""
    backbone, called = classifier.backbone, set()
    layers = {name: module for name, module in backbone.named_modules() if _adaptable(module, convolutions)}
    hooks = [module.register_forward_hook(lambda *_, name=name: called.add(name)) for name, module in layers.items()]
    size, device = classifier.preprocessing.image_size, classifier.device
    try:
        with evaluation_mode(backbone), torch.no_grad():
            backbone(torch.zeros(1, 3, size, size, device=device), classifier.head.reads())
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name in layers if name in called]


def _adaptable(module: nn.Module, convolutions: bool) -> bool:
    if type(module) is nn.Linear:  # not its subclasses, whose forward pass may differ
        return True
    return convolutions and type(module) is nn.Conv2d and module.kernel_size == (1, 1) and module.groups == 1
