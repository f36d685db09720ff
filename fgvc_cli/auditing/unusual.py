"""Photographs that are unusable or unlike all others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fgvc_cli.auditing.findings import Finding, Problem
from fgvc_cli.auditing.neighbors import nearest
from fgvc_cli.auditing.survey import Survey

SHARPNESS = -1.2
"""Images below this `Measures.sharpness` are blurred."""

HIGHLIGHTS = 0.4
"""Images whose brightest parts are darker are under-exposed."""

LOWER_QUARTILE = 0.65
"""Images whose darker quarter is brighter are over-exposed."""

NEIGHBORS = 10
"""Number of nearest images whose mean similarity says how unusual an image is."""

DEVIATIONS = 4.0
"""Images whose mean similarity is this many robust standard deviations below the median are unlike all others."""

FEWEST = 50
"""Number of images from which on it is known what is usual."""


def unusual_findings(survey: Survey) -> list[Finding]:
    """Return the images that cannot be read or used, and those unlike all others."""
    return [*_of_check(survey), *_of_pixels(survey), *_odd(survey)]


def _of_check(survey: Survey) -> Iterator[Finding]:
    report = survey.report
    for problem, found in (("unreadable", report.unreadable), ("tiny", report.small), ("narrow", report.odd)):
        for each in found:
            yield Finding(each.image, problem, 1.0, each.what, exclude=problem == "unreadable")  # type: ignore[arg-type]


def _of_pixels(survey: Survey) -> Iterator[Finding]:
    for ref, found in zip(survey.refs, survey.measures, strict=True):
        if found is None:
            continue
        amounts: dict[Problem, float] = {
            "blurred": SHARPNESS - found.sharpness,
            "dark": HIGHLIGHTS - found.highlights,
            "bright": found.lower_quartile - LOWER_QUARTILE,
        }
        values = {
            "blurred": f"sharpness {found.sharpness:.2f}",
            "dark": f"brightest parts at {found.highlights:.0%}",
            "bright": f"three quarters above {found.lower_quartile:.0%}",
        }
        for problem, amount in amounts.items():
            if amount > 0:
                yield Finding(ref, problem, amount, values[problem])


def _odd(survey: Survey) -> Iterator[Finding]:
    if survey.embeddings is None:
        return
    indices = np.flatnonzero(survey.embeddings.any(axis=1))
    if len(indices) < FEWEST:
        return
    values = survey.embeddings[indices]
    means = nearest(values, values, NEIGHBORS, np.arange(len(values))).similarities.mean(axis=1)
    median = np.median(means)
    spread = 1.4826 * np.median(np.abs(means - median))
    deviations = (median - means) / max(float(spread), 1e-6)
    for index in np.flatnonzero(deviations > DEVIATIONS):
        detail = f"mean similarity {means[index]:.2f} to its {NEIGHBORS} nearest, median {median:.2f}"
        yield Finding(survey.refs[indices[index]], "odd", float(deviations[index]), detail)
