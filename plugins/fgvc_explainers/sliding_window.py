"""Occlusion sensitivity: what the probability loses when a patch is covered."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fgvc_cli.contracts import Classifier, Explainer
from fgvc_explainers.options import SlidingWindowOptions
from fgvc_explainers.scaling import to_unit_range

MID_GRAY = 128
"""Pixel value."""


class SlidingWindow(Explainer):
    """Slides a patch over the image (Zeiler, Fergus 2014, ECCV, arXiv 1311.2901).

    A pixel's value is the mean loss of the target's probability over all patches that cover it; where covering helps
    the class on average it is 0. Maps are divided by their largest value. Patches stand `stride` apart at most and
    reach all edges: at 224 px and with the defaults 10 x 10 of them, 101 forward passes an image.

    Args:
        options: see `SlidingWindowOptions`.
    """

    def __init__(self, options: SlidingWindowOptions) -> None:
        self.options = options

    @torch.no_grad()
    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Return maps B,S,S in [0, 1] of images B,3,S,S for target classes B."""
        targets = targets.to(images.device)
        rows, columns = (self._spans(side, images.device) for side in images.shape[2:])
        masks = (rows[:, None, :, None] & columns[None, :, None, :]).flatten(0, 1)  # P,S,S
        whole = self._probabilities(classifier, images, targets)
        drops = whole.unsqueeze(1) - self._covered(classifier, images, targets, masks)  # B,P
        grid = drops.unflatten(1, (len(rows), len(columns)))
        with torch.autocast(images.device.type, enabled=False):
            return to_unit_range(_mean_over_patches(grid, rows.float(), columns.float()).relu())

    def _spans(self, side: int, device: torch.device) -> Tensor:
        """Return P,S: for each place of the patch along a side of S pixels, which of them it covers."""
        window = max(1, round(self.options.window * side))
        stride = max(1, round(self.options.stride * side))
        places = math.ceil((side - window) / stride) + 1
        step = (side - window) / max(1, places - 1)  # pixels; rounded, no two places are more than `stride` apart
        starts = (torch.arange(places, device=device) * step).round().unsqueeze(1)
        pixels = torch.arange(side, device=device)
        return (pixels >= starts) & (pixels < starts + window)

    def _covered(self, classifier: Classifier, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
        """Return B,P: the target's probability with each of P patches covered."""
        fill = self._fill(classifier, images)
        pairs = torch.arange(len(images) * len(masks), device=images.device)
        found = []
        for some in pairs.split(self.options.passes):
            image, patch = some // len(masks), some % len(masks)
            covered = torch.where(masks[patch].unsqueeze(1), fill[image], images[image])
            found.append(self._probabilities(classifier, covered, targets[image]))
        return torch.cat(found).unflatten(0, (len(images), len(masks)))

    def _fill(self, classifier: Classifier, images: Tensor) -> Tensor:
        """Return the colors B,3,1,1 that cover, normalized."""
        if self.options.fill == "mean":
            return images.mean(dim=(2, 3), keepdim=True)
        gray = classifier.normalize(torch.full((len(images), 3, 1, 1), MID_GRAY, device=images.device))
        return gray.to(images.dtype)

    def _probabilities(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Return B: the probability of each image's target."""
        return classifier.scores(images).float().softmax(dim=1).gather(1, targets.unsqueeze(1)).squeeze(1)


def _mean_over_patches(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return B,S,S: for each pixel the mean of the values B,P,Q of the patches that cover it.

    Args:
        values: of the patches, by their place down and across.
        rows, columns: P,S and Q,S: 1 where a place covers a line of pixels, else 0.
    """
    total = rows.T @ values @ columns
    return total / (rows.sum(dim=0)[:, None] * columns.sum(dim=0))
