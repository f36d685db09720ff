"""Cells and notes of a comparison table as text, shared by the terminal, Markdown and the HTML report."""

from __future__ import annotations

from pathlib import Path

from fgvc_cli.experiments.comparison import ComparisonTable, Spread
from fgvc_cli.experiments.statistics import resamples_of
from fgvc_cli.formatting import count, counted, rate
from fgvc_cli.scoring.scores import LEVEL


def cells(table: ComparisonTable, row: int) -> dict[str, str]:
    """Return the cells of a row by column heading, empty where there is nothing to show."""
    of_row = table.rows[row]
    minutes = of_row.minutes.mean
    backbone, head = (count(of_row.parameters[part]) or "0" for part in ("backbone", "head"))
    seeds, groups, severity = of_row.seeds, of_row.groups, of_row.severity
    levels = dict.fromkeys(level for each in table.rows for level in each.groups)
    return {
        "top-1": percent_text(of_row.top1),
        "gap to best": gap_text(table, row),
        "group": table.letters[row] if len(table.rows) > 1 else "",
        "macro F1": percent_text(of_row.macro_f1),
        **{f"top-1, {level}": percent_text(groups.get(level)) for level in levels},
        "severity": "" if severity is None else f"{severity.mean:.2f}",
        "parameters": f"{backbone} + {head}",
        "minutes": f"{minutes:.{0 if minutes >= 99.95 else 1 if minutes >= 0.995 else 2}f}",
        "images/s": "" if of_row.images_per_second is None else rate(of_row.images_per_second.mean),
        "seeds": ", ".join(
            [f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"]
            + ([counted(len(of_row.folds), "fold")] if of_row.folds else [])
        ),
        "settings": settings_text(table, row),
    }


def percent_text(spread: Spread | None) -> str:
    """Format a fraction as "56.1 %", with several seeds as "56.1 ± 1.2 %" (mean and standard deviation).

    Over folds it is "56.1 % (53.0 to 59.2)", with the 95 % interval.
    """
    if spread is None:
        return ""
    if spread.folds:
        low, high = spread.interval or (spread.mean, spread.mean)
        limits = f" ({max(0.0, 100 * low):.1f} to {min(100.0, 100 * high):.1f})" if spread.interval else ""
        return f"{100 * spread.mean:.1f} %{limits}"
    deviation = "" if spread.deviation is None else f" ± {100 * spread.deviation:.1f}"
    return f"{100 * spread.mean:.1f}{deviation} %"


def gap_text(table: ComparisonTable, row: int) -> str:
    """Format the gap of a row to the best one in points, with its 95 % interval."""
    gap = table.gap(row)
    if gap is None:
        return ""
    return f"{_signed(-gap.points)} ({_signed(-gap.high)} to {_signed(-gap.low)})"


def settings_text(table: ComparisonTable, row: int) -> str:
    """Format the settings in which a row differs from others: "train.epochs 60, head.fpn_size 128"."""
    return ", ".join(f"{name} {text}" for name, text in table.settings_of(row).items())


def row_labels(table: ComparisonTable) -> list[str]:
    """Return a unique label of each row: its components, and its settings where several rows have the same ones."""
    titles = [row.title for row in table.rows]
    return [
        f"{title} ({settings_text(table, row)})" if titles.count(title) > 1 else title
        for row, title in enumerate(titles)
    ]


def images_text(table: ComparisonTable) -> str:
    """Describe the images of a table."""
    first = table.rows[0].runs[0]
    if not table.folds:
        return first.images_text
    how = f"{table.folds} folds of {first.evaluation.origin.partition(f' of {table.folds} of ')[2]}"
    where = Path(first.data).name if first.data not in ("", "None") else first.dataset
    return f"cross-validation on {where}, {how}: {table.images} images, {first.evaluation.classes} classes"


def notes(table: ComparisonTable) -> list[str]:
    """Return the lines below a table: what limits the comparison, and what the columns mean."""
    seeds = [len(row.runs) for row in table.rows]
    several = max(len(row.seeds) for row in table.rows) > 1
    if table.folds:
        return _notes_over_folds(table, several)
    error = f"{100 * table.standard_error:.1f}"
    lines = [
        *table.notes,
        *(["±: standard deviation over seeds."] if several else []),
        f"Sampling this number of images gives a top-1 a standard error of up to {error} points.",
    ]
    if len(table.rows) < 2:
        return lines
    test = "McNemar's exact test" + (" for one seed, else a bootstrap over images and seeds" if several else "")
    return [
        *lines,
        f"gap to best: difference in top-1 points, with 95 % interval ({resamples_of(seeds)} resamples).",
        f"group: rows that share a letter do not differ significantly ({test}; p < {LEVEL:g}, Holm-corrected).",
        *(["One seed compares runs, not methods: another seed may change the order."] if min(seeds) == 1 else []),
    ]


def _notes_over_folds(table: ComparisonTable, several: bool) -> list[str]:
    """Return the lines below a table of a cross-validation."""
    averaged = "Figures are means over folds" + (", and over the seeds of each" if several else "")
    lines = [
        *table.notes,
        f"{averaged}, with the 95 % interval of the expected figure for training sets of this size. It allows for the "
        "overlap of the training sets (Nadeau and Bengio 2003).",
    ]
    if len(table.rows) < 2:
        return lines
    return [
        *lines,
        "gap to best: difference in top-1 points, the mean over folds with its 95 % interval.",
        "group: rows that share a letter do not differ significantly (corrected t test of the differences by fold; "
        f"p < {LEVEL:g}, Holm-corrected).",
    ]


def _signed(fraction: float) -> str:
    """Format a fraction as signed percentage points; values that round to zero have no sign."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")
