"""X"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgvc_cli import UsageError
from fgvc_cli.contracts import BackboneInfo, Features, Head, Model, Objective, PublishedState, Reads
from fgvc_heads.options import PimOptions
from fgvc_heads.pim.combiner import Combiner
from fgvc_heads.pim.losses import PimOutput, pim_loss
from fgvc_heads.pim.published import take_apart
from fgvc_heads.pim.pyramid import FeaturePyramid
from fgvc_heads.pim.selector import Selector


def kept_points(output: PimOutput, grids: Sequence[tuple[int, int]], size: tuple[int, int]) -> Tensor:
    """Return maps B,H,W (float32) in [0, 1]: the kept points of all maps, each as strong as its confidence.

    Each map's are put on its grid, 0 elsewhere, and enlarged bilinearly to the image; the sum over the maps is divided
    by its largest value.

    Args:
        output: of a forward pass.
        grids: (rows, columns) of each map, shallow first.
        size: (H, W) of the images.
    """
    total = output.scores.new_zeros((len(output.scores), *size), dtype=torch.float32)
    for kept, confidences, grid in zip(output.kept, output.confidences, grids, strict=True):
        points = total.new_zeros((len(kept), grid[0] * grid[1])).scatter_(1, kept, confidences.float())
        total += F.interpolate(points.view(-1, 1, *grid), size, mode="bilinear", align_corners=False).squeeze(1)
    return total / total.amax(dim=(1, 2), keepdim=True)  # a confidence is 1/K at least: never 0


class PimHead(Head):
    """Picks the most telling points of every map and combines them (arXiv 2202.03822).

    Args:
        backbone: what the backbone says of itself; the head fits its maps' exact grids.
        classes: the number of classes K.
        options: see `PimOptions`.

    Raises:
        UsageError: the backbone offers no maps, or `num_selects` lists a number for more or fewer maps than are used.
    """

    def __init__(self, backbone: BackboneInfo, classes: int, options: PimOptions) -> None:
        super().__init__(backbone, classes, options)
        self.backbone_info, self.options = backbone, options
        self.map_indices = _last_maps(backbone, options.maps)
        maps = [backbone.maps[index] for index in self.map_indices]
        self.asked = _num_selects(options, len(maps))
        self.keeps = keeps = [min(asked, info.points) for asked, info in zip(self.asked, maps, strict=True)]

        self.pyramid = FeaturePyramid(maps, options.fpn_size, _upsampling(backbone, options))
        self.selectors = nn.ModuleList(Selector(options.fpn_size, classes, keep) for keep in keeps)
        self.combiner = Combiner(
            sum(keeps),
            options.fpn_size,
            classes,
            joints=max(1, sum(keeps) // options.joints_divisor),
            adjacency_width=max(1, options.fpn_size // options.adjacency_divisor),
            dropout=options.dropout,
        )

    def reads(self, part: str | None = None) -> Reads:  # noqa: ARG002
        """Read the last maps, as many as the options say; never the embedding."""
        return Reads(maps=self.map_indices)

    def forward(self, features: Features, part: str | None = None) -> PimOutput:  # noqa: ARG002
        """Select the telling points of each map and combine them."""
        pyramid = self.pyramid([features.maps[index] for index in self.map_indices])
        selections = [select(points) for select, points in zip(self.selectors, pyramid, strict=True)]
        point_scores, kept, confidences = zip(*selections, strict=True)
        return PimOutput(self.combiner(pyramid, kept), point_scores, kept, confidences)

    def objectives(self, images: Tensor, targets: Tensor) -> Generator[Objective, Any, None]:
        """Yield the weighted sum of the four losses."""
        yield Objective(images, lambda output: pim_loss(output, targets, self.options))

    def predict(self, model: Model, images: Tensor) -> Tensor:
        """Return the combiner's scores B,K."""
        output: PimOutput = model(images)
        return output.scores

    @torch.no_grad()
    def attention(self, model: Model, images: Tensor) -> Tensor | None:
        """Return maps B,S,S in [0, 1] of the points kept: see `kept_points`; None where maps are rows of tokens."""
        grids = [self.backbone_info.maps[index].grid for index in self.map_indices]
        if any(rows == 1 < columns for rows, columns in grids):
            return None
        return kept_points(model(images), grids, (images.shape[2], images.shape[3]))

    def all_scores(self, output: PimOutput) -> dict[str, Tensor]:
        """Return every score that PIM could be read by, by name, each as log probabilities B,K.

        "combiner" is the prediction; "map0", "map1" ... are the mean scores of single maps, by their index in the
        backbone; "top1", "top2" ... average the probabilities of that many of these, the most confident ones of each
        image. The published evaluation prints the best of such scores on the test set; only "combiner" is honest
        there. (It also ranks them the other way round, so that only its average over all of them is comparable.)
        """
        names = ["combiner", *(f"map{index}" for index in self.map_indices)]
        means = [scores.mean(dim=1, dtype=torch.float32) for scores in output.point_scores]
        single = torch.stack([output.scores.float(), *means], dim=1).log_softmax(dim=2)  # B,L+1,K
        order = single.amax(dim=2).argsort(dim=1, descending=True)
        ranked = single.exp().gather(1, order.unsqueeze(2).expand_as(single)).cumsum(dim=1)
        averages = {f"top{n + 1}": (ranked[:, n] / (n + 1)).log() for n in range(len(names))}
        return dict(zip(names, single.unbind(dim=1), strict=True)) | averages

    def notes(self) -> list[str]:
        """Say what this backbone, at this image size, made of the options."""
        lines = []
        offered, size = len(self.backbone_info.maps), self.backbone_info.image_size
        if self.options.maps > offered:
            lines.append(f"pim: head.maps={self.options.maps}, but {self.backbone_info.name} has {offered}: uses all.")
        whole = [
            f"map {index} ({self.backbone_info.maps[index].points} points, {asked} asked for)"
            for index, asked in zip(self.map_indices, self.asked, strict=True)
            if asked >= self.backbone_info.maps[index].points
        ]
        if whole:
            lines.append(f"pim: at {size} px all points are kept of {', '.join(whole)}: none to drop, so no L_n there.")
        return lines

    def published(self, state: Mapping[str, Tensor]) -> PublishedState | None:
        """Take apart a checkpoint of the public code."""
        return take_apart(state, self)


def _last_maps(backbone: BackboneInfo, wanted: int) -> tuple[int, ...]:
    """Index the last maps that the backbone offers."""
    offered = len(backbone.maps)
    if not offered:
        raise UsageError(f"pim reads feature maps, and the backbone {backbone.name} offers none: try --head linear.")
    return tuple(range(max(0, offered - wanted), offered))


def _num_selects(options: PimOptions, maps: int) -> tuple[int, ...]:
    """Return how many points are asked for of each map, shallow first."""
    if isinstance(options.num_selects, int):
        return (options.num_selects,) * maps
    if len(options.num_selects) != maps:
        raise UsageError(
            f"head.num_selects={list(options.num_selects)} has {len(options.num_selects)} numbers, and pim uses {maps} "
            f"maps here: give {maps} numbers, or one for all maps."
        )
    return options.num_selects


def _upsampling(backbone: BackboneInfo, options: PimOptions) -> Literal["bilinear", "tokens"]:
    """Choose how deep maps reach shallow grids."""
    if options.upsampling == "auto":
        return "tokens" if backbone.architecture == "transformer" else "bilinear"
    return options.upsampling
