"""From the name of a timm model to how it is built for an image size: arguments, accepted sizes, windows."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models.swin_transformer import SwinTransformer

from fgvc_backbones.options import TimmOptions
from fgvc_backbones.survey import TimmModel
from fgvc_backbones.zoo import FAMILY_PREFIX, OPTIONS, TARGET, timm_name
from fgvc_cli import BackboneSpec, FgvcError, UsageError
from fgvc_cli.contracts import ImageSizes
from fgvc_cli.errors import did_you_mean

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


def refused(name: str, image_size: int, plan: Plan, cause: Exception, accepts_own: bool) -> FgvcError:
    """Return the error for a plan that timm or the model rejects although `accepted_sizes` allows the size.

    Args:
        name: of the backbone.
        image_size: the size that was rejected.
        plan: the plan.
        cause: why.
        accepts_own: whether the model's own size is accepted.
    """
    reason = str(cause).partition("\n")[0].rstrip(".")
    if isinstance(cause, TypeError) and plan.arguments:
        return UsageError(f"{name} does not take one of {', '.join(plan.arguments)}: {reason}")
    own = timm.get_pretrained_cfg(plan.model).input_size[-1]
    if image_size == own or not accepts_own:
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


def resolve(name: str) -> BackboneSpec | None:
    """Return the spec of `timm/<model>` or `timm/<model>.<weights tag>`; None for any other name.

    Raises:
        UsageError: timm has no such model or tag, or the model cannot return intermediate maps.
    """
    if not name.startswith(FAMILY_PREFIX):
        return None
    full_name = name.removeprefix(FAMILY_PREFIX)
    model, _, tag = full_name.partition(".")
    if not timm.is_model(model):
        near = did_you_mean(model, timm.list_models())
        raise UsageError(f"{name}: timm {timm.__version__} has no model '{model}'.{near}")
    if tag:
        check_tag(model, tag, name)
    if not _may_return_maps(model):
        raise UsageError(f"{name}: this model cannot return intermediate feature maps, which heads need")
    default = timm.get_pretrained_cfg(full_name)
    weights = ".".join(filter(None, (model, default.tag))) if default.has_weights else ""
    return BackboneSpec(name, TARGET, f"timm's {full_name}", OPTIONS, "timm", pretrained=weights)


def check_tag(model: str, tag: str, given: str) -> None:
    """Raise `UsageError`, naming the backbone `given`, unless timm publishes weights with that tag for the model."""
    tags = [full_name.partition(".")[2] for full_name in timm.list_pretrained(f"{model}.*")]
    if tag not in tags:
        known = ", ".join(tags) or "none"
        raise UsageError(f"{given}: {model} has no weights '{tag}'.{did_you_mean(tag, tags)} Known tags: {known}")


def _may_return_maps(model: str) -> bool:
    """Check without building the model whether its module has classes with intermediate maps."""
    module = sys.modules[timm.model_entrypoint(model).__module__]
    return any(isinstance(value, type) and hasattr(value, "forward_intermediates") for value in vars(module).values())
