"""Whether a classifier is as often right as it says."""

from __future__ import annotations

import numpy as np

from fgvc_cli.evaluation.scoring import Scores

BINS = 15


def expected_calibration_error(scores: Scores, bins: int = BINS) -> float:
    """Return the mean distance between confidence and accuracy, in [0, 1], over bins of confidence of equal width.

    Images fall into the bins (0, 1/bins], (1/bins, 2/bins], ... by the probability of the predicted class; the bins
    are weighted by their images (Guo et al. 2017, On Calibration of Modern Neural Networks, section 2, equation 3).
    Images whose probabilities are not finite are left out. No image gives 0.
    """
    finite = scores.predicted >= 0
    confidence = scores.confidence[finite].astype(np.float64)
    correct = (scores.predicted == scores.labels)[finite]
    if not len(confidence):
        return 0.0
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    distance = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(distance).sum() / len(confidence))
