"""From what several runs say of the same images to what they say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fgvc_cli.evaluation.scoring import Scores


def aligned(scores: Scores, own_names: Sequence[str], names: Sequence[str], left_out: frozenset[str]) -> Scores:
    """Return scores with their classes in another order, without some images.

    Args:
        scores: of a run whose classes are `own_names`.
        own_names: K names, in the order of the scores.
        names: the same names, in the order that is wanted.
        left_out: keys of images.
    """
    position = {name: index for index, name in enumerate(own_names)}
    columns = np.array([position[name] for name in names])
    place = np.argsort(columns)  # from an own class to its place in the wanted order
    kept = np.array([key not in left_out for key in scores.keys], bool)
    probabilities, labels = scores.probabilities[kept][:, columns], place[scores.labels[kept]]
    keys = [key for key, stays in zip(scores.keys, kept, strict=True) if stays]
    loss = scores.loss if kept.all() else cross_entropy(probabilities, labels)
    return replace(scores, probabilities=probabilities, labels=labels, keys=keys, loss=loss)


def averaged(members: Sequence[Scores]) -> Scores:
    """Return the scores of the ensemble: the mean of the members' probabilities, each member counting alike.

    Where a member's probabilities are not finite the mean is not either, and the image counts as wrong. An image that
    a member could not read is nobody's.

    Args:
        members: of the same images in the same order, with the same classes in the same order.
    """
    total = np.zeros(members[0].probabilities.shape, np.float64)
    for member in members:
        total += member.probabilities
    total /= len(members)
    return Scores(
        probabilities=total.astype(np.float32),
        labels=members[0].labels,
        keys=members[0].keys,
        loss=cross_entropy(total, members[0].labels),
        failures={key: reason for member in members for key, reason in member.failures.items()},
        seconds=sum(member.seconds for member in members),
    )


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean cross entropy in nats of probabilities N,K; infinite where a true class has a probability of 0.

    Without an image it is not a number.
    """
    true = np.take_along_axis(probabilities, labels[:, None], axis=1).astype(np.float64)
    with np.errstate(divide="ignore"):
        return float(-np.log(true).mean()) if len(true) else float("nan")
