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
    LEVELS,
    PARTS,
    Attention,
    CmalOutput,
    concat_loss,
    expert_loss,
    full_passes,
    overall_loss,
)
from fgvc_heads.cmal.published import take_apart
from fgvc_heads.cmal.regions import at_image_size, attention_map, crop, region_boxes, to_unit_range
from fgvc_heads.options import CmalOptions


class CmalHead(Head):
    """Three experts on three maps, each trained on what the others look at (Pattern Recognition 140, 109550).

    The experts read the deepest map of each of the backbone's last three strides. Where it has not three different
    strides (ViT: all maps have stride 16), they read its last three maps: an adaptation of this project, in which
    experts differ by depth, not by resolution.

    An update has five objectives: e3 on the images; e2, then e1, on another expert's attention region or on the
    images; all four classifiers on the overall region; the concatenation on the images. Each runs only the stages and
    experts that its loss needs (and the first also e1 and e2, without gradient, for their attention). Batch-norm
    statistics of what is not run stay as they are; `full_passes=true` runs everything every time and moves them as
    the published code does. Parameters that a loss does not reach do as the option `missing_grad` says.

    Args:
        backbone: what the backbone says of itself.
        classes: the number of classes K.
        options: see `CmalOptions`.

    Raises:
        UsageError: the backbone offers fewer than three maps, or maps that are rows of tokens.
    """

    def __init__(self, backbone: BackboneInfo, classes: int, options: CmalOptions) -> None:
        super().__init__(backbone, classes, options)
        self.backbone_info, self.options = backbone, options
        self.map_indices = _expert_maps(backbone)
        self.parts = full_passes() if options.full_passes else PARTS
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
            expert = self._expert(level)
            with torch.set_grad_enabled(torch.is_grad_enabled() and level not in needs.watching):
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
        """Yield the five objectives; training metrics are the concatenation's on the images, the last one's.

        Attention is computed when the first update is done: from the maps before it and the weights after it.
        """
        weight = self.options.concat_weight
        e1, e2, e3 = (partial(expert_loss, targets=targets, level=level) for level in LEVELS)
        overall = partial(overall_loss, targets=targets, concat_weight=weight)
        concat = partial(concat_loss, targets=targets, concat_weight=weight)

        output = yield self._objective("e3", images, e3)
        attention = self._attend(output, images)
        boxes, overall_box = attention.expert_boxes, attention.overall_box
        del output, attention  # large: not kept through the next four updates
        yield self._objective("e2", self._drawn(images, boxes[:, 2], boxes[:, 0]), e2)
        yield self._objective("e1", self._drawn(images, boxes[:, 2], boxes[:, 1]), e1)
        yield self._objective("overall", crop(images, overall_box), overall)
        yield self._objective("concat", images, concat)

    def predict(self, model: Model, images: Tensor) -> Tensor:
        """Return B,K, the mean of 8 scores: four of the images, and four of their overall attention regions.

        The published prediction is the class with the largest sum, which is the same; its softmax would be far too
        sure of itself.
        """
        first: CmalOutput = model(images)
        second: CmalOutput = model(crop(images, self._attend(first, images).overall_box))
        return torch.stack([*first.all_scores(), *second.all_scores()]).float().mean(dim=0)

    def attention(self, model: Model, images: Tensor) -> Tensor:
        """Return B,S,S in [0, 1], without gradient: where the experts together look."""
        return self.attend(model, images).overall_map

    @torch.no_grad()
    def attend(self, model: Model, images: Tensor) -> Attention:
        """Return where the experts look in images B,3,H,W (normalized), alone and together."""
        return self._attend(model(images), images)

    def notes(self) -> list[str]:
        """Say where the experts differ by depth alone."""
        info = self.backbone_info
        strides = [info.maps[index].stride for index in self.map_indices]
        if len(set(strides)) == len(LEVELS):
            return []
        return [
            f"cmal: {info.name} has not three maps of different stride: the experts read its last three (strides "
            f"{', '.join(map(str, strides))}) and differ by depth, not by resolution as in the paper."
        ]

    def published(self, state: Mapping[str, Tensor]) -> PublishedState | None:
        """Take apart a state dict of the public code."""
        return take_apart(state, self)

    def _expert(self, level: int) -> Expert:
        return cast(Expert, self.experts[level])

    def _objective(self, part: str, images: Tensor, loss: Callable[[CmalOutput], Loss]) -> Objective:
        return Objective(images, loss, part, missing_grad=self.options.missing_grad, name=part)

    @torch.no_grad()
    def _attend(self, output: CmalOutput, images: Tensor) -> Attention:
        """Compute attention from an output on these images and the weights as they now are."""
        assert output.expert_maps is not None, "the part that was run keeps no maps"
        size, options = (images.shape[2], images.shape[3]), self.options
        maps = []
        for level, (own_map, scores) in enumerate(zip(output.expert_maps, output.expert_scores, strict=True)):
            assert scores is not None, "the part that was run does not score the experts"
            attended = attention_map(own_map, scores, self._expert(level).classifier)
            maps.append(at_image_size(attended, size, options.eps))
        experts, overall = torch.stack(maps, dim=1), to_unit_range(torch.stack(maps).sum(dim=0), options.eps)
        return Attention(
            experts,
            region_boxes(experts, options.threshold, options.padding),
            overall,
            region_boxes(overall, options.threshold, options.padding),
        )

    def _drawn(self, images: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return one of two regions of the images, or the images: one draw for the whole batch.

        It is drawn on the CPU, where no device is waited for, from the generator whose state a run saves.
        """
        (draw,) = torch.rand(1, device="cpu").tolist()
        regions = 1 - self.options.raw_share
        if draw >= regions:
            return images
        return crop(images, first if draw < regions / 2 else second)


def _expert_maps(backbone: BackboneInfo) -> tuple[int, ...]:
    """Choose the maps of e1, e2 and e3, as indices into the backbone's."""
    offered = backbone.maps
    if len(offered) < len(LEVELS):
        raise UsageError(
            f"cmal needs three feature maps, and the backbone {backbone.name} offers {len(offered) or 'none'}: choose "
            "another backbone, or --head linear."
        )
    deepest_of = {info.stride: index for index, info in enumerate(offered)}
    by_stride = sorted(deepest_of.values())[-len(LEVELS) :]
    chosen = tuple(by_stride if len(by_stride) == len(LEVELS) else range(len(offered))[-len(LEVELS) :])
    for index in chosen:
        rows, columns = offered[index].grid
        if rows == 1 < columns:
            raise UsageError(
                f"cmal draws boxes on feature maps, and those of {backbone.name} are rows of {columns} tokens, not "
                "pictures: choose other maps (--set backbone.maps=stages) or another head."
            )
    return chosen
