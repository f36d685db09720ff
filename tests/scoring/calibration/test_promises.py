"""What a calibration promises, checked on synthetic logits whose distribution is known, over many draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest

from fgvc_cli.errors import FgvcError
from fgvc_cli.scoring.calibration.conformal import (
    class_thresholds,
    images_for_share,
    lower_quantile,
    set_threshold,
)
from fgvc_cli.scoring.calibration.selective import (
    certified_threshold,
    coverage_curve,
    images_for_precision,
    operating_points,
)
from fgvc_cli.scoring.calibration.temperature import fit_temperature, softmax, tempered

CLASSES = 6


def drawn(rng, images, sharpness=1.0, temperature=1.0):
    """Draw logits N,K and labels that follow the logits at a temperature exactly."""
    logits = sharpness * 1.5 * rng.normal(size=(images, CLASSES)).astype(np.float32)
    noise = rng.gumbel(size=logits.shape)
    return logits, (logits / temperature + noise).argmax(axis=1)


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_temperature_is_the_optimum(true) -> None:
    logits, labels = drawn(np.random.default_rng(0), 6000, 2, true)

    def loss(log_t):
        scaled = logits.astype(np.float64) / np.exp(log_t)
        return (np.log(np.exp(scaled).sum(1)) - scaled[np.arange(len(labels)), labels]).mean()

    reference = np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x)
    found = fit_temperature(logits - 7, labels)
    assert found == pytest.approx(reference, rel=1e-5) and found == pytest.approx(true, rel=0.1)
    assert tempered(softmax(logits), found) == pytest.approx(softmax(logits / found), abs=1e-5)


def test_without_a_best_temperature() -> None:
    logits, _ = drawn(np.random.default_rng(0), 50)
    assert fit_temperature(logits, logits.argmax(1)) is None
    with pytest.raises(FgvcError, match="chance"):
        fit_temperature(logits, logits.argmin(1))
    assert np.isnan(tempered(np.full((1, 3), np.nan, np.float32), 2)).all()


def test_sets_cover_what_they_promise() -> None:
    """The mean coverage over draws is between 1 - alpha and 1 - alpha + 1 / (n + 1), within its binomial interval."""
    rng, hits, total, n = np.random.default_rng(1), 0, 0, 60
    for _ in range(600):
        logits, labels = drawn(rng, n + 50, 2, 2.5)
        probabilities = softmax(logits / fit_temperature(logits[:n], labels[:n]))
        threshold = set_threshold(probabilities[:n], labels[:n], 0.9)
        hits += (probabilities[n:][np.arange(50), labels[n:]] >= threshold).sum()
        total += 50
    interval = binomtest(int(hits), total).proportion_ci(0.999)
    assert interval.high > 0.9 and interval.low < 0.9 + 1 / (n + 1)


def test_sets_by_class_cover_each_class() -> None:
    rng, hits, totals = np.random.default_rng(2), np.zeros(CLASSES), np.zeros(CLASSES)
    shift = np.array([3, 0, 0, 0, 0, -1], np.float32)  # classes of very different difficulty
    for _ in range(300):
        logits, labels = drawn(rng, 400)
        probabilities = softmax(logits + shift)
        if np.bincount(labels[:300], minlength=CLASSES).min() < images_for_share(0.8):
            continue
        covered = probabilities[300:] >= class_thresholds(probabilities[:300], labels[:300], 0.8)
        true = covered[np.arange(100), labels[300:]]
        hits += np.bincount(labels[300:], true, CLASSES)
        totals += np.bincount(labels[300:], minlength=CLASSES)
    for hit, total in zip(hits, totals, strict=True):
        assert binomtest(int(hit), int(total)).proportion_ci(0.999).high > 0.8
        assert hit / total < 0.85


@pytest.mark.parametrize(("precision", "level"), [(0.9, 0.9), (0.8, 0.8)])
def test_the_precision_holds_as_often_as_promised(precision, level) -> None:
    rng = np.random.default_rng(3)
    population, truth = drawn(rng, 5000, 3, 1.6)
    right = population.argmax(1) == truth
    broken = answered = 0
    for _ in range(150):
        chosen = rng.choice(len(population), 200, replace=False)
        confidence = softmax(population / fit_temperature(population[chosen], truth[chosen])).max(1)
        found = certified_threshold(confidence[chosen], right[chosen], precision, level)
        if found is not None:
            above = confidence > found
            broken += right[above].mean() < precision
            answered += above.mean()
    assert binomtest(int(broken), 150, 1 - level, alternative="greater").pvalue > 0.001
    assert answered / 150 > 0.05  # the test has power


def test_a_threshold_is_that_of_the_tests_one_by_one() -> None:
    rng = np.random.default_rng(4)
    confidence = np.round(rng.random(300), 2)  # with ties
    correct = rng.random(300) < 0.7 + 0.3 * confidence
    found = certified_threshold(confidence, correct, 0.8, 0.95)
    best = None
    for threshold in sorted({0.0, *confidence}, reverse=True):
        above = confidence > threshold
        if above.sum() >= 75:  # a quarter of the images
            if binom.cdf((above & ~correct).sum(), above.sum(), 0.2) > 0.05:
                break
            best = threshold
    assert found is not None and found == pytest.approx(best)


def test_how_many_images_a_promise_takes() -> None:
    assert [images_for_share(share) for share in (0.9, 0.95, 0.8, 0.99)] == [9, 19, 4, 99]
    assert lower_quantile(np.arange(9.0), 0.9) == 0
    with pytest.raises(ValueError, match="too few"):
        lower_quantile(np.arange(8.0), 0.9)
    n = images_for_precision(0.95, 0.95)
    assert n == 59 and 0.95**n <= 0.05 < 0.95 ** (n - 1)
    rows = np.linspace(1, 0.5, n)
    assert certified_threshold(rows, np.ones(n, bool), 0.95, 0.95) == 0.0
    assert certified_threshold(rows[1:], np.ones(n - 1, bool), 0.95, 0.95) is None


def test_the_curve_and_its_points() -> None:
    confidence, correct = np.array([0.9, 0.2, 0.7, 0.7]), np.array([True, False, True, False])
    answered, precision = coverage_curve(confidence, correct)
    assert answered.tolist() == [0.25, 0.5, 0.75, 1] and precision.tolist() == pytest.approx([1, 1, 2 / 3, 0.5])
    points = operating_points(confidence, correct, (1.0, 0.75, 0.5))
    assert [(p.threshold, p.answered, p.precision) for p in points] == [
        (0.0, 1.0, 0.5),
        (0.2, 0.75, pytest.approx(2 / 3)),
        (0.7, 0.25, 1.0),
    ]
    assert points[2].lower == pytest.approx(0.05)  # one of one: 5 %
