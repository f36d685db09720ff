"""What a study comes to: the document that `summary.json` holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fgvc_cli._version import __version__
from fgvc_cli.contracts import Split
from fgvc_cli.devices import describe_device
from fgvc_cli.evaluation.computing import ReadyClassifier
from fgvc_cli.evaluation.subject import Subject
from fgvc_cli.evaluation.summary import dataset_record
from fgvc_cli.explaining.explainers import NamedExplainer
from fgvc_cli.explaining.measuring import Measured
from fgvc_cli.explaining.study_figures import beside, by_image, by_step, finite, per_class, totals
from fgvc_cli.explaining.study_images import Chosen
from fgvc_cli.explaining.study_request import StudyRequest


@dataclass(frozen=True)
class Scored:
    """What was measured with one run and one explainer.

    Attributes:
        ready: the run's classifier.
        explainer: whose maps they are.
        is_baseline: whether that is the random map.
        split: the images.
        class_names: the run's.
        measured: the figures of the images that could be read.
    """

    ready: ReadyClassifier
    explainer: NamedExplainer
    is_baseline: bool
    split: Split
    class_names: Sequence[str]
    measured: Measured

    @property
    def run(self) -> Path:
        """What a person names the run by."""
        return self.ready.run


def summarise(
    scored: Sequence[Scored],
    request: StudyRequest,
    subject: Subject,
    chosen: Chosen,
    failures: Mapping[str, str],
    interrupted: bool,
    seconds: float,
) -> dict[str, Any]:
    """Return what `summary.json` holds; all shares are fractions in [0, 1], figures that there are none of are None.

    `explainers` has an entry for each run and explainer: {"run", "explainer", "options", "is_baseline"}, the figures of
    `totals`, `not_finite` (images whose scores are not numbers; they enter no figure), `steps` (see `by_step`),
    `over_random` (see `beside`; not for the random map itself) and `per_class`.

    Args:
        scored: of all runs and explainers.
        request: what was asked for.
        subject, chosen: the images.
        failures: why images could not be read, by key.
        interrupted: whether it ended early.
        seconds: wall time.
    """
    first = scored[0].ready
    return {
        "runs": [str(run) for run in dict.fromkeys(entry.run for entry in scored)],
        "dataset": dataset_record(subject.dataset, subject.data),
        "split": subject.split.name,
        "origin": subject.split.origin,
        "notes": list(subject.notes),
        "images_available": chosen.available,
        "images_chosen": len(chosen.splits[0]),
        "chosen": chosen.how,
        "target": request.target,
        "cover": asdict(request.cover),
        "cover_steps": request.steps,
        "curve_steps": request.curve_steps,
        "tolerance": request.tolerance,
        "interrupted": interrupted,
        "explainers": [_entry(entry, _baseline(entry, scored)) for entry in scored],
        "failures": [{"key": key, "reason": reason} for key, reason in failures.items()],
        "seconds": round(seconds, 3),
        "device": describe_device(first.classifier.device),
        "precision": first.precision,
        "fgvc": __version__,
    }


def _baseline(entry: Scored, scored: Sequence[Scored]) -> Scored | None:
    return next((other for other in scored if other.is_baseline and other.run == entry.run), None)


def _entry(entry: Scored, baseline: Scored | None) -> dict[str, Any]:
    figures, rows = by_image(entry.measured), finite(entry.measured)
    over = None
    if baseline is not None and not entry.is_baseline:
        both = rows & finite(baseline.measured)
        over = beside(figures, by_image(baseline.measured), both)
    return {
        "run": str(entry.run),
        "explainer": entry.explainer.name,
        "options": dict(entry.explainer.options),
        "is_baseline": entry.is_baseline,
        **totals(figures, rows),
        "not_finite": int((~rows).sum()),
        "steps": by_step(entry.measured, rows),
        "over_random": over,
        "per_class": per_class(figures, entry.measured.array("labels"), rows, entry.class_names),
    }
