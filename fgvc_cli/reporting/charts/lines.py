"""Line charts: one or many curves over epochs or time, as wide as the page, with letters that keep their size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fgvc_cli.reporting.charts.scale import Scale, Tick, spanning
from fgvc_cli.reporting.templating import fragment

COLOURS = 8
"""Colours that the style sheet has for lines: `c1` to `c8`."""
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
        colour: from 1; there are `COLOURS`.
        dashed: whether it is broken, or its points hollow: what tells it from another one beside its colour.
        joined: whether its points are; if not, each stands for itself.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: int
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
