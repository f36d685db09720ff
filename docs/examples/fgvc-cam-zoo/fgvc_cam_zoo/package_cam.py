"""Use a classifier of fgvc with the grad-cam package, which expects a module from images to scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from fgvc_cam_zoo.options import CamOptions
from fgvc_cli import FgvcError, UsageError
from fgvc_cli.contracts import CamLayer, Classifier, Explainer

SMALL_GRID = 4
"""Points per side below which a map shows almost nothing."""


class Scores(nn.Module):
    """A classifier as a module from images to the scores of its prediction."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """Return scores B,K of images B,3,S,S."""
        return self.classifier.scores(images)


class PackageCam(Explainer):
    """Base class for gradient-free explainers of the package; subclasses implement `make`.

    The package gets one image at a time, which bounds its memory and keeps images independent.
    """

    name: ClassVar[str]

    def __init__(self, options: CamOptions) -> None:
        self.options = options

    @abstractmethod
    def make(self, model: nn.Module, layers: list[nn.Module], reshape: Callable[[Tensor], Tensor]) -> BaseCAM:
        """Return the package's object, which hooks the layers; `reshape` converts their output to B,C,H,W."""

    def quiet(self) -> AbstractContextManager[object]:
        """Return a context that disables progress bars of the package."""
        return nullcontext()

    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Return maps B,S,S in [0, 1] of images B,3,S,S for target classes B."""
        layer, device = self._layer(classifier), images.device
        eager = torch.compiler.set_stance("force_eager")  # compiled code skips hooks
        with torch.no_grad(), torch.autocast(device.type, enabled=False), eager, self.quiet():
            cam = self.make(Scores(classifier), [layer.module], lambda output: _as_maps(output, layer))
            try:
                maps = [
                    torch.from_numpy(cam(image.detach()[None].float(), [ClassifierOutputTarget(target)])[0])
                    for image, target in zip(images, targets.tolist(), strict=True)
                ]
            finally:
                cam.activations_and_grads.release()
        return torch.stack(maps).clamp(0, 1).to(device, torch.float32)

    def check(self, classifier: Classifier) -> None:
        """Check that the backbone has the map, and a module for it."""
        self._layer(classifier)

    def notes(self, classifier: Classifier) -> list[str]:
        """Return a note if the map has few points."""
        maps, index = classifier.backbone.info.maps, self._map(classifier)
        grid = maps[-1 if index is None else index].grid if maps else (SMALL_GRID, SMALL_GRID)
        if min(grid) >= SMALL_GRID:
            return []
        return [
            f"{self.name}: the map has {grid[0]}x{grid[1]} points at {classifier.preprocessing.image_size} px; a "
            "shallower one shows more detail (`explainer.map`)"
        ]

    def _map(self, classifier: Classifier) -> int | None:
        return classifier.head.cam_map() if self.options.map is None else self.options.map

    def _layer(self, classifier: Classifier) -> CamLayer:
        index, info = self._map(classifier), classifier.backbone.info
        if index is not None and index >= len(info.maps):
            known = ", ".join(map(str, range(len(info.maps)))) or "none"
            raise UsageError(f"explainer.map={index}: {info.name} has the maps {known}")
        try:
            return classifier.backbone.cam_layer(index)
        except (FgvcError, ValueError) as error:
            raise UsageError(f"{self.name} needs the activations of a layer: {error}") from error


def _as_maps(output: Tensor, layer: CamLayer) -> Tensor:
    """Convert a layer's output to B,C,H,W, as a copy, because the next module may modify it in place."""
    if layer.layout == "BHWC":
        output = output.permute(0, 3, 1, 2)
    elif layer.layout == "BNC":
        assert layer.grid is not None, "tokens without a grid"
        output = output[:, layer.prefix :].transpose(1, 2).unflatten(2, layer.grid)
    return output.float().clone()
