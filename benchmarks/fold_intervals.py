"""Measure how often 95 % intervals from a cross-validation contain the true accuracy of a method.

Two classifiers, nearest class mean and nearest neighbor, are cross-validated on many draws of Gaussian classes. The
truth is the mean over all draws, since the accuracy over folds is unbiased for training on that number of images.

    python benchmarks/fold_intervals.py --draws 400 --images 120 --folds 5
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.stats import t

from fgvc_cli.experiments.statistics import fold_interval

CLASSES, WIDTH, DISTANCE = 5, 8, 0.7


def predict_mean(x: np.ndarray, y: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Predict the class with the nearest mean."""
    known = np.unique(y)
    means = np.stack([x[y == label].mean(axis=0) for label in known])
    return known[((test[:, None] - means) ** 2).sum(axis=-1).argmin(axis=1)]


def predict_neighbor(x: np.ndarray, y: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Predict the class of the nearest neighbor."""
    return y[((test[:, None] - x) ** 2).sum(axis=-1).argmin(axis=1)]


def main() -> None:
    """Print the coverage and the mean width of three intervals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--folds", type=int, default=5)
    chosen = parser.parse_args()
    rng, folds = np.random.default_rng(0), chosen.folds
    means = rng.normal(size=(CLASSES, WIDTH))
    methods = {"nearest mean": predict_mean, "nearest neighbor": predict_neighbor}
    correct: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    fold_of = []
    for _ in range(chosen.draws):
        y = rng.integers(0, CLASSES, chosen.images)
        x = rng.normal(size=(chosen.images, WIDTH)) + DISTANCE * means[y]
        fold_of.append(rng.permutation(chosen.images) % folds)
        for name, predict in methods.items():
            right = np.zeros(chosen.images)
            for fold in range(folds):
                held_out = fold_of[-1] == fold
                right[held_out] = predict(x[~held_out], y[~held_out], x[held_out]) == y[held_out]
            correct[name].append(right)
    images = {name: np.stack(each) for name, each in correct.items()}
    images["difference"] = images["nearest mean"] - images["nearest neighbor"]
    for name, of_images in images.items():
        scores = np.array(
            [[row[of == fold].mean() for fold in range(folds)] for row, of in zip(of_images, fold_of, strict=True)]
        )
        mean, error = scores.mean(axis=1), scores.std(axis=1, ddof=1) / np.sqrt(folds)
        half = {
            "corrected t": np.array([fold_interval(row, folds)[1] for row in scores]) - mean,
            "t": t.ppf(0.975, folds - 1) * error,
            "images": 1.96 * of_images.std(axis=1) / np.sqrt(chosen.images),
        }
        for kind, each in half.items():
            covered = (np.abs(mean - mean.mean()) <= each).mean()
            print(
                f"{name:17} {kind:12} coverage {100 * covered:5.1f} %   mean width {100 * 2 * each.mean():.1f} points"
            )


if __name__ == "__main__":
    main()
