"""Temperature scaling: one number that makes probabilities honest and leaves their order as it is."""

from __future__ import annotations

import numpy as np

from fgvc_cli.errors import FgvcError

LIMITS = (0.01, 100.0)
"""Smallest and largest temperature."""
ROWS = 4096
"""Number of images whose probabilities are computed at once, in double precision."""
FLOOR = float(np.finfo(np.float32).smallest_subnormal)
"""Stands for a probability that single precision rounds to 0."""


def fit_temperature(log_probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the temperature with the lowest mean cross entropy.

    The loss is convex in the inverse temperature, so its derivative has one root.

    Args:
        log_probabilities: float32 N,K, finite: logits, up to a constant per image.
        labels: int64 N, the true classes.

    Returns:
        The temperature; None if no temperature is best, because every image is classified correctly and the loss falls
        to 0 with the temperature.

    Raises:
        FgvcError: the scores are no better than chance: the loss falls with ever higher temperatures.

    Reference: Guo, Pleiss, Sun, Weinberger 2017, On Calibration of Modern Neural Networks, section 4.2.
    """

    from scipy.optimize import brentq  # scipy is slow to import, and a prediction does not need it

    def slope(log_temperature: float) -> float:
        """Return the derivative of the loss with respect to the inverse temperature."""
        total = 0.0
        for start in range(0, len(labels), ROWS):
            rows = slice(start, start + ROWS)
            scores = log_probabilities[rows].astype(np.float64)
            true = np.take_along_axis(scores, labels[rows, None], axis=1)[:, 0]
            total += float(((softmax(scores / np.exp(log_temperature)) * scores).sum(axis=1) - true).sum())
        return total / len(labels)

    low, high = np.log(LIMITS).tolist()
    if slope(low) <= 0:
        return None
    if slope(high) >= 0:
        raise FgvcError(
            f"the scores of the {len(labels)} images are no better than chance, whatever the temperature; train the "
            "run first, or calibrate on images of its classes"
        )
    return float(np.exp(brentq(slope, low, high, xtol=1e-9)))


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return probabilities N,K of scores."""
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities N,K (float32) that their logits have at a temperature; rows that are not finite stay."""
    scaled = np.empty_like(probabilities)
    for start in range(0, len(probabilities), ROWS):
        rows = slice(start, start + ROWS)
        with np.errstate(invalid="ignore"):
            scaled[rows] = softmax(np.log(np.maximum(probabilities[rows].astype(np.float64), FLOOR)) / temperature)
    return scaled
