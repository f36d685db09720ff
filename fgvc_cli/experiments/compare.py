"""Compare runs and write the comparison's files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc_cli import files
from fgvc_cli.experiments.compared_run import Collected, collect, read
from fgvc_cli.experiments.comparison import Comparison, Section, compare, groups_of, in_order
from fgvc_cli.experiments.curves import overlaid_curves
from fgvc_cli.experiments.study import COMPARISON
from fgvc_cli.experiments.text import (
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
from fgvc_cli.files import write_csv
from fgvc_cli.progress import progress
from fgvc_cli.runs.folder import Run, choose_new_folder

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


FOLDER = "comparison"
"""Where comparisons go that are given no folder, in the current one."""

Evaluate = Callable[[Run, str | None], Path]
"""Evaluates a run on a split (None: test, or what comes nearest), and returns the folder of the results."""


@dataclass(frozen=True)
class Prepared:
    """What will be compared, and where the results go."""

    collected: Collected
    folder: Path


@dataclass(frozen=True)
class Compared:
    """A comparison, and the files that it was written to."""

    comparison: Comparison
    written: Sequence[Path]


def prepare(paths: Sequence[Path], out: Path | None, force: bool, sort: str, group: str) -> Prepared:
    """Find the runs, and look at everything else that was asked for, before any run is evaluated.

    Raises:
        UsageError: there is no such order or group, or `out` is taken.
        FgvcError: there is no such run.
    """
    in_order([], sort)
    groups_of([], group)
    collected = collect(paths)
    if out is None and collected.study is not None:
        return Prepared(collected, collected.study / COMPARISON)
    return Prepared(collected, choose_new_folder(out, force, FOLDER, "the comparison"))


def of_study(folder: Path) -> Prepared:
    """Find the runs of a study, whose comparison is kept in its folder."""
    return Prepared(collect([folder]), folder / COMPARISON)


def run(prepared: Prepared, split: str | None, evaluate: Evaluate) -> Compared:
    """Compare, and write the files.

    Raises:
        FgvcError: a run is damaged, cannot be evaluated, or the files cannot be written.
    """
    collected = prepared.collected
    runs = list(read(collected.runs, split, evaluate))
    comparison = compare(runs, collected.failed, [each.name for each in collected.unfinished])
    return Compared(comparison, write(prepared.folder, comparison))


def evaluator(device: str = "auto", precision: str = "auto", batch_size: int = 32, workers: int = -1) -> Evaluate:
    """Return what evaluates a run as `fgvc evaluate` does, with a bar."""

    def evaluate(run: Run, split: str | None) -> Path:
        from fgvc_cli.evaluation.evaluate import EvaluationRequest, prepare
        from fgvc_cli.evaluation.split_selection import SplitRequest
        from fgvc_cli.registry import get_registry
        from fgvc_cli.scoring.model import Computing

        computing = Computing(device, precision, batch_size, workers)
        request = EvaluationRequest([run.model_file], SplitRequest(split), computing)
        prepared = prepare(request, get_registry())
        images = prepared.subject.split
        with progress(f"{run.name}, {images.name}", len(images)) as bar:
            return prepared.run(bar.advance).folder

    return evaluate
