"""What came out: a sentence, and the figures that matter most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from fgvc_cli.display.evaluation_tables import images_text
from fgvc_cli.reporting.run_report import RunReport
from fgvc_cli.reporting.scored import Scored
from fgvc_cli.reporting.templating import count, fragment, share

NAMES = {"test": "test", "val": "validation", "train": "training"}
"""What a split is called in a sentence."""


@dataclass(frozen=True)
class Statistic:
    """A figure that is shown large.

    Attributes:
        name: of what.
        value: the figure.
        more: what to know beside it.
    """

    name: str
    value: str
    more: str = ""


def result(report: RunReport) -> Markup:
    """Return the sentence and the figures; of a run without any, that it has none."""
    scored = report.scored
    if scored is None:
        return fragment("result.html", scored=None, missing=report.missing)
    summary = scored.summary
    return fragment(
        "result.html",
        scored=scored,
        split=NAMES.get(summary["split"], f"“{summary['split']}”"),
        images=images_text(summary),
        chance=report.recorded.summary["chance"],
        statistics=_statistics(scored),
        untrained=not report.recorded.summary["epochs"],
        missing=report.missing,
    )


def _statistics(scored: Scored) -> list[Statistic]:
    summary: dict[str, Any] = scored.summary
    macro, weighted = summary["macro"], summary["weighted"]
    present, classes = summary["classes_present"], summary["classes"]
    shown = [
        Statistic("top-1", share(summary["top1"]), f"± {share(scored.standard_error)}"),
        Statistic("top-5", share(summary["top5"])) if summary["top5"] is not None else None,
        Statistic("macro F1", share(macro["f1"]), "classes weigh alike"),
        Statistic("weighted F1", share(weighted["f1"]), "images weigh alike"),
        Statistic("calibration error", share(summary["calibration_error"]), "15 bins"),
        Statistic("images", count(summary["images"]), f"{present} of {classes} classes"),
    ]
    return [statistic for statistic in shown if statistic is not None]
