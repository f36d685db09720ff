"""Sliding-window occlusion: the drop of the class probability when a patch is masked."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fgvc_cli.contracts import Classifier, Explainer
from fgvc_explainers.options import SlidingWindowOptions
from fgvc_explainers.recording import to_unit_range

MID_GRAY = 128
"""Pixel value."""


class SlidingWindow(Explainer):
    """Slide a patch over the image (Zeiler, Fergus 2014, ECCV, arXiv 1311.2901).

    The value of a pixel is the mean drop of the target's probability over all patches that contain it, or 0 if masking
    raises the probability on average. Maps are divided by their maximum. Patches are at most `stride` apart and reach
    all edges: 10 x 10 patches by default, so 101 forward passes per image.

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
        drops = whole.unsqueeze(1) - self._masked(classifier, images, targets, masks)  # B,P
        grid = drops.unflatten(1, (len(rows), len(columns)))
        with torch.autocast(images.device.type, enabled=False):
            return to_unit_range(_mean_over_patches(grid, rows.float(), columns.float()).relu())

    def _spans(self, side: int, device: torch.device) -> Tensor:
        """Return P,S (bool): the pixels that the patch covers, for each of its positions along a side of S pixels."""
        window = max(1, round(self.options.window * side))
        stride = max(1, round(self.options.stride * side))
        positions = math.ceil((side - window) / stride) + 1
        step = (side - window) / max(1, positions - 1)  # in pixels; at most `stride` after rounding
        starts = (torch.arange(positions, device=device) * step).round().unsqueeze(1)
        pixels = torch.arange(side, device=device)
        return (pixels >= starts) & (pixels < starts + window)

    def _masked(self, classifier: Classifier, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
        """Return B,P: the target's probability with each of P patches masked."""
        fill = self._fill(classifier, images)
        pairs = torch.arange(len(images) * len(masks), device=images.device)
        probabilities = []
        for chunk in pairs.split(self.options.passes):
            image, patch = chunk // len(masks), chunk % len(masks)
            masked = torch.where(masks[patch].unsqueeze(1), fill[image], images[image])
            probabilities.append(self._probabilities(classifier, masked, targets[image]))
        return torch.cat(probabilities).unflatten(0, (len(images), len(masks)))

    def _fill(self, classifier: Classifier, images: Tensor) -> Tensor:
        """Return the normalized fill colors B,3,1,1."""
        if self.options.fill == "mean":
            return images.mean(dim=(2, 3), keepdim=True)
        gray = classifier.normalize(torch.full((len(images), 3, 1, 1), MID_GRAY, device=images.device))
        return gray.to(images.dtype)

    def _probabilities(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Return the probability of each image's target, B."""
        return classifier.scores(images).float().softmax(dim=1).gather(1, targets.unsqueeze(1)).squeeze(1)


def _mean_over_patches(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return B,S,S: for each pixel the mean value of the patches that cover it.

    Args:
        values: B,P,Q by row and column of the patch.
        rows, columns: P,S and Q,S: 1 where a patch covers a row (column) of pixels, else 0.
    """
    total = rows.T @ values @ columns
    return total / (rows.sum(dim=0)[:, None] * columns.sum(dim=0))
