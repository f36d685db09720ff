"""The head `pim`: the plug-in module as a head."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgvc_cli import UsageError
from fgvc_cli.contracts import BackboneInfo, Features, Head, Model, Objective, PublishedState, Reads
from fgvc_heads.options import PimOptions
from fgvc_heads.pim.combiner import Combiner
from fgvc_heads.pim.losses import PimOutput, pim_loss
from fgvc_heads.pim.published import split_checkpoint
from fgvc_heads.pim.pyramid import FeaturePyramid, TokenUpsampling
from fgvc_heads.pim.selector import Selector


class PimHead(Head):
    """Select the most discriminative points of each map and combine them.

    Reference: Chou, Lin, Kao 2022, arXiv 2202.03822.

    Args:
        backbone: description of the backbone; the head is built for the exact grids of its maps.
        classes: number of classes K.
        options: see `PimOptions`.

    Raises:
        UsageError: the backbone offers no maps, or the length of `num_selects` is not the number of maps used.
    """

    distills = True
    unchanged_images = True

    def __init__(self, backbone: BackboneInfo, classes: int, options: PimOptions) -> None:
        super().__init__(backbone, classes, options)
        self.backbone_info, self.options = backbone, options
        offered = len(backbone.maps)
        if not offered:
            raise UsageError(f"pim needs feature maps, and the backbone {backbone.name} has none; try `head=linear`")
        self.map_indices = tuple(range(max(0, offered - options.maps), offered))
        self.maps = [backbone.maps[index] for index in self.map_indices]
        self.requested = _num_selects(options, len(self.maps))
        keeps = [min(requested, info.points) for requested, info in zip(self.requested, self.maps, strict=True)]

        upsampling = options.upsampling
        if upsampling == "auto":
            upsampling = "tokens" if backbone.architecture == "transformer" else "bilinear"
        self.pyramid = FeaturePyramid(self.maps, options.fpn_size, upsampling)
        if options.upsampling == "auto":
            self.pyramid.register_load_state_dict_pre_hook(FeaturePyramid.upsample_as_saved)
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
        """Read the deepest maps, as many as `options.maps`; never the embedding."""
        return Reads(maps=self.map_indices)

    def forward(self, features: Features, part: str | None = None) -> PimOutput:  # noqa: ARG002
        """Select points of each map and combine them."""
        pyramid = self.pyramid([features.maps[index] for index in self.map_indices])
        selections = [select(points) for select, points in zip(self.selectors, pyramid, strict=True)]
        point_scores, kept, confidences = zip(*selections, strict=True)
        return PimOutput(self.combiner(pyramid, kept), point_scores, kept, confidences)

    def objectives(self, images: Tensor, targets: Tensor) -> Generator[Objective, Any, None]:
        """Yield the weighted sum of the four losses."""
        yield Objective(images, lambda output: pim_loss(output, targets, self.options))

    def predict(self, model: Model, images: Tensor) -> Tensor:
        """Return the combiner's logits B,K."""
        output: PimOutput = model(images)
        return output.scores

    @torch.no_grad()
    def attention(self, model: Model, images: Tensor) -> Tensor | None:
        """Return maps B,S,S (float32) in [0, 1]: the points kept, weighted by their confidence.

        The points of each map are placed on its grid, 0 elsewhere, and upsampled bilinearly to the image; the sum over
        the maps is divided by its maximum. Returns None if the maps are rows of tokens without a grid.
        """
        if any(info.grid[0] == 1 < info.grid[1] for info in self.maps):
            return None
        output: PimOutput = model(images)
        total = output.scores.new_zeros((len(images), *images.shape[2:]), dtype=torch.float32)
        for kept, confidences, info in zip(output.kept, output.confidences, self.maps, strict=True):
            points = total.new_zeros((len(kept), info.points)).scatter_(1, kept, confidences.float())
            grid = points.view(-1, 1, *info.grid)
            total += F.interpolate(grid, total.shape[1:], mode="bilinear", align_corners=False).squeeze(1)
        return total / total.amax(dim=(1, 2), keepdim=True)  # a confidence is at least 1/K, never 0

    def all_scores(self, output: PimOutput) -> dict[str, Tensor]:
        """Return every score that the published evaluation considers, by name, as log probabilities B,K.

        "combiner" is the prediction; "map0", "map1" ... are the mean logits of single maps, by their index in the
        backbone; "top1", "top2" ... average the probabilities of that many of these, the most confident ones of each
        image. The published evaluation reports the best of such scores on the test set; only "combiner" is an honest
        result there. (It also ranks them in reverse, so only its average over all of them is comparable.)
        """
        names = ["combiner", *(f"map{index}" for index in self.map_indices)]
        means = [scores.mean(dim=1, dtype=torch.float32) for scores in output.point_scores]
        single = torch.stack([output.scores.float(), *means], dim=1).log_softmax(dim=2)  # (B, L + 1, K)
        order = single.amax(dim=2).argsort(dim=1, descending=True)
        ranked = single.exp().gather(1, order.unsqueeze(2).expand_as(single)).cumsum(dim=1)
        averages = {f"top{n + 1}": (ranked[:, n] / (n + 1)).log() for n in range(len(names))}
        return dict(zip(names, single.unbind(dim=1), strict=True)) | averages

    def notes(self) -> list[str]:
        """Report options that this backbone at this image size clamps."""
        lines = []
        info = self.backbone_info
        if self.options.maps > len(info.maps):
            lines.append(f"pim: `head.maps={self.options.maps}`, but {info.name} has {len(info.maps)}; using all")
        whole = [
            f"map {index} ({found.points} points, {requested} requested)"
            for index, found, requested in zip(self.map_indices, self.maps, self.requested, strict=True)
            if requested >= found.points
        ]
        if whole:
            lines.append(
                f"pim: at {info.image_size} px every point is kept on {', '.join(whole)}; nothing is dropped there, "
                "so there is no L_n"
            )
        return lines

    def published(self, state: Mapping[str, Tensor]) -> PublishedState | None:
        """Split a checkpoint of the public code into head and backbone."""
        learned = any(isinstance(module, TokenUpsampling) for module in self.pyramid.upsamplers)
        return split_checkpoint(state, self.options, self.requested, self.backbone_info, self.maps, learned)


def _num_selects(options: PimOptions, maps: int) -> tuple[int, ...]:
    """Return the number of points requested of each map, shallow first."""
    if isinstance(options.num_selects, int):
        return (options.num_selects,) * maps
    if len(options.num_selects) != maps:
        raise UsageError(
            f"`head.num_selects={list(options.num_selects)}` has {len(options.num_selects)} numbers, and pim uses "
            f"{maps} maps here; give {maps} numbers, or one for all maps"
        )
    return options.num_selects
