"""Accuracy by class: all of few classes; of many, the worst, the best, and all on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from fgvc_cli.reporting.charts.skyline import skyline
from fgvc_cli.reporting.page import Section
from fgvc_cli.reporting.scored import Scored
from fgvc_cli.reporting.templating import count, fragment

SHOWN = 24
"""Up to so many classes all are shown at once."""
EXTREME = 10
"""Of more, so many of the worst and of the best."""
LISTED = 400
"""Classes of the whole list at most: a longer one would make the page heavy, and `per_class.csv` has it."""


@dataclass(frozen=True)
class Group:
    """Classes in one table.

    Attributes:
        title: which.
        rows: as `fgvc evaluate` writes them, worst first (or best first).
    """

    title: str
    rows: Sequence[dict[str, Any]]


def classes_section(scored: Scored, anchor: str) -> Section:
    """Return the tables with their bars; classes without images are named apart."""
    per_class = scored.summary["per_class"]
    rows = sorted((row for row in per_class if row["images"]), key=lambda row: (row["top1"], row["f1"]))
    absent = [row["class"] for row in per_class if not row["images"]]
    if len(rows) <= SHOWN:
        groups = [Group("All classes, worst first", rows)]
    else:
        groups = [
            Group(f"The worst {EXTREME}", rows[:EXTREME]),
            Group(f"The best {EXTREME}", rows[: -EXTREME - 1 : -1]),
        ]
    body = fragment(
        "classes.html",
        outline=_outline(rows) if len(rows) > SHOWN else Markup(),
        groups=groups,
        rest=_rest(rows),
        present=len(rows),
        listed=min(len(rows), LISTED),
        absent=absent,
    )
    return Section(f"{anchor}classes", "Accuracy by class", body, said=f"{count(len(rows))} classes")


def _outline(rows: Sequence[dict[str, Any]]) -> Markup:
    accuracies = [row["top1"] for row in rows]
    return skyline(accuracies, sum(accuracies) / len(accuracies))


def _rest(rows: Sequence[dict[str, Any]]) -> Group | None:
    """Return the whole list, or its worst part, if not all are shown anyway."""
    if len(rows) <= SHOWN:
        return None
    title = "All classes, worst first" if len(rows) <= LISTED else f"The worst {LISTED} classes"
    return Group(title, rows[:LISTED])
