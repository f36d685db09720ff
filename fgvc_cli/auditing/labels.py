"""Likely label errors: images whose label held-out predictions contradict (confident learning)."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch

from fgvc_cli.contracts.regression import fit_linear
from fgvc_cli.progress import progress

FILTER = "both"
"""cleanlab's rule, pruned by class and by noise rate: it has the fewest false alarms of those that find most errors."""

LEAST_SKILL = 0.5
"""Predictions with a lower Cohen's kappa judge no labels."""

FOLDS = 5
SEED = 0


class HeldOut(NamedTuple):
    """Class probabilities of images by models that were not trained on them.

    Attributes:
        indices: int64 M, positions of the images.
        probabilities: float32 M,K.
    """

    indices: np.ndarray
    probabilities: np.ndarray

    def skill(self, labels: np.ndarray) -> float:
        """Return Cohen's kappa of the predictions: 1 for the labels themselves, 0 for chance."""
        from sklearn.metrics import cohen_kappa_score

        return float(cohen_kappa_score(labels[self.indices], self.probabilities.argmax(axis=1)))


class LabelError(NamedTuple):
    """A likely label error: position of the image, probability of its label, predicted class, and its probability."""

    position: int
    own: float
    predicted: int
    probability: float


def out_of_fold(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: int) -> HeldOut:
    """Predict the class of each image by a logistic regression on the embeddings of the others, in five folds.

    Images of a group are in one fold, so that no model is trained on a copy of an image that it predicts. Images whose
    class has no other group cannot be predicted and are left out.

    Args:
        embeddings: float32 N,D; zero for images that have none, which are left out.
        labels: int64 N.
        groups: int64 N, of copies.
        classes: K.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    usable = np.flatnonzero(embeddings.any(axis=1))
    several = np.array([len(np.unique(groups[usable][labels[usable] == k])) > 1 for k in range(classes)])
    usable = usable[several[labels[usable]]]
    if not len(usable):
        return HeldOut(usable, np.empty((0, classes), np.float32))
    x, y, of_group = torch.from_numpy(embeddings[usable]), labels[usable], groups[usable]
    largest = max(len(np.unique(of_group[y == k])) for k in np.unique(y))
    folds = StratifiedGroupKFold(min(FOLDS, largest), shuffle=True, random_state=SEED)
    found, predicted = np.zeros((len(usable), classes), np.float32), np.zeros(len(usable), dtype=bool)
    with warnings.catch_warnings(), progress("label check", len(usable)) as bar:
        warnings.simplefilter("ignore", UserWarning)  # classes with fewer groups than folds
        for fit_on, held_out in folds.split(x, y, of_group):
            held_out = held_out[np.isin(y[held_out], y[fit_on])]
            fit = fit_linear(x[fit_on], torch.from_numpy(y[fit_on]), classes)
            logits = torch.nn.functional.linear(x[held_out].to(fit.weight.dtype), fit.weight, fit.bias)
            found[held_out], predicted[held_out] = logits.softmax(dim=1).numpy(), True
            bar.advance(len(held_out))
    return HeldOut(usable[predicted], found[predicted])


def label_errors(held_out: HeldOut, labels: np.ndarray) -> list[LabelError]:
    """Return the likely label errors among images with held-out predictions, the most certain first.

    Reference: Northcutt, Jiang and Chuang 2021, Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 70,
    arXiv 1911.00068, by the package cleanlab.
    """
    from cleanlab.filter import find_label_issues

    if len(np.unique(labels[held_out.indices])) < 2:
        return []
    given, probabilities = labels[held_out.indices], held_out.probabilities.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes without images
        issues = find_label_issues(
            given, probabilities, return_indices_ranked_by="self_confidence", filter_by=FILTER, n_jobs=1
        )
    best = probabilities.argmax(axis=1)
    return [
        LabelError(int(held_out.indices[i]), probabilities[i, given[i]], int(best[i]), probabilities[i, best[i]])
        for i in issues.tolist()
        if best[i] != given[i]
    ]
