"""Line charts and the class accuracy chart of the page: SVG that takes its colors from the style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from fgvc_cli.report.page import fragment, percent_text

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0, 20.0)
"""Steps between ticks of an axis, times a power of ten."""
COLORS = 8
"""Number of line colors in the style sheet: `c1` to `c8`."""
MAX_DOTS = 30
"""Lines with more points than this are drawn without dots."""
UNITS = 1000
"""Width and height of the plot in its own units."""


@dataclass(frozen=True)
class Tick:
    """A tick of an axis: its position, from 0 at the start of the axis to 1 at its end, and its label."""

    at: float
    text: str


@dataclass(frozen=True)
class Scale:
    """The range of an axis, `low` < `high`."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float], start: float | None = None, margin: float = 0.05) -> Scale:
        """Return a scale that contains all values.

        Args:
            values: finite numbers.
            start: upper bound of its start; None: a margin below the smallest value.
            margin: free fraction of the range at each end.
        """
        found = list(values)
        low, high = (min(found), max(found)) if found else (0.0, 1.0)
        low = low if start is None else min(low, start)
        spare = margin * (high - low) or margin * abs(high) or 1.0
        return cls(low - (0.0 if start is not None else spare), high + spare)

    def at(self, value: float) -> float:
        """Return the position of a value, from 0 at the start of the axis to 1 at its end."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self, limit: int, integers: bool = False) -> list[Tick]:
        """Return at most `limit` ticks at round values, or at integers."""
        least = (self.high - self.low) / max(limit - 1, 1)
        power = 10.0 ** math.floor(math.log10(least))
        step = next(size * power for size in STEPS if size * power >= least * (1 - 1e-9))
        step = max(1.0, math.ceil(step)) if integers else step
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        digits += round(step * 10**digits, 9) % 1 != 0  # a step of 2.5 needs one more
        ticks = [Tick(self.at(i * step), f"{i * step:.{digits}f}") for i in range(first, last + 1)]
        return [tick for tick in ticks if -1e-9 <= tick.at <= 1 + 1e-9]


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: for the legend.
        points: (x, y) by ascending x; finite numbers.
        color: from 1 to `COLORS`.
        dashed: whether the line is dashed, or its points hollow.
        joined: whether the points are joined by a line.
    """

    name: str
    points: Sequence[tuple[float, float]]
    color: int
    dashed: bool = False
    joined: bool = True


@dataclass(frozen=True)
class Mark:
    """A highlighted point at (x, y), with its label."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class LineChart:
    """Lines over a common axis.

    Attributes:
        title: quantity and unit of the y axis.
        description: alternative text.
        lines: at least one has a point.
        x_title: quantity of the x axis.
        from_zero: whether the y axis starts at 0.
        integers: whether the x axis has ticks at integers only.
        mark: a highlighted point.
        legend: whether a legend is drawn.
    """

    title: str
    description: str
    lines: Sequence[Line]
    x_title: str = "epoch"
    from_zero: bool = False
    integers: bool = True
    mark: Mark | None = None
    legend: bool = True

    def markup(self) -> Markup:
        """Return the SVG with its title and legend."""
        points = [point for line in self.lines for point in line.points]
        x = Scale.of((x for x, _ in points), margin=0.02)
        y = Scale.of((y for _, y in points), start=0.0 if self.from_zero else None)
        drawn = [_DrawnLine.of(line, x, y) for line in self.lines if line.points]
        return fragment(
            "line_chart.html",
            chart=self,
            drawn=drawn,
            lines=[each.line for each in drawn],
            mark_text="" if self.mark is None else self.mark.text,
            x_ticks=x.ticks(6, self.integers),
            y_ticks=y.ticks(7),
            mark=None if self.mark is None else (x.at(self.mark.x), y.at(self.mark.y)),
        )


def legend(lines: Sequence[Line]) -> Markup:
    """Return a legend shared by several charts."""
    return fragment("legend.html", lines=lines, mark_text="")


@dataclass(frozen=True)
class _DrawnLine:
    """A line as SVG paths."""

    line: Line
    path: str
    dots: str

    @classmethod
    def of(cls, line: Line, x_scale: Scale, y_scale: Scale) -> _DrawnLine:
        places = [(_units(x_scale.at(x)), _units(1 - y_scale.at(y))) for x, y in line.points]
        path = "M" + "L".join(f"{x} {y}" for x, y in places) if line.joined else ""
        dots = "".join(f"M{x} {y}h0" for x, y in places) if len(places) <= MAX_DOTS or not line.joined else ""
        return cls(line, path, dots)


def _units(position: float) -> str:
    return f"{UNITS * position:.1f}".removesuffix(".0")


def class_chart(accuracies: Sequence[float], mean: float) -> Markup:
    """Draw a bar for each class, sorted by accuracy in [0, 1], and a horizontal line at their mean."""
    ordered = sorted(accuracies)
    classes = len(ordered)
    description = (
        f"Accuracy of {classes} classes, sorted: from {percent_text(ordered[0])} to {percent_text(ordered[-1])}, "
        f"median {percent_text(ordered[classes // 2])}. Classes at 0 %: {sum(a == 0 for a in ordered)}; at 100 %: "
        f"{sum(a == 1 for a in ordered)}; below the mean of {percent_text(mean)}: {sum(a < mean for a in ordered)}."
    )
    path, right = "M0 100", 0
    for y, equal in groupby(round(100 - 100 * accuracy, 1) for accuracy in ordered):
        right += len(list(equal))
        path += f"V{y:g}H{right}"
    return fragment("class_chart.html", path=f"{path}V100z", classes=classes, mean=mean, description=description)
