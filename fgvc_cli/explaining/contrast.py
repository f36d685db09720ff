"""Why one class and not another: any explainer, applied to the difference of two scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fgvc_cli.contracts import Classifier, Explainer
from fgvc_cli.errors import UsageError
from fgvc_cli.explaining.explainers import NamedExplainer


class Pair(Classifier):
    """Two classes of a classifier as a classifier of its own, with the same backbone and head.

    Its scores are (a - b, 0): their softmax is that of a and b alone.

    Args:
        whole: the classifier.
        first, second: indices of a and b.
    """

    def __init__(self, whole: Classifier, first: int, second: int) -> None:
        names = [whole.class_names[first], whole.class_names[second]]
        super().__init__(whole.backbone, whole.head, names, whole.preprocessing)
        self.scale, self.shift, self.image_sizes = whole.scale, whole.shift, whole.image_sizes
        self.training = whole.training
        self._whole, self._indices = (whole,), (first, second)  # in a tuple: no submodule

    def scores(self, images: Tensor) -> Tensor:
        """Return B,2: the margin of a over b, and 0."""
        scores = self._whole[0].scores(images)
        margin = scores[:, self._indices[0]] - scores[:, self._indices[1]]
        return torch.stack([margin, torch.zeros_like(margin)], dim=1)


class Difference(Explainer):
    """Explains the score of the target minus that of another class; without evidence for it the map is zero.

    Args:
        explainer: explains each pair of classes.
        versus: index of the other class.
    """

    def __init__(self, explainer: Explainer, versus: int) -> None:
        self.explainer, self.versus = explainer, versus

    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Return maps B,S,S in [0, 1], the images of each target together."""
        targets = targets.to(images.device)
        maps = torch.zeros_like(images[:, 0], dtype=torch.float32)
        for target in targets.unique().tolist():
            chosen = (targets == target).nonzero().squeeze(1)
            pair = Pair(classifier, target, self.versus)
            maps[chosen] = self.explainer.explain(pair, images[chosen], torch.zeros_like(chosen)).detach().float()
        return maps


def difference(explainer: NamedExplainer, versus: int) -> NamedExplainer:
    """Return the explainer of the difference between the target's score and that of class `versus`."""
    return replace(explainer, explainer=Difference(explainer.explainer, versus))


def check_class_specific(explainers: Sequence[NamedExplainer], versus: str) -> None:
    """Check that the maps of explainers depend on the class.

    Raises:
        UsageError: those of one do not.
    """
    for named in explainers:
        if not named.explainer.class_specific:
            raise UsageError(
                f"`versus={versus}`: the maps of {named.name} are the same for every class; use finer-cam, gradcam or "
                "another explainer whose maps depend on it"
            )
