"""The files of a comparison: JSON, CSV, Markdown and the learning curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fgvc_cli.experiments.comparison import COMPONENTS, Comparison, ComparisonTable, Row
from fgvc_cli.experiments.text import cells, images_text, notes, row_labels
from fgvc_cli.files import write_csv, write_json, write_text
from fgvc_cli.runs.results import EpochMetrics
from fgvc_cli.viz import dress, make_figure, save_figure, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's color-blind safe palette without its yellow, which is too pale for lines.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#22272E")
STROKES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
PANELS = (
    ("val", "top1", "Validation top-1 accuracy, %", 100.0),
    ("val", "loss", "Validation loss", 1.0),
    ("train", "top1", "Training top-1 accuracy, %", 100.0),
    ("train", "loss", "Training loss", 1.0),
)
"""Learning curves that are drawn: part of the metrics, name, title and factor."""


def write_comparison(folder: Path, comparison: Comparison) -> list[Path]:
    """Write the files of a comparison, each atomically, and return them."""
    written = [folder / name for name in ("comparison.json", "comparison.csv", "comparison.md")]
    write_json(written[0], comparison.as_json())
    records = list(_records(comparison))
    columns = list(dict.fromkeys(column for record in records for column in record))
    write_csv(written[1], columns, ([record.get(column) for column in columns] for record in records))
    write_text(written[2], as_markdown(comparison))
    for number, table in enumerate(comparison.tables, 1):
        written.append(folder / ("curves.png" if number == 1 else f"curves-{number}.png"))
        draw_curves(written[-1], table.rows, row_labels(table))
    return written


def _records(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yield the CSV record of each row and each failed run."""
    for table in comparison.tables:
        for i, row in enumerate(table.rows):
            gap = table.gap(i)
            yield {
                "dataset": table.evaluation.dataset["name"],
                "split": table.evaluation.split,
                "images": table.images,
                **{name: getattr(row, name) for name in COMPONENTS},
                "seeds": " ".join(map(str, row.seeds)),
                **_figures(row),
                "parameters_backbone": row.parameters["backbone"],
                "parameters_head": row.parameters["head"],
                "letters": table.letters[i],
                **({} if gap is None else {"gap": gap.points, "p": gap.p_corrected}),
                **table.settings_of(i),
            }
    for failed in comparison.failed:
        names = {name: getattr(failed, name) for name in COMPONENTS}
        yield {**names, "seeds": str(failed.seed), "failed": failed.reason}


def _figures(row: Row) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name in ("top1", "macro_f1", "minutes", "images_per_second"):
        spread = getattr(row, name)
        found[name] = None if spread is None else spread.mean
        found[f"{name}_deviation"] = None if spread is None else spread.deviation
        if spread is not None and spread.interval is not None:
            found[f"{name}_low"], found[f"{name}_high"] = spread.interval
    found |= {f"top1_{level}": top1.mean for level, top1 in row.groups.items()}
    return found if row.severity is None else {**found, "severity": row.severity.mean}


def as_markdown(comparison: Comparison) -> str:
    """Return the tables in Markdown."""
    parts = [_markdown_table(table) for table in comparison.tables]
    others = [
        *(f"- failed: {failed.title}: {failed.reason}" for failed in comparison.failed),
        *(f"- not finished: {name}" for name in comparison.unfinished),
    ]
    return "\n\n".join([*parts, *(["\n".join(others)] if others else [])]) + "\n"


def _markdown_table(table: ComparisonTable) -> str:
    records = [
        {"model": row.backbone, "optimizer": row.optimizer, "head": row.head, **cells(table, i)}
        for i, row in enumerate(table.rows)
    ]
    columns = [column for column in records[0] if any(record[column] for record in records)]
    rows = [columns, *([record[column].replace("|", "\\|") for column in columns] for record in records)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([images_text(table), "", *lines, "", *(f"- {note}" for note in notes(table))])


def draw_curves(path: Path, rows: Sequence[Row], labels: Sequence[str]) -> None:
    """Draw accuracy and loss by epoch, a line per row: the mean over its seeds, with their range shaded."""
    from matplotlib.lines import Line2D

    figure = make_figure(10.0, 7.4 + 0.22 * -(-len(rows) // 2))
    metrics = [[run.run.metrics for run in row.runs] for row in rows]
    for panel, (part, name, title, factor) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        for number, of_runs in enumerate(metrics):
            _draw_curve(panel, of_runs, part, name, factor, _style(number))
        dress(panel, title, legend=False)
    handles = [Line2D([], [], linewidth=1.7, **_style(number)) for number in range(len(rows))]
    escaped = [label.replace("$", r"\$") for label in labels]
    figure.legend(handles, escaped, loc="outside lower left", ncols=2, frameon=False, fontsize=9)
    save_figure(figure, path)


def _draw_curve(
    axes: Axes, of_runs: Sequence[Sequence[EpochMetrics]], part: str, name: str, factor: float, style: Any
) -> None:
    found = [series(lines, part, name) for lines in of_runs]
    epochs = sorted({float(epoch) for run_epochs, _ in found for epoch in run_epochs})
    if not epochs:
        return
    values = np.full((len(found), len(epochs)), np.nan)  # a run that stopped early has none at the end
    for i, (run_epochs, of_run) in enumerate(found):
        values[i, np.searchsorted(epochs, run_epochs)] = factor * of_run
    marker = "o" if len(epochs) == 1 else ""
    axes.plot(epochs, np.nanmean(values, axis=0), linewidth=1.7, marker=marker, markersize=4, **style)
    if len(found) > 1:
        low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
        axes.fill_between(epochs, low, high, color=style["color"], alpha=0.12, linewidth=0)


def _style(number: int) -> dict[str, Any]:
    """Return the color and the stroke of a row."""
    return {"color": COLORS[number % len(COLORS)], "linestyle": STROKES[number // len(COLORS) % len(STROKES)]}
