"""How to build a timm model for an image size: its arguments, the sizes it accepts, Swin's windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models.swin_transformer import SwinTransformer

from fgvc_backbones.options import TimmOptions
from fgvc_backbones.survey import TimmModel
from fgvc_backbones.zoo import timm_name
from fgvc_cli import FgvcError, UsageError
from fgvc_cli.contracts import ImageSizes

SMALLEST = 32
"""Minimum image size in pixels, which leaves one point at a stride of 32."""


@dataclass(frozen=True)
class Plan:
    """What `timm.create_model` needs to build a model.

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
        """Build it on the meta device in evaluation mode: shapes and gradient paths without values or memory."""
        try:
            with torch.device("meta"):
                return self.build().eval()
        except RuntimeError:  # older versions of timm read values while they build some architectures
            return self.build().eval().to("meta")


def make_plan(name: str, image_size: int, options: TimmOptions) -> Plan:
    """Plan the backbone called `name` for square images of `image_size` pixels.

    Raises:
        UsageError: it does not accept that size, or an option does not apply to this architecture.
        FgvcError: it cannot return intermediate maps.
    """
    full_name = timm_name(name)
    native = Plan(full_name, {}).outline()
    if not hasattr(native, "forward_intermediates"):
        raise FgvcError(f"{name}: this timm model cannot return intermediate feature maps, which heads need")
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
    """Return the image sizes that a model accepts: whole patches if its input size is fixed, else any size."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    fixed = getattr(model, "pretrained_cfg", {}).get("fixed_input_size", False)
    if patch is None or not fixed:
        return ImageSizes(SMALLEST)
    return ImageSizes(SMALLEST, patch if isinstance(patch, int) else max(patch))


def refused(name: str, image_size: int, plan: Plan, cause: Exception) -> FgvcError:
    """Return the error for a plan that timm or the model rejects although `accepted_sizes` allows the size."""
    reason = str(cause).partition("\n")[0]
    if isinstance(cause, TypeError):
        return UsageError(f"{name} does not take one of {', '.join(plan.arguments)}: {reason}")
    own = timm.get_pretrained_cfg(plan.model).input_size[-1]
    if image_size == own:
        return FgvcError(f"{name} cannot be used as a backbone: {reason}")
    return UsageError(f"{name} cannot take images of {image_size} px; try its default, `image_size={own}`")


def padless_window(image_size: int, patch: int, stages: int, own: int) -> int:
    """Choose the side of Swin's attention windows, in tokens.

    If the window does not divide a stage's grid, timm pads the grid, which costs up to three times the attention (a
    grid no larger than the window is a single window and needs no padding). The choice is the architecture's default if
    it divides every grid, as 7 does at 224 and 112 px, else the nearest divisor from 4 to twice the default, else the
    default.
    """
    grid = image_size // patch
    grids = [-(-grid // 2**stage) for stage in range(stages)]
    candidates = sorted(range(4, 2 * own + 1), key=lambda side: (abs(side - own), -side))
    return next((side for side in candidates if all(g <= side or g % side == 0 for g in grids)), own)


def _window(native: TimmModel, image_size: int, options: TimmOptions, name: str) -> int | None:
    """Return the window size, or None for the architecture's default."""
    if not isinstance(native, SwinTransformer):
        if options.window:
            raise UsageError(f"`backbone.window={options.window}`: only Swin has attention windows, {name} does not")
        return None
    if options.window:
        return options.window
    own = {stage.blocks[0].window_size[0] for stage in native.layers}
    if len(own) > 1:  # the architecture sets a window per stage
        return None
    return padless_window(image_size, native.patch_embed.patch_size[0], len(native.layers), own.pop())
