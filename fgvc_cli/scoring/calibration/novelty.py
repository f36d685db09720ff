"""How familiar an image is: scores that are low for classes that the classifier has never seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from fgvc_cli.contracts import Classifier, Features

ScoreName = Literal["cosine", "max_logit", "energy", "probability"]
LOGIT_SCORES: tuple[ScoreName, ...] = ("max_logit", "energy", "probability")
SCORES: tuple[ScoreName, ...] = ("cosine", *LOGIT_SCORES)
"""Names of the scores, the default first."""

TEXTS: Mapping[str, str] = {
    "cosine": "cosine similarity to the nearest class mean",
    "max_logit": "maximum logit",
    "energy": "energy (logsumexp of the logits)",
    "probability": "maximum probability, before calibration",
}


def logit_scores(logits: Tensor) -> dict[ScoreName, Tensor]:
    """Return the scores B of logits B,K that need no features.

    Reference: Liu, Wang, Owens, Li 2020, Energy-based Out-of-distribution Detection (energy, here negated);
    Hendrycks et al. 2022, Scaling Out-of-Distribution Detection for Real-World Settings, and Vaze, Han, Vedaldi,
    Zisserman 2022, Open-Set Recognition: a Good Closed-Set Classifier is All You Need? (maximum logit); Hendrycks,
    Gimpel 2017, A Baseline for Detecting Misclassified and Out-of-Distribution Examples (maximum probability).
    """
    energy, highest = logits.logsumexp(dim=1), logits.amax(dim=1)
    return {"max_logit": highest, "energy": energy, "probability": (highest - energy).exp()}


@dataclass(frozen=True)
class ClassMeans:
    """Class means of training features, to compare an image with.

    Features are centered with the mean of the training images and L2-normalized; the score of an image is its cosine
    similarity to the nearest class mean.

    Attributes:
        center: D.
        means: K,D, normalized.

    Reference: Techapanurak, Suganuma, Okatani 2020, Hyperparameter-Free Out-of-Distribution Detection Using Cosine
    Similarity; the normalization is that of Wang et al. 2019, SimpleShot, arXiv 1911.04623.
    """

    center: Tensor
    means: Tensor

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, classes: int) -> ClassMeans:
        """Compute them of features N,D (float32) and labels N; each class has at least one image."""
        center = features.double().mean(dim=0).float()
        unit = F.normalize(features - center, dim=1).double()
        sums = unit.new_zeros(classes, unit.shape[1]).index_add_(0, labels, unit)
        return cls(center, F.normalize(sums, dim=1).float())

    def score(self, features: Tensor) -> Tensor:
        """Return the score B of features B,D."""
        center, means = self.center.to(features.device), self.means.to(features.device)
        return (F.normalize(features - center, dim=1) @ means.T).amax(dim=1)


@contextmanager
def captured_features(classifier: Classifier) -> Iterator[list[Tensor]]:
    """Collect the features B,D (float32) that the backbone computes in the block, one tensor for each of its passes.

    Those of an image are the embedding, or the mean of the deepest map where the head reads maps alone. Heads make
    their first pass over the unchanged images.
    """
    found: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: Features) -> None:  # noqa: ARG001
        features = output.embedding
        if features is None:
            features = output.maps[max(output.maps)].mean(dim=(2, 3))
        found.append(features.float())

    handle = classifier.backbone.register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


@dataclass(frozen=True)
class Detection:
    """How well a score separates known from unknown images.

    Attributes:
        auroc: probability that a known image scores higher than an unknown one, ties count half.
        fpr95: fraction of the unknown images above the threshold that 95 % of the known images reach.
        rejected: fraction of the unknown images below the calibrated threshold; None without one.
        kept: fraction of the known images that reach the calibrated threshold; None without one.
    """

    auroc: float
    fpr95: float
    rejected: float | None = None
    kept: float | None = None

    @classmethod
    def of(cls, known: np.ndarray, unknown: np.ndarray, threshold: float | None = None) -> Detection:
        """Compute it of scores that are higher for known images."""
        from sklearn.metrics import roc_auc_score

        is_known = np.repeat([1, 0], [len(known), len(unknown)])
        reached = np.sort(known)[len(known) - int(np.ceil(round(0.95 * len(known), 9)))]
        return cls(
            auroc=float(roc_auc_score(is_known, np.concatenate([known, unknown]))),
            fpr95=float((unknown >= reached).mean()),
            rejected=None if threshold is None else float((unknown < threshold).mean()),
            kept=None if threshold is None else float((known >= threshold).mean()),
        )
