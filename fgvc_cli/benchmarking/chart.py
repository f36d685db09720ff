"""Draw a benchmark as a bar chart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fgvc_cli.benchmarking.results import Report, Row, Work
from fgvc_cli.benchmarking.text import baseline_name, row_names, sections, setup_lines, speed
from fgvc_cli.formatting import ratio
from fgvc_cli.viz import FAINT, INK, make_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The color-blind safe palette of Okabe and Ito without its yellow, which is too pale on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
FAILED = "#8A919A"

MANY = 20
"""Above this number of bars the axis is labeled at both ends."""
WIDTH = 9.0
BAR_INCHES = 0.24
"""Height of a bar and the gap below it, so that names stay readable however many bars there are."""
GAP = 1.3
"""Space for the name of a backbone, in bars."""
REASON_LENGTH = 80
"""Characters of the reason for a failure that the chart shows; the table shows all of it."""


def draw_chart(path: Path, report: Report) -> None:
    """Draw one bar per combination, grouped by backbone and colored by head, in the order of the table.

    A thin line in each bar spans the quartiles; images per second and the ratio to the baseline follow the bar. A
    combination that failed has the reason in place of the bar.
    """
    rows, titles = report.rows, sections(report.rows)
    places, headings = _places(titles)
    figure = make_figure(WIDTH, 1.1 + BAR_INCHES * (places[-1] + 1))
    axes = figure.subplots()
    heads = list(dict.fromkeys(row.head for row in rows))
    fastest = max(row.update.images_per_second for row in rows if row.update)
    for row, place in zip(rows, places, strict=True):
        if row.update is None:
            _mark_failed(axes, row, place, fastest)
        else:
            _draw_bar(axes, row, row.update, place, COLORS[heads.index(row.head) % len(COLORS)], fastest)
    for title, place in headings.items():
        axes.text(0, place, _plain(title), va="center", ha="left", color=INK, fontsize=10, fontweight="bold")
    _style_axes(axes, rows, places, fastest)
    _title(axes, report)
    save_figure(figure, path)


def _places(titles: Sequence[str]) -> tuple[list[float], dict[str, float]]:
    """Return the position of each bar and of each section's title, in bars from the top."""
    places: list[float] = []
    headings: dict[str, float] = {}
    next_place = 0.0
    for title in titles:
        if title not in headings:
            next_place += GAP - 1 if headings else 0
            headings[title] = next_place
            next_place += 1
        places.append(next_place)
        next_place += 1
    return places, headings


def _draw_bar(axes: Axes, row: Row, work: Work, place: float, color: str, fastest: float) -> None:
    rate = work.images_per_second
    axes.barh(place, rate, height=0.78, color=color)
    low, high = (1000 * work.images / milliseconds for milliseconds in (work.timing.high, work.timing.low))
    axes.plot([low, high], [place, place], color=INK, linewidth=1.2, solid_capstyle="butt")
    relative = f"  × {ratio(work.ratio)}" if work.ratio is not None and not row.baseline else ""
    axes.text(max(rate, high) + 0.008 * fastest, place, f"{speed(work)}{relative}", va="center", color=INK, fontsize=8)


def _mark_failed(axes: Axes, row: Row, place: float, fastest: float) -> None:
    reason = row.failed or "not measured"
    short = reason if len(reason) <= REASON_LENGTH else reason[: REASON_LENGTH - 1] + "…"
    axes.plot([0.004 * fastest], [place], marker="x", markersize=5, color=FAILED, clip_on=False)
    axes.text(0.015 * fastest, place, _plain(short), va="center", color=FAILED, fontsize=8, fontstyle="italic")


def _style_axes(axes: Axes, rows: Sequence[Row], places: Sequence[float], fastest: float) -> None:
    axes.set_ylim(places[-1] + 0.7, -0.7)
    axes.set_xlim(0, 1.12 * fastest)
    axes.set_yticks(list(places), [_plain(name) for name in row_names(rows)], fontsize=8.5)
    axes.tick_params(colors=INK, length=0, labelsize=8.5, labeltop=len(rows) > MANY)
    axes.grid(axis="x", color="#E6E9ED", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(FAINT)


def _title(axes: Axes, report: Report) -> None:
    """Write the title and, smaller, machine and settings above the bars."""
    name = "Training updates, images per second"
    if baseline := baseline_name(report.rows):
        name += f" (× relative to {baseline} on the same backbone)"
    above = 20 if len(report.rows) > MANY else 6  # points; the labels of the axis are there too
    about = _plain("\n".join(setup_lines(report)))
    axes.annotate(about, (0, 1), (0, above), "axes fraction", "offset points", color=INK, fontsize=8.5)
    axes.set_title(_plain(name), loc="left", color=INK, fontsize=11, pad=above + 30)


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # a dollar sign would start math text
