"""Measure how much a test accuracy gains by being the best of several scores and epochs: on noise alone, and on demo.

The public evaluation code of two methods reports a maximum over the test images:

- PIM (github.com/chou141253/FGVC-PIM, eval.py and main.py, commit a1cc6d4): after an epoch it computes the accuracies
  of every map's mean logits, of every map's selected and dropped points one by one, of the combiner, and of five sums
  of these scores, and takes the largest; training keeps the largest over all evaluated epochs (12 of 50 with its
  settings for CUB-200).
- CMAL (github.com/Dichao-Liu/CMAL, utils.py and train_FGVC_Aircraft_ResNet50.py, commit 05ff5b0): one score, the sum of
  eight logits, and the largest over all evaluated epochs (105 of 200).

Noise alone: equally good scores with correlated mistakes are simulated image by image, and their maximum is compared
with what each is worth. On demo: the rules are applied to the predictions of every output after every epoch of small
trainings, and compared with the prediction of the epoch that is best on the validation images. How much of a maximum is
luck is measured by choosing on one half of the test images and scoring the other half, 200 times. The correlations of
the trained heads' answers say which row of the simulation applies.

    OMP_NUM_THREADS=1 python benchmarks/best_of_scores.py --seeds 0 1 2 --epochs 6
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import option_parser, report
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm
from torch import Tensor

import fgvc_cli
from fgvc_cli.contracts import RunStart, Split
from fgvc_cli.data.images import read_image
from fgvc_cli.runs.results import EpochMetrics
from fgvc_cli.scoring.scores import evaluating
from fgvc_cli.training.callbacks import Callback
from fgvc_cli.training.setup import Job

HALVES = 200
"""Number of random divisions of the test images."""

Correct = dict[str, np.ndarray]
"""For each score by name, the share of its answers that are correct, per image."""

CASES = {
    "PIM, CUB-200": (5794, 0.928, 18 * 12),
    "PIM, the combiner, CUB-200": (5794, 0.928, 12),
    "CMAL, FGVC-Aircraft": (3333, 0.947, 105),
    "PIM, demo": (300, 0.6, 18 * 6),
    "CMAL, demo": (300, 0.6, 6),
}
"""Test images, accuracy, and accuracies of which the largest is reported: scores times epochs."""

CORRELATIONS = (0.4, 0.9, 0.99)


def pim_scores(output: Any, labels: Tensor) -> Correct:
    """Return what the public evaluation of PIM compares after an epoch, for a batch."""
    means = [points.mean(dim=1) for points in output.point_scores]
    found = {f"map{index}": _hit(scores, labels) for index, scores in enumerate(means)}
    for index, (points, kept) in enumerate(zip(output.point_scores, output.kept, strict=True)):
        right = (points.argmax(dim=2) == labels[:, None]).float()  # (B, N)
        selected = torch.zeros_like(right).scatter_(1, kept, 1.0)
        for name, mask in ((f"selected{index}", selected), (f"dropped{index}", 1 - selected)):
            if mask.any():
                found[name] = ((right * mask).sum(dim=1) / mask.sum(dim=1)).numpy()
    found["combiner"] = _hit(output.scores, labels)
    probabilities = torch.stack([*means, output.scores], dim=1).softmax(dim=2)  # (B, L + 1, K)
    order = probabilities.amax(dim=2).argsort(dim=1)  # the least confident first, as the public code sorts
    sums = probabilities.gather(1, order[:, :, None].expand_as(probabilities)).cumsum(dim=1)
    return found | {f"highest{n + 1}": _hit(sums[:, n], labels) for n in range(sums.shape[1])}


def cmal_scores(classifier: Any, images: Tensor, labels: Tensor) -> Correct:
    """Return the only score that the public evaluation of CMAL compares, for a batch."""
    return {"sum of 8": _hit(classifier.scores(images), labels)}


def _hit(scores: Tensor, labels: Tensor) -> np.ndarray:
    return (scores.argmax(dim=1) == labels).float().numpy()


class EveryOutput(Callback):
    """Keeps, after each epoch, which test images each output of a head has right, and the validation accuracy."""

    def __init__(self) -> None:
        self.epochs: list[Correct] = []
        self.validation: list[float] = []

    def on_train_start(self, run: RunStart, job: Job) -> None:  # noqa: ARG002
        """Load the test images."""
        self.classifier, split = job.classifier, job.splits.test
        assert isinstance(split, Split)
        self.images = torch.stack([self.classifier.preprocessing(read_image(image)) for image in split.images])
        self.labels = torch.tensor(split.labels)

    def on_epoch_end(self, metrics: EpochMetrics, is_best: bool) -> None:  # noqa: ARG002
        """Score the test images."""
        self.validation.append(metrics.val.top1)
        found: list[Correct] = []
        with evaluating(self.classifier):
            for pixels, labels in zip(self.images.split(50), self.labels.split(50), strict=True):
                images = self.classifier.normalize(pixels)
                if hasattr(self.classifier.head, "selectors"):
                    found.append(pim_scores(self.classifier(images), labels))
                else:
                    found.append(cmal_scores(self.classifier, images, labels))
        self.epochs.append({name: np.concatenate([part[name] for part in found]) for name in found[0]})


def trained(head: str, seed: int, arguments: argparse.Namespace) -> EveryOutput:
    """Train a small network on demo."""
    watched = EveryOutput()
    options = {
        "pim": {"fpn_size": 64, "num_selects": [64, 32, 8, 2]},
        "cmal": {"expert_width": 64, "map_channels": 128, "hidden_width": 64},
    }
    with tempfile.TemporaryDirectory() as folder:
        fgvc_cli.train(
            backbone=arguments.backbone,
            head=head,
            recipe="scratch",
            weights="none",
            image_size=64,
            epochs=arguments.epochs,
            seed=seed,
            device="cpu",
            settings={f"head.{name}": value for name, value in options[head].items()},
            out=Path(folder) / "run",
            callbacks=[watched],
        )
    return watched


def rule_on(found: EveryOutput, prediction: str) -> dict[str, float | str]:
    """Apply the rule of the public code to a training; accuracies and gains in percentage points."""
    names = list(found.epochs[0])
    table = 100 * np.array([[epoch[name] for name in names] for epoch in found.epochs])  # (E, S, images)
    means = table.mean(axis=2)
    honest = int(np.argmax(found.validation)), names.index(prediction)
    best = np.unravel_index(means.argmax(), means.shape)
    rng, lucky = np.random.default_rng(0), []
    for _ in range(HALVES):
        order = rng.permutation(table.shape[2])
        first, second = (table[:, :, half].mean(axis=2) for half in np.array_split(order, 2))
        chosen = np.unravel_index(first.argmax(), first.shape)
        lucky.append(first[chosen] - second[chosen])
    return {
        "by validation": float(means[honest]),
        "best of the scores, that epoch": float(means[honest[0]].max()),
        "best of the epochs, that score": float(means[:, honest[1]].max()),
        "best of all": float(means[best]),
        "which": f"{names[best[1]]}, epoch {best[0] + 1}",
        "luck on half the images": float(np.mean(lucky)),
    }


def correlations(runs: Sequence[EveryOutput]) -> dict[str, float]:
    """Return the mean tetrachoric correlation of two scores of an epoch, of a score in two epochs, and of both.

    Only epochs of the second half of a training and scores of whole images count.
    """
    pairs: dict[str, list[float]] = {"scores": [], "epochs": [], "both": []}
    for run in runs:
        late = run.epochs[len(run.epochs) // 2 :]
        names = [name for name in late[0] if set(np.unique(late[0][name])) <= {0.0, 1.0}]
        items = [(number, name, epoch[name]) for number, epoch in enumerate(late) for name in names]
        for index, (epoch, name, one) in enumerate(items):
            for other_epoch, other_name, other in items[:index]:
                kind = "scores" if epoch == other_epoch else "epochs" if name == other_name else "both"
                if 0 < one.mean() < 1 and 0 < other.mean() < 1:
                    pairs[kind].append(float(np.corrcoef(one, other)[0, 1]))
    level = float(np.mean([score.mean() for run in runs for score in run.epochs[-1].values()]))
    return {kind: latent_correlation(float(np.mean(found)), level) for kind, found in pairs.items() if found}


def latent_correlation(phi: float, accuracy: float) -> float:
    """Return the correlation of two normal variables whose signs correlate by phi (both positive that often)."""
    threshold = norm.ppf(accuracy)

    def difference(r: float) -> float:
        both = multivariate_normal.cdf([threshold, threshold], cov=[[1, r], [r, 1]])
        return float((both - accuracy**2) / (accuracy * (1 - accuracy)) - phi)

    return float(brentq(difference, -0.5, 0.9999))


def gain_on_noise(images: int, accuracy: float, count: int, correlation: float, trials: int) -> float:
    """Return the mean gain, in points, of the best of equally good scores.

    An image is right where a normal variable is below a threshold; the variables of two scores have this correlation.
    """
    rng, threshold, gains = np.random.default_rng(0), norm.ppf(accuracy), []
    for _ in range(trials):
        shared, own = (rng.standard_normal((images, columns), np.float32) for columns in (1, count))
        right = (np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own < threshold).mean(axis=0)
        gains.append(100 * (right.max() - right.mean()))
    return float(np.mean(gains))


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("--backbone", default="timm/test_resnet")
    parser.add_argument("--heads", nargs="*", default=["pim", "cmal"], choices=["pim", "cmal"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--device", default="cpu", choices=["cpu"])
    arguments = parser.parse_args()
    figures, latent, noise = {}, {}, {}
    for head in arguments.heads:
        runs = [trained(head, seed, arguments) for seed in arguments.seeds]
        prediction = "combiner" if head == "pim" else "sum of 8"
        figures[head] = [rule_on(run, prediction) for run in runs]
        latent[head] = correlations(runs)
        print(f"{head}, {arguments.backbone}, {arguments.epochs} epochs; correlations {_rounded(latent[head])}")
        for seed, row in zip(arguments.seeds, figures[head], strict=True):
            print(f"  seed {seed}: " + ", ".join(f"{name} {_short(value)}" for name, value in row.items()))
    print(f"the best of equally good scores, correlations {CORRELATIONS}, points")
    for name, (images, accuracy, count) in CASES.items():
        gains = [gain_on_noise(images, accuracy, count, r, arguments.trials) for r in CORRELATIONS]
        noise[name] = dict(zip(map(str, CORRELATIONS), gains, strict=True))
        what = f"{count} of {images} images at {100 * accuracy:.1f} %"
        print(f"  {name}, {what}: " + ", ".join(f"+{gain:.2f}" for gain in gains))
    report(arguments, torch.device("cpu"), {"rules": figures, "latent_correlations": latent, "noise": noise})


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.1f}"


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}


if __name__ == "__main__":
    main()
