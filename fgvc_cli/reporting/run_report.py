"""All that is reported of a run, before it becomes a section of the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc_cli.display.progress import View
from fgvc_cli.evaluation.computing import run_of
from fgvc_cli.registry import Registry
from fgvc_cli.reporting.examples import Examples, show_examples
from fgvc_cli.reporting.material import Material
from fgvc_cli.reporting.recorded import Recorded, read_recorded
from fgvc_cli.reporting.request import ReportRequest
from fgvc_cli.reporting.scored import Scored
from fgvc_cli.runs.folder import RunFolder


@dataclass(frozen=True)
class RunReport:
    """A run, its figures, and images that it is right and wrong about.

    Attributes:
        request: what was asked for.
        recorded: what the run folder says of the training.
        scored: the figures of a split; None where there are none and none can be made.
        examples: images with heat maps; None where there are none.
        missing: what is not in the report, and why, a sentence each.
        files: where an image is, by its key; of those shown, where they are files.
    """

    request: ReportRequest
    recorded: Recorded
    scored: Scored | None
    examples: Examples | None
    missing: list[str]
    files: dict[str, Path]

    def as_json(self) -> dict[str, Any]:
        """Return the facts as JSON has them."""
        scored, examples = self.scored, self.examples
        return {
            "run": str(run_of(self.recorded.run.model_file)),
            "title": self.recorded.title,
            "split": None if scored is None else scored.summary["split"],
            "images": None if scored is None else scored.summary["images"],
            "top1": None if scored is None else scored.summary["top1"],
            "standard_error": None if scored is None else scored.standard_error,
            "evaluation": None if scored is None or scored.folder is None else str(scored.folder),
            "explainer": None if examples is None else examples.explainer,
            "mistakes": [] if examples is None else [example.key for example in examples.mistakes],
            "occlusion": []
            if examples is None
            else [{"image": example.key, "survived": example.survived} for example in examples.panels],
            "missing": self.missing,
        }


def report_run(run: RunFolder, request: ReportRequest, registry: Registry, view: View) -> RunReport:
    """Gather what is reported of a run; a split that was not evaluated yet is.

    Args:
        run: a finished one.
        request: what is wanted.
        registry: finds data sets and explainers.
        view: takes notes and progress.

    Raises:
        FgvcError: the run is damaged, or what was asked for is not to be had.
        UsageError: there is no such split, explainer or device.
    """
    recorded = read_recorded(run)
    view.note(f"run        {recorded.run.path}")
    material = Material(recorded, request, registry)
    scored = material.scored(view)
    examples = _examples(material, scored, view)
    if examples is not None and examples.left_out:
        material.missing.append(_left_out(examples.left_out))
    files = {} if examples is None or material.subject is None else _files(examples, material)
    return RunReport(request, recorded, scored, examples, material.missing, files)


def _examples(material: Material, scored: Scored | None, view: View) -> Examples | None:
    """Explain images if they, the classifier and the predictions are there."""
    images = material.request.images
    if scored is None or not scored.predictions or material.subject is None or not images:
        return None
    ready, explainer = material.explaining, material.explainer
    if ready is None or explainer is None:
        return None
    return show_examples(ready, explainer, material.subject.split, scored.predictions, images, view)


def _left_out(reasons: dict[str, str]) -> str:
    key, reason = next(iter(reasons.items()))
    more = f" and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return f"Images were left out: {key}{more} ({reason.rstrip('.')})."


def _files(examples: Examples, material: Material) -> dict[str, Path]:
    assert material.subject is not None
    split = material.subject.split
    shown = {example.key for example in (*examples.mistakes, *examples.panels)}
    return {
        key: image
        for key, image in zip(split.keys, split.images, strict=True)
        if key in shown and isinstance(image, Path)
    }
