"""The files of a comparison: JSON, CSV, Markdown and the curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fgvc_cli.comparing.comparison import Comparison, Section
from fgvc_cli.display.comparison_curves import overlaid_curves
from fgvc_cli.display.comparison_figures import (
    behind_text,
    images_text,
    meanings,
    minutes_text,
    parameters_text,
    seeds_text,
    settings_text,
    share_text,
    speed_text,
)
from fgvc_cli.runs import files
from fgvc_cli.runs.tables import write_csv

JSON_FILE, CSV_FILE, MARKDOWN_FILE = "comparison.json", "comparison.csv", "comparison.md"

FIGURES = ("top1", "macro_f1", "minutes", "images_per_second")


def write(folder: Path, comparison: Comparison) -> list[Path]:
    """Write a comparison's files; each replaces its predecessor whole.

    Args:
        folder: where to; it is made.
        comparison: what is written.

    Returns:
        The files.
    """
    written = [folder / name for name in (JSON_FILE, CSV_FILE, MARKDOWN_FILE)]
    document = comparison.as_json()
    files.write_json(written[0], document)
    lines = list(_lines(document))
    columns = list(dict.fromkeys(column for line in lines for column in line))
    write_csv(written[1], columns, ([line.get(column) for column in columns] for line in lines))
    files.write_text(written[2], as_markdown(comparison))
    for number, section in enumerate(comparison.sections, 1):
        written.append(folder / ("curves.png" if number == 1 else f"curves-{number}.png"))
        overlaid_curves(written[-1], section.rows, labels(section))
    return written


def labels(section: Section) -> list[str]:
    """Return what to call each row where there is no table beside it: its components, and what else tells it apart."""
    titles = [row.title for row in section.rows]
    alike = [title for title in titles if titles.count(title) > 1]
    return [
        f"{title} ({settings_text(section, place)})" if title in alike else title for place, title in enumerate(titles)
    ]


def as_markdown(comparison: Comparison) -> str:
    """Return the tables in Markdown: those of the June 2024 report, with what they lacked."""
    parts = [_markdown_section(section) for section in comparison.sections]
    ended = [
        *(f"- failed: {f.backbone} + {f.head} + {f.optimizer}, seed {f.seed}: {f.reason}" for f in comparison.failed),
        *(f"- not finished: {name}" for name in comparison.unfinished),
    ]
    return "\n\n".join([*parts, *(["\n".join(ended)] if ended else [])]) + "\n"


def _markdown_section(section: Section) -> str:
    header = ("model", "optimizer", "plug-in", "top-1", "behind", "alike", "macro F1", "parameters", "minutes")
    rows: list[Sequence[str]] = [(*header, "images/s", "seeds", "settings")]
    for place, row in enumerate(section.rows):
        figures = share_text(row.top1), behind_text(section, place), section.letters[place], share_text(row.macro_f1)
        costs = parameters_text(row), minutes_text(row), speed_text(row), seeds_text(row)
        rows.append((row.backbone, row.optimizer, row.head, *figures, *costs, settings_text(section, place)))
    kept = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:])]
    widths = [max(len(_cell(row[i])) for row in rows) for i in kept]
    lines = [_markdown_line([_cell(row[i]) for i in kept], widths) for row in rows]
    lines.insert(1, _markdown_line(["-" * width for width in widths], widths))
    below = "\n".join(f"- {line}" for line in (*section.notes, *meanings(section)))
    return f"{images_text(section)}\n\n" + "\n".join(lines) + f"\n\n{below}"


def _markdown_line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _lines(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give a line a row for the CSV."""
    for section in document["sections"]:
        best = {each["second_row"]: each for each in section["differences"] if each["first_row"] == 0}
        for place, row in enumerate(section["rows"]):
            yield {
                "dataset": section["dataset"]["name"],
                "split": section["split"],
                "images": section["images"],
                **{name: row[name] for name in ("backbone", "head", "optimizer")},
                "seeds": " ".join(map(str, row["seeds"])),
                **_figures(row),
                "parameters_backbone": row["parameters"]["backbone"],
                "parameters_head": row["parameters"]["head"],
                "letters": row["letters"],
                **({} if place == 0 else {"behind": best[place]["points"], "p": best[place]["p_corrected"]}),
                **row["settings"],
            }
    for failed in document["failed"]:
        yield {**{name: failed[name] for name in ("backbone", "head", "optimizer")}, "seeds": str(failed["seed"]),
               "failed": failed["reason"]}  # fmt: skip


def _figures(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in FIGURES:
        spread = row[name] or {"mean": None, "deviation": None}
        found |= {name: spread["mean"], f"{name}_deviation": spread["deviation"]}
    return found
