"""Tables of an evaluation, an ensemble and a sharpness measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fgvc_cli.cli.console import out
from fgvc_cli.cli.tables import Column, print_sections
from fgvc_cli.formatting import percent, quoted, run_labels
from fgvc_cli.scoring.results import images_text

if TYPE_CHECKING:
    from rich.table import Table

    from fgvc_cli.evaluation.ensemble import EnsembleSummary
    from fgvc_cli.evaluation.evaluate import Evaluation
    from fgvc_cli.evaluation.sharpness import SharpnessReport
    from fgvc_cli.runs.results import ClassMetrics, SplitMetrics
    from fgvc_cli.scoring.results import ConfusedPair, EvaluationSummary, Mistake


WORST_CLASSES = 10
"""How many classes are shown unless all are asked for."""
SUMMARY_FILE = "summary.json"


def show_evaluation(evaluation: Evaluation, all_classes: bool) -> None:
    """Print the figures, the classes and pairs that are hardest, the surest mistakes, where the files are, and what
    to try next.

    Args:
        evaluation: as `PreparedEvaluation.run` returned it.
        all_classes: whether to list every class, or the worst few.
    """
    summary = evaluation.summary
    console = out()
    console.print(f"{summary.runs[0]} on {summary.images_text}\n", soft_wrap=True)
    console.print(_overall(summary))
    console.print()
    console.print(_averages(summary))
    show_hardest(summary, all_classes)
    console.print()
    for line in closing_lines(evaluation, all_classes):
        console.print(line, soft_wrap=True)


def show_hardest(summary: EvaluationSummary, all_classes: bool) -> None:
    """Print the classes and pairs that are hardest, and the surest mistakes."""
    print_titled(*_classes(summary.per_class, all_classes))
    print_titled("Most confused", _confused(summary.most_confused))
    print_titled("Most confident mistakes", _mistakes(summary.most_confident_mistakes))


def closing_lines(evaluation: Evaluation, all_classes: bool) -> list[str]:
    """Return what was left out, where the files are, and the commands most people would want next."""
    summary = evaluation.summary
    lines = [*left_out_lines(summary), written_line(evaluation.files)]
    commands = []
    mistakes = files_of_mistakes(summary)
    if mistakes:
        commands.append(f"fgvc predict {quoted(mistakes[0])} --run {quoted(summary.runs[0])}")
    if not all_classes and summary.classes_present > WORST_CLASSES:
        commands.append(f"fgvc evaluate {quoted(summary.runs[0])} --split {summary.split} --per-class")
    return lines + next_lines(commands)


def left_out_lines(summary: EvaluationSummary) -> list[str]:
    """Return which images enter no figure, and how many count as wrong because their scores are no numbers."""
    lines = []
    if summary.failed:
        lines.append(left_out_line(list(summary.failures)))
    if summary.not_finite:
        lines.append(f"{summary.not_finite} images got scores that are not finite; they count as wrong.")
    return lines


def left_out_line(keys: Sequence[str]) -> str:
    """Name the images that could not be read, the first few of many."""
    more = f" and {len(keys) - 5} more, see {SUMMARY_FILE}" if len(keys) > 5 else ""
    return f"left out, for they cannot be read ({len(keys)}): {', '.join(keys[:5])}{more}"


def files_of_mistakes(summary: EvaluationSummary) -> list[str]:
    """Return the files of the most confident mistakes, the most confident first."""
    return [mistake.file for mistake in summary.most_confident_mistakes if mistake.file]


def written_line(files: Sequence[Path]) -> str:
    """Say where the files are, which lie in one folder."""
    return f"written: {files[-1].parent}/ ({', '.join(file.name for file in files)})"


def next_lines(commands: Sequence[str]) -> list[str]:
    """Return the commands most people would want next, one or two, each ready to paste."""
    return [head + command for head, command in zip(("next: ", "      "), commands, strict=False)]


def _overall(summary: EvaluationSummary) -> Table:
    chance = summary.chance
    table = figure_table(
        "split", "images:", "classes:", "top-1:", "top-5:", "chance:", "majority:", "loss:", "calibration error:"
    )
    table.add_row(
        summary.split,
        str(summary.images),
        str(summary.classes_present) + (f" of {summary.classes}" if summary.classes_present != summary.classes else ""),
        percent(summary.top1),
        percent(summary.top5),
        percent(chance["uniform"]),
        percent(chance["majority"]),
        "" if summary.loss is None else f"{summary.loss:.3f}",
        percent(summary.calibration_error),
    )
    return table


def _averages(summary: EvaluationSummary) -> Table:
    table = figure_table("average", "precision:", "recall:", "F1:")
    for name, row in (("macro", summary.macro), ("weighted", summary.weighted)):
        table.add_row(name, percent(row.precision), percent(row.recall), percent(row.f1))
    return table


def _classes(rows: Sequence[ClassMetrics], all_classes: bool) -> tuple[str, Table]:
    """Return all classes in their order, or of those with images the worst by F1, and a title that says so."""
    present = [row for row in rows if row.images]
    shown, title = list(rows) if all_classes else present, "Classes"
    if not all_classes and len(present) > WORST_CLASSES:
        shown = sorted(present, key=lambda row: row.f1 or 0.0)[:WORST_CLASSES]
        title = f"Worst {WORST_CLASSES} of {len(present)} classes by F1 (all: --per-class)"
    table = figure_table("class", "images:", "precision:", "recall:", "F1:")
    for row in shown:
        table.add_row(row.name, str(row.images), percent(row.precision), percent(row.recall), percent(row.f1))
    return title, table


def _confused(pairs: Sequence[ConfusedPair]) -> Table:
    table = figure_table("true", "taken for", "images:", "of the true class:")
    for pair in pairs:
        table.add_row(pair.true, pair.predicted, str(pair.images), percent(pair.share))
    return table


def _mistakes(mistakes: Sequence[Mistake]) -> Table:
    table = figure_table("image", "true", "predicted", "probability:", "of the true class:")
    for mistake in mistakes:
        probabilities = percent(mistake.probability), percent(mistake.probability_true)
        table.add_row(mistake.key, mistake.true, mistake.predicted, *probabilities)
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


SHOWN_PAIRS = 10
"""How many pairs of runs are shown, those with the most to gain first; `summary.json` has all."""


def show_ensemble(evaluation: Evaluation, all_classes: bool) -> None:
    """Print the runs beside their ensemble, how their mistakes go together, and what is hardest for the ensemble.

    Args:
        evaluation: as `evaluate_ensemble` returned it.
        all_classes: whether to list every class, or the worst few.
    """
    summary, console = cast("EnsembleSummary", evaluation.summary), out()
    labels = dict(zip(summary.runs, run_labels(summary.runs), strict=True))
    console.print(f"Ensemble of {len(labels)} runs on {summary.images_text}\n", soft_wrap=True)
    names = [*labels.values(), "ensemble"]
    print_sections("run", names, [""] * len(names), _scores([*summary.members, summary]))
    pairs = most_complementary(summary.pairs)
    print_title(_pairs_title(len(pairs), len(summary.pairs)))
    names = [" + ".join(labels[run] for run in pair["runs"]) for pair in pairs]
    print_sections("runs", names, [""] * len(names), _pairs(pairs))
    console.print()
    for line in (together_line(summary), over_best_line(summary, labels)):
        console.print(line, soft_wrap=True)
    show_hardest(summary, all_classes)
    console.print()
    for line in [*left_out_lines(summary), written_line(evaluation.files), *next_lines(_commands(summary))]:
        console.print(line, soft_wrap=True)


def together_line(summary: EnsembleSummary) -> str:
    """Say how much the runs get right between them."""
    together = summary.together
    return (
        f"right in at least one run: {percent(together['any_right'])} of the images, in every one: "
        f"{percent(together['all_right'])}, in none: {percent(1 - together['any_right'])}"
    )


def over_best_line(summary: EnsembleSummary, labels: Mapping[str, str]) -> str:
    """Say whether the ensemble beats its best member, and whether that may be chance."""
    best = summary.over_best
    verdict = "beyond noise" if best["significant"] else "within noise"
    return (
        f"ensemble over the best run ({labels[best['run']]}): {100 * best['difference']:+.1f} points "
        f"(images that only the ensemble has right: {best['ensemble_only']}, only the run: {best['member_only']}), "
        f"{verdict} (exact McNemar test, p {p_text(best['p_value'])})"
    )


def p_text(p_value: float) -> str:
    """Write a p-value with two figures: `= 0.62`, `= 0.034`, `< 0.001`."""
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.2g}"


def most_complementary(pairs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the pairs that are shown: those of which most often one run alone is right, first."""
    return sorted(pairs, key=lambda pair: -pair["one_right"])[:SHOWN_PAIRS]


def _pairs_title(shown: int, of: int) -> str:
    some = f" ({shown} of {of} pairs, the most complementary)" if shown < of else ""
    return f"Two runs at a time: share of the images{some}"


def _scores(rows: Sequence[SplitMetrics]) -> list[Column]:
    return [
        Column("images", [str(row.images) for row in rows]),
        Column("top-1", [percent(row.top1) for row in rows]),
        Column("top-5", [percent(row.top5) for row in rows]),
        Column("macro F1", [percent(row.macro_f1) for row in rows]),
        Column("loss", ["" if row.loss is None else f"{row.loss:.3f}" for row in rows]),
        Column("calibration\nerror", [percent(row.calibration_error) for row in rows]),
    ]


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> list[Column]:
    shares = {
        "one is\nright": "one_right",
        "both are\nwrong": "both_wrong",
        "with the\nsame class": "both_wrong_same_class",
        "predictions\ndiffer": "different_predictions",
    }
    columns = [Column(heading, [percent(pair[name]) for pair in pairs]) for heading, name in shares.items()]
    return [*columns, Column("Yule's Q", ["" if pair["q"] is None else f"{pair['q']:.2f}" for pair in pairs])]


def _commands(summary: EnsembleSummary) -> list[str]:
    """Return what shows where the runs look when the ensemble is surest and wrong."""
    runs = " ".join(f"--run {quoted(run)}" for run in summary.runs)
    return [f"fgvc explain {quoted(file)} {runs}" for file in files_of_mistakes(summary)[:1]]


ROUNDING = 1e-6
"""Below this, in nats, a difference of two losses of about 1 is rounding in single precision."""


def show_sharpness(report: SharpnessReport) -> None:
    """Print what was measured of each run, how far its loss rises by radius, and where the files are.

    Args:
        report: as `measure_sharpness` returned it.
    """
    summary, console = report.summary, out()
    runs: Sequence[Mapping[str, Any]] = summary["runs"]
    labels = run_labels([run["run"] for run in runs])
    for text in dict.fromkeys(images_text(run) for run in runs):
        console.print(f"{', '.join(run['run'] for run in runs if images_text(run) == text)} on {text}", soft_wrap=True)
    console.print()
    print_sections("run", labels, [""] * len(labels), _weights(runs))
    print_title(f"Rise of the loss, nats, by the radius (rho = {summary['rho']:g})")
    print_sections("direction", ["gradient", "random (mean)"] * len(runs), _twice(labels), _rises(runs))
    if summary["adaptive_rho"] is not None:
        print_title(f"Rise of the loss, nats, by the adaptive (ASAM) radius (rho = {summary['adaptive_rho']:g})")
        print_sections("run", labels, [""] * len(labels), _adaptive_rises(runs))
    console.print()
    for line in sharpness_closing_lines(report):
        console.print(line, soft_wrap=True)


def sharpness_closing_lines(report: SharpnessReport) -> list[str]:
    """Return what is missing, where the files are, and what most people would want next."""
    summary = report.summary
    lines = ["interrupted: what had not been measured is missing."] * summary["interrupted"]
    lines += [left_out_line([failure["key"] for failure in summary["failures"]])] * bool(summary["failed"])
    runs = " ".join(quoted(run["run"]) for run in summary["runs"])
    command = f"fgvc evaluate {runs}" + (" --ensemble" if len(summary["runs"]) > 1 else "")
    return [*lines, written_line(report.files), *next_lines([command])]


def nats(value: float | None) -> str:
    """Write a loss with three figures; nothing for None."""
    return "" if value is None else f"{value:.3g}"


def rise_text(rise: float | None) -> str:
    """Write a rise with three figures; one so small that it may be rounding, up or down, as below that."""
    return f"< {ROUNDING:g}" if rise is not None and abs(rise) < ROUNDING else nats(rise)


def _weights(runs: Sequence[Mapping[str, Any]]) -> list[Column]:
    return [
        Column("images", [str(run["images"]) for run in runs]),
        Column("loss", [nats(run["loss"]) for run in runs]),
        Column("gradient's norm", [nats(run["gradient_norm"]) for run in runs]),
        Column("parameters", [f"{run['parameters']:,}" for run in runs]),
        Column("their norm", [nats(run["weight_norm"]) for run in runs]),
    ]


def _rises(runs: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Return a column for each radius, with two rows a run."""
    by_radius = zip(*(run["rises"] for run in runs), strict=True)
    return [
        Column(f"{rises[0]['radius']:g}", [rise_text(rise[name]) for rise in rises for name in ("gradient", "random")])
        for rises in by_radius
    ]


def _adaptive_rises(runs: Sequence[Mapping[str, Any]]) -> list[Column]:
    by_radius = zip(*(run["rises"] for run in runs), strict=True)
    return [
        Column(f"{rises[0]['adaptive_radius']:g}", [rise_text(rise["adaptive"]) for rise in rises])
        for rises in by_radius
    ]


def _twice(labels: Sequence[str]) -> list[str]:
    return [label for label in labels for _ in range(2)]
