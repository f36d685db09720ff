"""How a timm model is built for an image size: its arguments, the sizes it takes, Swin's windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models.swin_transformer import SwinTransformer

from fgvc_backbones.map_sources import TimmModel
from fgvc_backbones.options import TimmOptions
from fgvc_backbones.zoo import timm_name
from fgvc_cli import FgvcError, UsageError
from fgvc_cli.contracts import ImageSizes

SMALLEST = 32
"""Pixels. The deepest stage of the usual network has a stride of 32, and needs a point."""


@dataclass(frozen=True)
class Plan:
    """Everything that timm is told to build a model.

    Attributes:
        model: timm's full name, weights tag included.
        arguments: keyword arguments of `timm.create_model`.
    """

    model: str
    arguments: Mapping[str, Any]

    def build(self) -> TimmModel:
        """Build the model with random weights and no classifier."""
        return timm.create_model(self.model, num_classes=0, **self.arguments)

    def outline(self) -> TimmModel:
        """Build it on the meta device, for evaluation: shapes and gradients' paths, no numbers and no memory."""
        try:
            with torch.device("meta"):
                return self.build().eval()
        except RuntimeError:  # older versions of timm read numbers while they build some architectures
            return self.build().eval().to("meta")


def make_plan(name: str, image_size: int, options: TimmOptions) -> Plan:
    """Decide how the backbone called `name` is built for square images of `image_size` pixels.

    Raises:
        UsageError: it cannot take that size, or an option is not for this architecture.
        FgvcError: it cannot return intermediate maps.
    """
    full_name = timm_name(name)
    native = Plan(full_name, {}).outline()
    if not hasattr(native, "forward_intermediates"):
        raise FgvcError(f"{name}: this timm model cannot return intermediate feature maps, which every head reads.")
    accepted_sizes(native).check(image_size, name)
    arguments: dict[str, Any] = {}
    if native.pretrained_cfg.get("fixed_input_size", False):
        arguments["img_size"] = image_size
    window = _window(native, image_size, options, name)
    if window:
        arguments["window_size"] = window
    if options.drop_path is not None:
        arguments["drop_path_rate"] = options.drop_path
    if options.drop:
        arguments["drop_rate"] = options.drop
    return Plan(full_name, arguments)


def accepted_sizes(model: TimmModel) -> ImageSizes:
    """Return the image sizes that a model takes.

    A model with a fixed input size is built for it, in whole patches; others take any size.
    """
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    fixed = getattr(model, "pretrained_cfg", {}).get("fixed_input_size", False)
    if patch is None or not fixed:
        return ImageSizes(SMALLEST)
    return ImageSizes(SMALLEST, patch if isinstance(patch, int) else max(patch))


def refused(name: str, image_size: int, plan: Plan, cause: Exception) -> FgvcError:
    """Return the error for a plan that timm or the model refuses for a reason `accepted_sizes` does not know."""
    reason = str(cause).partition("\n")[0]
    if isinstance(cause, TypeError):
        return UsageError(f"{name} does not take one of {', '.join(plan.arguments)}: {reason}.")
    own = timm.get_pretrained_cfg(plan.model).input_size[-1]
    if image_size == own:
        return FgvcError(f"{name} cannot be used as a backbone: {reason}.")
    return UsageError(f"{name} cannot take images of {image_size} px. Its own size is {own}: try --image-size {own}.")


def padless_window(image_size: int, patch: int, stages: int, own: int) -> int:
    """Choose the side of Swin's attention windows, in tokens.

    A window that does not divide a stage's grid is padded, which costs up to three times the attention (a
    grid no larger than the window is one window and needs none). The choice is the architecture's own where it
    divides, as 7 does at 224 and 112 px, else the nearest from 4 to twice that, and its own if none divides.
    """
    grid = image_size // patch
    grids = [-(-grid // 2**stage) for stage in range(stages)]
    candidates = sorted(range(4, 2 * own + 1), key=lambda side: (abs(side - own), -side))
    return next((side for side in candidates if all(g <= side or g % side == 0 for g in grids)), own)


def _window(native: TimmModel, image_size: int, options: TimmOptions, name: str) -> int | None:
    """Return the window size to ask for, or None for the architecture's own."""
    if not isinstance(native, SwinTransformer):
        if options.window:
            raise UsageError(f"backbone.window={options.window}: only Swin has it, and {name} is none.")
        return None
    if options.window:
        return options.window
    own = {stage.blocks[0].window_size[0] for stage in native.layers}
    if len(own) > 1:  # an architecture with a window for each stage knows what it does
        return None
    return padless_window(image_size, native.patch_embed.patch_size[0], len(native.layers), own.pop())
