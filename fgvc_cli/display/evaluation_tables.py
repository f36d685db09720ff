"""What an evaluation shows a person."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc_cli.display.console import out

if TYPE_CHECKING:
    from rich.table import Table

    from fgvc_cli.evaluation.evaluating import Evaluation

WORST_CLASSES = 10
"""How many classes are shown unless all are asked for."""
SUMMARY_FILE = "summary.json"


def images_text(summary: Mapping[str, Any]) -> str:
    """Name the images that figures are of: split, data set, and how the split came about."""
    source = summary["dataset"]["data"] or summary["dataset"]["name"]
    return f"{summary['split']} of {source}" + (f", {summary['origin']}" if summary["origin"] else "")


def show_evaluation(evaluation: Evaluation, all_classes: bool) -> None:
    """Print the figures, the classes and pairs that are hardest, the surest mistakes, where the files are, and what
    to try next.

    Args:
        evaluation: as `PreparedEvaluation.run` returned it.
        all_classes: whether to list every class, or the worst few.
    """
    summary = evaluation.summary
    console = out()
    console.print(f"{summary['run']} on {images_text(summary)}\n", soft_wrap=True)
    console.print(_overall(summary))
    console.print()
    console.print(_averages(summary))
    show_hardest(summary, all_classes)
    console.print()
    for line in closing_lines(evaluation, all_classes):
        console.print(line, soft_wrap=True)


def show_hardest(summary: Mapping[str, Any], all_classes: bool) -> None:
    """Print the classes and pairs that are hardest, and the surest mistakes."""
    print_titled(*_classes(summary["per_class"], all_classes))
    print_titled("Most confused", _confused(summary["most_confused"]))
    print_titled("Most confident mistakes", _mistakes(summary["most_confident_mistakes"]))


def closing_lines(evaluation: Evaluation, all_classes: bool) -> list[str]:
    """Return what was left out, where the files are, and the commands most people would want next."""
    summary = evaluation.summary
    lines = [*left_out_lines(summary), written_line(evaluation.files)]
    commands = []
    mistakes = files_of_mistakes(summary)
    if mistakes:
        commands.append(f"fgvc predict {quoted(mistakes[0])} --run {quoted(summary['run'])}")
    if not all_classes and summary["classes_present"] > WORST_CLASSES:
        commands.append(f"fgvc evaluate {quoted(summary['run'])} --split {summary['split']} --per-class")
    return lines + next_lines(commands)


def left_out_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return which images enter no figure, and how many count as wrong because their scores are no numbers."""
    lines = []
    if summary["failed"]:
        lines.append(left_out_line(summary))
    if summary["not_finite"]:
        lines.append(f"{summary['not_finite']} images got scores that are not finite; they count as wrong.")
    return lines


def left_out_line(summary: Mapping[str, Any]) -> str:
    """Name the images that could not be read, the first few of many."""
    keys = [failure["key"] for failure in summary["failures"]]
    more = f" and {len(keys) - 5} more, see {SUMMARY_FILE}" if len(keys) > 5 else ""
    return f"left out, for they cannot be read ({len(keys)}): {', '.join(keys[:5])}{more}"


def files_of_mistakes(summary: Mapping[str, Any]) -> list[str]:
    """Return the files of the most confident mistakes, the most confident first."""
    return [mistake["file"] for mistake in summary["most_confident_mistakes"] if mistake["file"]]


def written_line(files: Sequence[Path]) -> str:
    """Say where the files are, which lie in one folder."""
    return f"written: {files[-1].parent}/ ({', '.join(file.name for file in files)})"


def next_lines(commands: Sequence[str]) -> list[str]:
    """Return the commands most people would want next, one or two, each ready to paste."""
    return [head + command for head, command in zip(("next: ", "      "), commands, strict=False)]


def percent(share: float | None) -> str:
    """Write a fraction as a percentage; nothing for None."""
    return "" if share is None else f"{100 * share:.1f} %"


def quoted(path: str) -> str:
    """Write a path so that it can be pasted into a shell, from the current folder if it is below that."""
    below = Path(path).absolute()
    here = Path.cwd()
    return shlex.quote(str(below.relative_to(here)) if below.is_relative_to(here) else path)


def _overall(summary: Mapping[str, Any]) -> Table:
    chance = summary["chance"]
    table = figure_table(
        "split", "images:", "classes:", "top-1:", "top-5:", "chance:", "majority:", "loss:", "calibration error:"
    )
    table.add_row(
        summary["split"],
        str(summary["images"]),
        str(summary["classes_present"])
        + (f" of {summary['classes']}" if summary["classes_present"] != summary["classes"] else ""),
        percent(summary["top1"]),
        percent(summary["top5"]),
        percent(chance["uniform"]),
        percent(chance["majority"]),
        "" if summary["loss"] is None else f"{summary['loss']:.3f}",
        percent(summary["calibration_error"]),
    )
    return table


def _averages(summary: Mapping[str, Any]) -> Table:
    table = figure_table("average", "precision:", "recall:", "F1:")
    for name in ("macro", "weighted"):
        table.add_row(name, *(percent(summary[name][figure]) for figure in ("precision", "recall", "f1")))
    return table


def _classes(rows: Sequence[Mapping[str, Any]], all_classes: bool) -> tuple[str, Table]:
    """Return all classes in their order, or of those with images the worst by F1, and a title that says so."""
    present = [row for row in rows if row["images"]]
    shown, title = list(rows) if all_classes else present, "Classes"
    if not all_classes and len(present) > WORST_CLASSES:
        shown = sorted(present, key=lambda row: row["f1"])[:WORST_CLASSES]
        title = f"Worst {WORST_CLASSES} of {len(present)} classes by F1 (all: --per-class)"
    table = figure_table("class", "images:", "precision:", "recall:", "F1:")
    for row in shown:
        figures = (percent(row[name]) for name in ("precision", "recall", "f1"))
        table.add_row(row["class"], str(row["images"]), *figures)
    return title, table


def _confused(pairs: Sequence[Mapping[str, Any]]) -> Table:
    table = figure_table("true", "taken for", "images:", "of the true class:")
    for pair in pairs:
        table.add_row(pair["true"], pair["predicted"], str(pair["images"]), percent(pair["share"]))
    return table


def _mistakes(mistakes: Sequence[Mapping[str, Any]]) -> Table:
    table = figure_table("image", "true", "predicted", "probability:", "of the true class:")
    for mistake in mistakes:
        probabilities = percent(mistake["probability"]), percent(mistake["probability_true"])
        table.add_row(mistake["key"], mistake["true"], mistake["predicted"], *probabilities)
    return table


def figure_table(*titles: str) -> Table:
    """Make a table; a title that ends in a colon heads a column of figures."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 3, 0, 0))
    for title in titles:
        is_figure = title.endswith(":")
        table.add_column(
            title.rstrip(":"), justify="right" if is_figure else "left", overflow="fold", no_wrap=is_figure
        )
    return table


def print_titled(title: str, table: Table) -> None:
    """Print a table below its title and an empty line; nothing if it has no row."""
    if table.row_count:
        print_title(title)
        out().print(table)


def print_title(title: str) -> None:
    """Print the title of a table, after an empty line."""
    from rich.text import Text

    out().print()
    out().print(Text(title, style="bold cyan"))
