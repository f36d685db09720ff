"""The head `cmal`: cross-layer mutual attention as a head."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from fgvc_cli import UsageError
from fgvc_cli.contracts import BackboneInfo, Features, Head, Loss, Model, Objective, PublishedState, Reads
from fgvc_heads.cmal.experts import Expert, PooledClassifier
from fgvc_heads.cmal.objectives import (
    FULL_PARTS,
    LEVELS,
    PARTS,
    CmalOutput,
    concat_loss,
    expert_loss,
    overall_loss,
)
from fgvc_heads.cmal.published import split_checkpoint
from fgvc_heads.cmal.regions import Attention, attend, crop
from fgvc_heads.options import CmalOptions


class CmalHead(Head):
    """Three experts on three maps, each trained on the attention regions of the others.

    The experts read the deepest map of each of the backbone's last three strides. If it has fewer than three different
    strides (ViT: all maps have stride 16), they read its last three maps: an adaptation of this project, in which
    experts differ by depth, not by resolution.

    An update has five objectives: e3 on the images; e2, then e1, on another expert's attention region or on the
    images; all four classifiers on the overall region; the concatenation on the images. Each runs only the stages and
    experts that its loss needs (the first also runs e1 and e2, without gradient, for their attention). Batch-norm
    statistics of modules that do not run stay unchanged; `full_passes=true` runs everything every time and updates
    them as the published code does. Parameters that a loss does not reach follow the option `missing_grad`.

    Reference: Liu, Zhao, Wang, Kato 2023, Pattern Recognition 140, 109550.

    Args:
        backbone: description of the backbone.
        classes: number of classes K.
        options: see `CmalOptions`.

    Raises:
        UsageError: the backbone offers fewer than three maps, or maps that are rows of tokens.
    """

    distills = True

    def __init__(self, backbone: BackboneInfo, classes: int, options: CmalOptions) -> None:
        super().__init__(backbone, classes, options)
        self.backbone_info, self.options = backbone, options
        self.map_indices = _expert_maps(backbone)
        self.parts = FULL_PARTS if options.full_passes else PARTS
        self.experts = nn.ModuleList(
            Expert(
                backbone.maps[index].channels,
                options.expert_width,
                options.map_channels,
                hidden=options.hidden_width,
                classes=classes,
                momentum=options.norm_momentum,
            )
            for index in self.map_indices
        )
        self.concat = PooledClassifier(len(LEVELS) * options.map_channels, options.hidden_width, classes)

    def reads(self, part: str | None = None) -> Reads:
        """Read the maps of the experts that the part runs; never the embedding."""
        return Reads(maps=tuple(self.map_indices[level] for level in self.parts[part].experts))

    def forward(self, features: Features, part: str | None = None) -> CmalOutput:
        """Run the experts and classifiers of that part."""
        needs = self.parts[part]
        maps: list[Tensor] = []
        pooled: list[Tensor] = []
        scores: list[Tensor | None] = [None] * len(LEVELS)
        for level in needs.experts:
            expert = cast(Expert, self.experts[level])
            with torch.set_grad_enabled(torch.is_grad_enabled() and level not in needs.no_grad):
                own_map, vector = expert(features.maps[self.map_indices[level]])
                if needs.scored:
                    scores[level] = expert.classifier(vector)
            pooled.append(vector)
            if needs.attends:
                maps.append(own_map.detach())
        return CmalOutput(
            expert_scores=(scores[0], scores[1], scores[2]),
            concat_scores=self.concat(torch.cat(pooled, dim=1)) if needs.concat else None,
            expert_maps=(maps[0], maps[1], maps[2]) if needs.attends else None,
        )

    def objectives(self, images: Tensor, targets: Tensor) -> Generator[Objective, Any, None]:
        """Yield the five objectives; training metrics come from the last one, the concatenation on the images.

        Attention is computed once the first update is done: from the maps before it and the weights after it.
        """
        weight = self.options.concat_weight
        e1, e2, e3 = (partial(expert_loss, targets=targets, level=level) for level in LEVELS)
        overall = partial(overall_loss, targets=targets, concat_weight=weight)
        concat = partial(concat_loss, targets=targets, concat_weight=weight)

        output = yield self._objective("e3", images, e3)
        attention = self._attend(output, images)
        boxes, overall_box = attention.expert_boxes, attention.overall_box
        del output, attention  # free this memory before the next four updates
        yield self._objective("e2", self._draw_region(images, boxes[:, 2], boxes[:, 0]), e2)
        yield self._objective("e1", self._draw_region(images, boxes[:, 2], boxes[:, 1]), e1)
        yield self._objective("overall", crop(images, overall_box), overall)
        yield self._objective("concat", images, concat)

    def predict(self, model: Model, images: Tensor) -> Tensor:
        """Return B,K, the mean of 8 logits: four of the images, and four of their overall attention regions.

        The published code takes the class with the largest sum, which is the same class; a softmax of the sum would be
        far too confident.
        """
        first: CmalOutput = model(images)
        second: CmalOutput = model(crop(images, self._attend(first, images).overall_box))
        return torch.stack([*first.all_scores(), *second.all_scores()]).float().mean(dim=0)

    def attention(self, model: Model, images: Tensor) -> Tensor:
        """Return the attention of the three experts together, B,S,S in [0, 1] without gradient."""
        return self.attend(model, images).overall_map

    @torch.no_grad()
    def attend(self, model: Model, images: Tensor) -> Attention:
        """Return the attention of each expert and of all together on images B,3,H,W (normalized)."""
        return self._attend(model(images), images)

    def notes(self) -> list[str]:
        """Report experts that differ by depth only."""
        info = self.backbone_info
        strides = [info.maps[index].stride for index in self.map_indices]
        if len(set(strides)) == len(LEVELS):
            return []
        return [
            f"cmal: {info.name} has fewer than three different strides; the experts read its last three maps (strides "
            f"{', '.join(map(str, strides))}) and differ by depth, not by resolution as in the paper"
        ]

    def published(self, state: Mapping[str, Tensor]) -> PublishedState | None:
        """Split a state dict of the public code into head and backbone."""
        channels = [self.backbone_info.maps[index].channels for index in self.map_indices]
        return split_checkpoint(state, self.options, channels, self.backbone_info.name)

    def _objective(self, part: str, images: Tensor, loss: Callable[[CmalOutput], Loss]) -> Objective:
        return Objective(images, loss, part, missing_grad=self.options.missing_grad, name=part)

    def _attend(self, output: CmalOutput, images: Tensor) -> Attention:
        """Compute attention from an output on these images and the current weights."""
        classifiers = [cast(Expert, expert).classifier for expert in self.experts]
        return attend(output, classifiers, (images.shape[2], images.shape[3]), self.options)

    def _draw_region(self, images: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return one of two regions of the images, or the images: one draw for the whole batch.

        The draw is made on the CPU, which avoids a device synchronization, from the generator whose state a run saves.
        """
        (draw,) = torch.rand(1, device="cpu").tolist()
        regions = 1 - self.options.raw_share
        if draw >= regions:
            return images
        return crop(images, first if draw < regions / 2 else second)


def _expert_maps(backbone: BackboneInfo) -> tuple[int, ...]:
    """Choose the maps of e1, e2 and e3, as indices into the backbone's maps."""
    offered = backbone.maps
    if len(offered) < len(LEVELS):
        raise UsageError(
            f"cmal needs three feature maps, and the backbone {backbone.name} has {len(offered)}; choose another "
            "backbone, or `head=linear`"
        )
    deepest_of = {info.stride: index for index, info in enumerate(offered)}
    by_stride = sorted(deepest_of.values())[-len(LEVELS) :]
    chosen = tuple(by_stride if len(by_stride) == len(LEVELS) else range(len(offered))[-len(LEVELS) :])
    for index in chosen:
        rows, columns = offered[index].grid
        if rows == 1 < columns:
            raise UsageError(
                f"cmal crops image regions, and the maps of {backbone.name} are rows of {columns} tokens without a "
                "grid; use `backbone.maps=stages` or another head"
            )
    return chosen
