"""timm models as backbones: how each is built for an image size, and the adapter they share."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import timm
import torch
from timm.models.mvitv2 import MultiScaleVit
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fgvc_backbones import FAMILY_PREFIX, OPTIONS, TARGET, checkpoints, timm_name
from fgvc_backbones.cam import CamLayers
from fgvc_backbones.options import TimmOptions
from fgvc_backbones.survey import (
    MapSource,
    Survey,
    TimmModel,
    layer_depths,
    map_source,
    reached_parameters,
    read,
    runs,
    survey,
)
from fgvc_cli import BackboneSpec, FgvcError, UsageError
from fgvc_cli.contracts import (
    Backbone,
    BackboneInfo,
    CamLayer,
    Features,
    ImageSizes,
    PretrainedWeights,
    Reads,
    TokenBlocks,
    WeightsReport,
)
from fgvc_cli.errors import did_you_mean

SMALLEST = 32
"""Minimum image size in pixels, which leaves one point at a stride of 32."""


COARSEST = 32
"""Stride of the deepest map of most architectures, in pixels: its multiples are whole grids at every stage."""


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
        if isinstance(native, VisionTransformer):  # other sizes get resampled position embeddings
            arguments["dynamic_img_size"] = True
    window = _window(native, image_size, options, name)
    if window:
        arguments["window_size"] = window
    if options.drop_path is not None:
        arguments["drop_path_rate"] = options.drop_path
    if options.drop:
        arguments["drop_rate"] = options.drop
    return Plan(full_name, arguments)


def accepted_sizes(model: TimmModel) -> ImageSizes:
    """Return the image sizes that a model accepts: whole patches if its input size is fixed, else any size.

    MViTv2 rounds its grids down where it builds tables of relative positions, but up where it pools: all must be whole.
    """
    if isinstance(model, MultiScaleVit):
        return ImageSizes(SMALLEST, model.feature_info[-1]["reduction"])
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    fixed = getattr(model, "pretrained_cfg", {}).get("fixed_input_size", False)
    if patch is None or not fixed:
        return ImageSizes(SMALLEST)
    return ImageSizes(SMALLEST, patch if isinstance(patch, int) else max(patch))


def refused(name: str, image_size: int, plan: Plan, cause: Exception, accepted: int | None) -> FgvcError:
    """Return the error for a plan that timm or the model rejects although `accepted_sizes` allows the size.

    Args:
        name: of the backbone.
        image_size: the size that was rejected.
        plan: the plan.
        cause: why.
        accepted: another size, which is accepted; None if none was found.
    """
    reason = str(cause).partition("\n")[0].rstrip(".")
    if isinstance(cause, TypeError) and plan.arguments:
        return UsageError(f"{name} does not take one of {', '.join(plan.arguments)}: {reason}")
    if accepted is None:
        return FgvcError(f"{name} cannot be used as a backbone: {reason}")
    return UsageError(f"{name} cannot take images of {image_size} px; try `image_size={accepted}`")


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


class TimmBackbone(Backbone):
    """A timm model as a backbone.

    It offers up to four maps B,C,H,W, shallow to deep (the last four of an architecture that has more). The embedding
    is the input of the model's own classifier, never a re-pooled map.

    Args:
        name: "swin_t", "timm/resnet18" or "timm/resnet18.a1_in1k".
        image_size: side of the square images, pixels.
        options: see `TimmOptions`.

    Raises:
        UsageError: the architecture does not accept that image size, or an option does not apply to it.
        FgvcError: it has no intermediate maps.
    """

    def __init__(self, name: str, image_size: int, options: TimmOptions) -> None:
        super().__init__()
        self._key = (name, image_size, options)
        self._plan, self._source, self._survey = _examined(*self._key)
        self._kept = Reads(tuple(range(len(self._survey.maps))), embedding=True)
        self.model = self._plan.build()
        self.taps = nn.ModuleList()
        self._cam = CamLayers(self.model, self._source, image_size, self._survey.pooled, self.taps)
        convolutional = self._survey.architecture == "convolutional"
        mean, std = _normalization(self._plan.model)
        self.info = BackboneInfo(
            name=name,
            architecture=self._survey.architecture,
            image_size=image_size,
            maps=self._survey.maps,
            embedding_width=self._survey.embedding_width,
            mean=mean,
            std=std,
            channels_last=convolutional and any(isinstance(module, nn.Conv2d) for module in self.model.modules()),
        )

    def forward(self, images: Tensor, reads: Reads) -> Features:
        """Compute the maps and the embedding in `reads`, in one pass that stops after the deepest stage needed.

        Args:
            images: B,3,H,W, normalized, of the size the backbone was built for or one that `info_at` accepts.
            reads: the maps to compute, and whether to compute the embedding.

        Raises:
            ValueError: a map does not exist, or it or the embedding was pruned.
        """
        self._check_kept(reads)
        return read(self.model, self._source, images, reads)

    def prune(self, reads: Reads) -> None:
        """Drop the modules that `reads` does not need, so that every remaining parameter gets a gradient.

        They are found by a backward pass on the meta device, not from a list by architecture. If the forward pass of
        the model calls them anyway and fails without them (HRNet, CrossViT), they are frozen instead.
        """
        self._check_kept(reads)
        reached, droppable = _reached(*self._key, reads)
        if droppable:
            _drop_unreached(self.model, "", reached)
        else:
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(parameter.requires_grad and name in reached)
        self._kept = reads
        self._cam.forget()

    def cam_layer(self, map_index: int | None) -> CamLayer:
        """Return the module to hook for a score read from that map (None: the embedding) or from a deeper one.

        Raises:
            ValueError: that map or the embedding was pruned, and everything deeper too.
            FgvcError: no module outputs that map.
        """
        kept = self._kept
        if map_index is None or not (kept.embedding or map_index < max(kept.maps, default=-1)):
            self._check_kept(Reads(embedding=True) if map_index is None else Reads((map_index,)))
        layer = self._cam.layer(map_index, kept)
        if layer is None:
            raise FgvcError(f"{self.info.name}: no module outputs that map, so it cannot be hooked")
        return layer

    def named_layer(self, name: str) -> CamLayer:
        """Return a module of the model by its name, such as "layers.3.blocks.1.norm1".

        Raises:
            FgvcError: there is no such module, or its output is not a grid of points.
        """
        grids = [info.grid for info in self.info.maps] if self.info.architecture == "transformer" else []
        return self._cam.named(name.removeprefix("model."), self._kept, grids)

    def token_blocks(self) -> TokenBlocks:
        """Return the model's blocks, if it is a plain transformer.

        Raises:
            FgvcError: it is not.
        """
        return self._cam.token_blocks(self._kept) or super().token_blocks()

    def info_at(self, image_size: int) -> BackboneInfo:
        """Return the description for images of another size, which `forward` takes as well, with the same weights.

        Convolutional networks take any size, a plain ViT resamples its position embeddings.

        Raises:
            UsageError: the model as built does not take that size.
        """
        name, _, options = self._key
        try:
            maps = _inspected(self._plan, name, image_size, options)[1].maps
        except (FgvcError, *REJECTIONS):
            return super().info_at(image_size)
        return replace(self.info, image_size=image_size, maps=maps)

    def layer_depths(self, unit: Literal["stage", "block"]) -> dict[str, int]:
        """Return the depth of each parameter by name, as timm's own layer-wise learning-rate decay groups them.

        A ViT's stages are its blocks, an EfficientNet's are its groups of blocks.

        Raises:
            FgvcError: timm does not say how to group the parameters of the model.
        """
        if not hasattr(self.model, "group_matcher"):
            return super().layer_depths(unit)
        return {f"model.{name}": depth for name, depth in layer_depths(self.model, coarse=unit == "stage").items()}

    def pretrained(self, tag: str | None = None) -> PretrainedWeights | None:
        """Return the weights that timm publishes with that tag, or None if it publishes none for the model.

        Args:
            tag: such as "a1_in1k", alone or after the model's name; None: the tag in the backbone's name, or else
                the architecture's default.

        Raises:
            UsageError: the model has no such weights, or they need another normalization.
        """
        model = self._plan.model.partition(".")[0]
        if tag is None:
            return checkpoints.published_weights(self._plan.model)
        tag = tag.removeprefix(f"{model}.")
        check_tag(model, tag, self.info.name)
        full_name = f"{model}.{tag}"
        if _normalization(full_name) != (self.info.mean, self.info.std):
            raise UsageError(
                f"{full_name} needs another normalization than {self.info.name}; use `backbone=timm/{full_name}`"
            )
        return checkpoints.published_weights(full_name)

    def fetch(self, weights: PretrainedWeights) -> dict[str, Tensor]:
        """Read published weights from the cache, or download them into it.

        Raises:
            FgvcError: the download failed or the file is damaged.
        """
        return checkpoints.read_published(weights)

    def load_weights(self, state: Mapping[str, Any]) -> WeightsReport:
        """Load a state dict in timm's naming or the backbone's own, of any image size.

        Entries of a classifier and of pruned modules are ignored.

        Raises:
            FgvcError: an entry has the wrong shape, or nothing matches.
        """
        return checkpoints.load_into(self.model, self._plan.model, self._plan.outline(), state)

    def _check_kept(self, reads: Reads) -> None:
        kept = self._kept
        if not set(reads.maps) <= set(kept.maps) or (reads.embedding and not kept.embedding):
            raise ValueError(f"{self.info.name}: {reads} was requested, but only {kept} is left after pruning")


REJECTIONS = (AssertionError, RuntimeError, TypeError, ValueError, ZeroDivisionError)
"""What timm and its models raise at a size, or with an argument, that they do not take."""


# Cached, because a study, a benchmark and an ensemble build the same model many times.
@lru_cache(maxsize=128)
def _examined(name: str, image_size: int, options: TimmOptions) -> tuple[Plan, MapSource, Survey]:
    """Plan a backbone, choose the source of its maps and inspect them at that image size."""
    plan = make_plan(name, image_size, options)
    try:
        return plan, *_inspected(plan, name, image_size, options)
    except FgvcError:
        raise
    except REJECTIONS as error:
        nearest = COARSEST * max(1, round(image_size / COARSEST))
        others = dict.fromkeys((nearest, timm.get_pretrained_cfg(plan.model).input_size[-1]))
        accepted = next((size for size in others if size != image_size and _accepts(name, size, options)), None)
        raise refused(name, image_size, plan, error, accepted) from error


def _inspected(plan: Plan, name: str, image_size: int, options: TimmOptions) -> tuple[MapSource, Survey]:
    outline = plan.outline()
    source = map_source(outline, image_size, options.maps, name)
    return source, survey(outline, source, image_size)


def _accepts(name: str, image_size: int, options: TimmOptions) -> bool:
    try:
        _inspected(make_plan(name, image_size, options), name, image_size, options)
    except (FgvcError, *REJECTIONS):
        return False
    return True


@lru_cache(maxsize=128)
def _reached(name: str, image_size: int, options: TimmOptions, reads: Reads) -> tuple[frozenset[str], bool]:
    """Return the parameters that `reads` needs, and whether the model runs without the modules of the others."""
    plan, source, _ = _examined(name, image_size, options)
    outline = plan.outline()
    reached = reached_parameters(outline, source, image_size, reads)
    _drop_unreached(outline, "", reached)
    return reached, runs(outline, source, image_size, reads)


def _normalization(full_name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the per-channel mean and standard deviation that a model's weights were trained with."""
    config = timm.get_pretrained_cfg(full_name)
    return tuple(config.mean), tuple(config.std)


def _drop_unreached(module: nn.Module, path: str, reached: frozenset[str]) -> None:
    """Replace the outermost modules without a reached parameter; freeze single parameters that are not reached."""
    for name, parameter in module.named_parameters(recurse=False):
        if path + name not in reached:
            parameter.requires_grad_(False)
    for name, child in module.named_children():
        names = [f"{path}{name}.{inner}" for inner, _ in child.named_parameters()]
        if names and reached.isdisjoint(names):
            setattr(module, name, nn.Identity())
        elif names:
            _drop_unreached(child, f"{path}{name}.", reached)
