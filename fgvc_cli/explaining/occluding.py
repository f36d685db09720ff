"""The occlusion test: cover what a map marks most, predict again, and draw the map again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fgvc_cli.devices import autocast
from fgvc_cli.evaluation.computing import ReadyClassifier
from fgvc_cli.evaluation.scoring import scores_of
from fgvc_cli.explaining.covering import Cover, cover_pixels, most_marked
from fgvc_cli.explaining.explainers import NamedExplainer, is_in_range


@dataclass(frozen=True)
class Look:
    """One look of a classifier at a batch of images, all tensors on the CPU.

    Attributes:
        pixels: uint8 B,3,S,S as the classifier saw them.
        probabilities: float32 B,K.
        targets: int64 B, the class that each map explains.
        maps: float32 B,S,S in [0, 1].
        covered: bool B,S,S, everything that is covered in this look.
    """

    pixels: Tensor
    probabilities: Tensor
    targets: Tensor
    maps: Tensor
    covered: Tensor


class Occlusion:
    """Images of which more and more is covered.

    Attributes:
        seen: uint8 B,3,S,S, the images as they are now.
        covered: bool B,S,S, what of them is covered.

    Args:
        pixels: uint8 B,3,S,S, the images as they are; the filling is made of these.
        cover: how much is covered each time, and with what.
    """

    def __init__(self, pixels: Tensor, cover: Cover) -> None:
        self.pixels, self.cover = pixels, cover
        self.seen = pixels
        self.covered = torch.zeros_like(pixels[:, 0], dtype=torch.bool)

    def cover_most_marked(self, maps: Tensor) -> None:
        """Cover what maps B,S,S mark most, on top of what is covered already."""
        self.covered = self.covered | most_marked(maps, self.cover, self.covered)
        self.seen = cover_pixels(self.pixels, self.covered, self.cover.fill)


def looks(
    explainer: NamedExplainer,
    ready: ReadyClassifier,
    pixels: Tensor,
    targets: Tensor | None,
    cover: Cover,
    steps: int,
) -> Iterator[Look]:
    """Give a classifier's looks at a batch: at the images as they are, then with more and more of them covered.

    Args:
        explainer: marks the pixels.
        ready: the classifier.
        pixels: uint8 B,3,S,S.
        targets: the class to explain of each image (int64 B); None: the one that is predicted in that very look.
        cover: how much is covered each time, and with what: the most marked pixels of the look before, on top of what
            is covered already.
        steps: looks after the first.

    Yields:
        `steps` + 1 looks, on the CPU.

    Raises:
        FgvcError: memory runs out, or a map has values that the contract does not allow.
    """
    device = ready.classifier.device
    wanted = None if targets is None else targets.to(device, non_blocking=True)
    occlusion = Occlusion(pixels.to(device, non_blocking=True), cover)
    for step in range(steps + 1):
        with ready.memory_explained():
            probabilities = class_probabilities(ready, occlusion.seen)
            explained = probabilities.argmax(dim=1) if wanted is None else wanted
            maps = explained_maps(explainer, ready, occlusion.seen, explained)
            look = Look(*(t.cpu() for t in (occlusion.seen, probabilities, explained, maps, occlusion.covered)))
            if (~is_in_range(look.maps) & look.probabilities.isfinite().all(dim=1)).any():
                raise explainer.out_of_range()
            if step < steps:
                occlusion.cover_most_marked(maps)
        yield look


@torch.no_grad()
def class_probabilities(ready: ReadyClassifier, pixels: Tensor) -> Tensor:
    """Return float32 B,K on the device, for uint8 pixels B,3,S,S."""
    return scores_of(ready.classifier, pixels, ready.precision).softmax(dim=1)


def explained_maps(explainer: NamedExplainer, ready: ReadyClassifier, pixels: Tensor, targets: Tensor) -> Tensor:
    """Return float32 maps B,S,S on the device, for uint8 pixels B,3,S,S and B class indices."""
    classifier = ready.classifier
    with autocast(classifier.device, ready.precision):
        return explainer.explain(classifier, classifier.normalize(pixels), targets).detach().float()


@torch.no_grad()
def marked_probabilities(ready: ReadyClassifier, pixels: Tensor, maps: Tensor) -> Tensor:
    """Return float32 B,K on the device, for the normalised images times their maps (uint8 B,3,S,S and B,S,S)."""
    classifier = ready.classifier
    images = classifier.normalize(pixels) * maps[:, None]
    with autocast(classifier.device, ready.precision):
        scores = classifier.scores(images)
    return scores.float().softmax(dim=1)
