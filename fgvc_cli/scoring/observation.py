"""Observe while a split is scored how familiar each image is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fgvc_cli.data.loading import ImageBatch
from fgvc_cli.scoring.calibration.novelty import ClassMeans, ScoreName
from fgvc_cli.scoring.model import ReadyClassifier


class Observation:
    """Computes the scores of batches for `score`, and collects the novelty scores of their images, in the same order.

    Args:
        ready: the classifier.
        means: class means, for the score "cosine"; None: without it.
        keep_logits: whether to collect the logits too, up to a constant per image.
    """

    def __init__(self, ready: ReadyClassifier, means: ClassMeans | None = None, keep_logits: bool = False) -> None:
        self.ready, self.means, self.keep_logits = ready, means, keep_logits
        self._logits: list[Tensor] = []
        self._scores: dict[ScoreName, list[Tensor]] = {}  # on the device, so that no batch waits for it

    def __call__(self, batch: ImageBatch) -> Tensor:
        """Return the scores B,K of a batch."""
        logits, found = self.ready.observe(batch, self.means)
        for name, values in found.items():
            self._scores.setdefault(name, []).append(values)
        if self.keep_logits:
            self._logits.append(logits.log_softmax(dim=1).cpu())
        return logits

    @property
    def scores(self) -> dict[ScoreName, np.ndarray]:
        """Novelty scores N by name."""
        return {name: torch.cat(values).cpu().numpy() for name, values in self._scores.items()}

    @property
    def log_probabilities(self) -> np.ndarray:
        """float32 N,K, if they are kept."""
        return torch.cat(self._logits).numpy()
