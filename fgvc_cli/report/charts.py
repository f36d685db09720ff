"""Charts of the report page: SVG that takes its colors from the style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from fgvc_cli.report.templating import fragment, share

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
"""What one step of an axis may be, times a power of ten."""


@dataclass(frozen=True)
class Tick:
    """A figure at an axis.

    Attributes:
        at: where it stands, in [0, 1] from the beginning of the axis to its end.
        text: the figure.
    """

    at: float
    text: str


@dataclass(frozen=True)
class Scale:
    """The values that an axis spans, `low` below `high`."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Return where a value stands, in [0, 1] from the beginning of the axis to its end."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int, whole: bool = False) -> list[Tick]:
        """Return round figures on the axis.

        Args:
            most: how many at most.
            whole: whether they are whole numbers.
        """
        step = _step(self.high - self.low, most, whole)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        digits += round(step * 10**digits, 9) % 1 != 0  # a step of 2.5 needs one more
        return [Tick(self.at(i * step), f"{i * step:.{digits}f}") for i in range(first, last + 1)]


def spanning(values: Iterable[float], least: float | None = None, room: float = 0.05) -> Scale:
    """Return a scale that holds all values.

    Args:
        values: finite numbers.
        least: where the axis begins; None: a little below the smallest value.
        room: share of the span that stays free at its ends.
    """
    found = list(values)
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    low = low if least is None else min(low, least)
    spare = room * (high - low) or room * abs(high) or 1.0
    return Scale(low - (0.0 if least is not None else spare), high + spare)


def _step(span: float, most: int, whole: bool) -> float:
    """Return the smallest round step that makes `most` figures at most."""
    least = span / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(least))
    step = next(size * power for size in (*STEPS, 20.0) if size * power >= least * (1 - 1e-9))
    return max(1.0, math.ceil(step)) if whole else step


COLORS = 8
"""Colors that the style sheet has for lines: `c1` to `c8`."""
DOTTED = 30
"""Up to so many points of a line are shown as dots."""
UNITS = 1000
"""The plot is that wide and high in its own units, whatever it is on the page."""


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        name: of what.
        points: (x, y) by ascending x; finite numbers.
        color: from 1; there are `COLORS`.
        dashed: whether it is broken, or its points hollow: what tells it from another one beside its color.
        joined: whether its points are; if not, each stands for itself.
    """

    name: str
    points: Sequence[tuple[float, float]]
    color: int
    dashed: bool = False
    joined: bool = True


@dataclass(frozen=True)
class Mark:
    """A point that stands out.

    Attributes:
        x, y: where.
        text: what it is.
    """

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class LineChart:
    """Curves over a common axis.

    Attributes:
        title: what the y axis shows, with its unit.
        description: what is to be seen, for who cannot see it.
        lines: at least one of them has a point.
        x_title: what the x axis shows.
        from_zero: whether the y axis begins at 0.
        whole: whether the figures at the x axis are whole numbers.
        mark: a point that stands out, or None.
        legend: whether what its lines are stands below; if not, `legend` says it once for several charts.
    """

    title: str
    description: str
    lines: Sequence[Line]
    x_title: str = "epoch"
    from_zero: bool = False
    whole: bool = True
    mark: Mark | None = None
    legend: bool = True

    def markup(self) -> Markup:
        """Return the SVG, and what its lines are."""
        points = [point for line in self.lines for point in line.points]
        across = spanning((x for x, _ in points), room=0.02)
        up = spanning((y for _, y in points), least=0.0 if self.from_zero else None)
        shown = [_Drawn.of(line, across, up) for line in self.lines if line.points]
        mark = None if self.mark is None else (across.at(self.mark.x), up.at(self.mark.y))
        return fragment(
            "line_chart.html",
            chart=self,
            shown=shown,
            lines=[drawn.line for drawn in shown],
            mark_text="" if self.mark is None else self.mark.text,
            across=_within(across.ticks(6, self.whole)),
            up=_within(up.ticks(7)),
            mark=mark,
        )


def legend(lines: Sequence[Line]) -> Markup:
    """Return what lines are, for charts that have the same."""
    return fragment("legend.html", lines=lines, mark_text="")


@dataclass(frozen=True)
class _Drawn:
    """A line in the plot's own units."""

    line: Line
    path: str
    dots: str

    @classmethod
    def of(cls, line: Line, across: Scale, up: Scale) -> _Drawn:
        places = [(_units(across.at(x)), _units(1 - up.at(y))) for x, y in line.points]
        path = "M" + "L".join(f"{x} {y}" for x, y in places) if line.joined else ""
        dots = "".join(f"M{x} {y}h0" for x, y in places) if len(places) <= DOTTED or not line.joined else ""
        return cls(line, path, dots)


def _units(at: float) -> str:
    return f"{UNITS * at:.1f}".removesuffix(".0")


def _within(ticks: Sequence[Tick]) -> list[Tick]:
    return [tick for tick in ticks if 0 <= tick.at <= 1]


def skyline(accuracies: Sequence[float], mean: float) -> Markup:
    """Draw a bar a class side by side, lowest first.

    Args:
        accuracies: in [0, 1], one a class; at least one.
        mean: drawn as a line across.
    """
    ordered = sorted(accuracies)
    classes = len(ordered)
    below = sum(accuracy < mean for accuracy in ordered)
    never, always = sum(a == 0 for a in ordered), sum(a == 1 for a in ordered)
    described = (
        f"Accuracy of {classes} classes, sorted: from {share(ordered[0])} to {share(ordered[-1])}, the median at "
        f"{share(ordered[classes // 2])}. Never right: {never}; always right: {always}; below the mean of "
        f"{share(mean)}: {below}."
    )
    return fragment("skyline.html", path=_outline(ordered), classes=classes, mean=mean, described=described)


def _outline(ordered: Sequence[float]) -> str:
    """Return the outline as a path in a plot as wide as there are classes and 100 high; equal neighbors in one."""
    path, right = "M0 100", 0
    for height, equal in groupby(round(100 - 100 * accuracy, 1) for accuracy in ordered):
        right += len(list(equal))
        path += f"V{height:g}H{right}"
    return f"{path}V100z"
