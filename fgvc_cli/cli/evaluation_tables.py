"""Tables of an evaluation, an ensemble and a sharpness measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from fgvc_cli.cli.calibration_tables import show_calibrated, show_unknown
from fgvc_cli.cli.console import out
from fgvc_cli.cli.tables import (
    Column,
    figure_table,
    next_lines,
    print_sections,
    print_title,
    print_titled,
    skipped_line,
    written_line,
)
from fgvc_cli.formatting import counted, percent, quoted, run_labels

if TYPE_CHECKING:
    from rich.table import Table

    from fgvc_cli.evaluation.ensemble import BestMemberComparison, EnsembleSummary, PairDiversity
    from fgvc_cli.evaluation.evaluate import Evaluation
    from fgvc_cli.evaluation.run_sharpness import RunSharpness, SharpnessResult
    from fgvc_cli.runs.results import ClassMetrics, SplitMetrics
    from fgvc_cli.scoring.results import EvaluationSummary
    from fgvc_cli.scoring.taxonomy import TaxonomyMetrics


WORST_CLASSES = 10
"""Number of classes shown unless all are requested."""
SHOWN_PAIRS = 10
"""Maximum number of pairs of runs shown, the most complementary first."""
ROUNDING = 1e-6
"""Differences of losses in nats below this may be rounding in single precision."""


def show_evaluation(evaluation: Evaluation, all_classes: bool) -> None:
    """Print the metrics, the hardest classes (or all) and pairs, the most confident mistakes, and the next commands."""
    summary, console = evaluation.summary, out()
    console.print(f"{summary.runs[0]} on {summary.images_text}\n", soft_wrap=True)
    console.print(_overall(summary))
    console.print()
    table = figure_table("average", "precision:", "recall:", "F1:")
    for name, row in (("macro", summary.macro), ("weighted", summary.weighted)):
        table.add_row(name, percent(row.precision), percent(row.recall), percent(row.f1))
    console.print(table)
    show_taxonomy(summary.taxonomy)
    show_calibrated(summary.calibrated)
    show_unknown(summary.unknown)
    commands = [
        f"fgvc predict {quoted(file)} --run {quoted(summary.runs[0])}" for file in _files_of_mistakes(summary)[:1]
    ]
    if not all_classes and summary.classes_present > WORST_CLASSES:
        commands.append(f"fgvc evaluate {quoted(summary.runs[0])} --split {summary.split} --per-class")
    _show_end(evaluation, all_classes, commands)


def show_ensemble(evaluation: Evaluation, all_classes: bool) -> None:
    """Print the metrics of the runs and their ensemble, how their errors differ, and what is hardest for all."""
    summary, console = cast("EnsembleSummary", evaluation.summary), out()
    labels = dict(zip(summary.runs, run_labels(summary.runs), strict=True))
    console.print(f"Ensemble of {len(labels)} runs on {summary.images_text}\n", soft_wrap=True)
    names = [*labels.values(), "ensemble"]
    print_sections("run", names, [""] * len(names), _scores([*summary.members, summary]))
    pairs = sorted(summary.pairs, key=lambda pair: -pair[1].one_right)[:SHOWN_PAIRS]
    shown = f" ({len(pairs)} of {len(summary.pairs)} pairs, the most complementary)"
    print_title("Pairs of runs: fraction of the images" + shown * (len(pairs) < len(summary.pairs)))
    names = [" + ".join(labels[run] for run in runs) for runs, _ in pairs]
    print_sections("runs", names, [""] * len(names), _pairs([pair for _, pair in pairs]))
    together = summary.together
    console.print(
        f"\nright in at least one run: {percent(together.any_right)} of the images, in all runs: "
        f"{percent(together.all_right)}, in none: {percent(1 - together.any_right)}",
        soft_wrap=True,
    )
    console.print(best_member_line(summary.over_best, labels), soft_wrap=True)
    show_taxonomy(summary.taxonomy)
    runs = " ".join(f"--run {quoted(run)}" for run in summary.runs)
    _show_end(
        evaluation, all_classes, [f"fgvc explain {quoted(file)} {runs}" for file in _files_of_mistakes(summary)[:1]]
    )


def show_taxonomy(metrics: TaxonomyMetrics | None) -> None:
    """Print the metrics of each level of a taxonomy, and how far mistakes are from the truth; nothing without one."""
    if metrics is None:
        return
    table = figure_table("level", "groups:", "top-1:", "top-1, summed:", "sure:", "precision:")
    for row in metrics.levels:
        shares = (row.top1, row.top1_summed, row.share, row.precision)
        table.add_row(row.level, str(row.groups), *map(percent, shares))
    table.add_row("none", "", "", "", percent(metrics.unsure), "")
    print_titled(f"Taxonomy (sure: probability of {metrics.sure:g} or more)", table)
    severity = "none" if metrics.severity is None else f"{metrics.severity:.2f}"
    out().print(
        f"severity of mistakes: {severity} of {metrics.height} (any other class at random: "
        f"{metrics.severity_of_chance:.2f}), over all images: {metrics.distance:.2f}",
        f"sure names: precision {percent(metrics.precision)}, mean depth {metrics.depth:.2f} of {metrics.max_depth:.2f}"
        f", information {percent(metrics.information)}",
        sep="\n",
        soft_wrap=True,
    )


def _show_end(evaluation: Evaluation, all_classes: bool, commands: Sequence[str]) -> None:
    """Print the hardest classes and pairs, the most confident mistakes, skipped images, the files and commands."""
    summary, console = evaluation.summary, out()
    print_titled(*_classes(summary.per_class, all_classes))
    confused = figure_table("true", "predicted", "images:", "of the true class:")
    for pair in summary.most_confused:
        confused.add_row(pair.true, pair.predicted, str(pair.images), percent(pair.share))
    print_titled("Most confused", confused)
    mistakes = figure_table("image", "true", "predicted", "probability:", "of the true class:")
    for mistake in summary.most_confident_mistakes:
        probabilities = percent(mistake.probability), percent(mistake.probability_true)
        mistakes.add_row(mistake.key, mistake.true, mistake.predicted, *probabilities)
    print_titled("Most confident mistakes", mistakes)
    console.print()
    lines = [skipped_line(list(summary.failures))] * bool(summary.failed)
    if summary.not_finite:
        lines.append(f"{counted(summary.not_finite, 'image')} with scores that are not finite, counted as wrong")
    for line in [*lines, written_line(evaluation.files), *next_lines(commands)]:
        console.print(line, soft_wrap=True)


def _files_of_mistakes(summary: EvaluationSummary) -> list[str]:
    return [mistake.file for mistake in summary.most_confident_mistakes if mistake.file]


def _overall(summary: EvaluationSummary) -> Table:
    classes = str(summary.classes_present)
    table = figure_table(
        "split", "images:", "classes:", "top-1:", "top-5:", "chance:", "majority:", "loss:", "calibration error:"
    )
    table.add_row(
        summary.split,
        str(summary.images),
        classes if summary.classes_present == summary.classes else f"{classes} of {summary.classes}",
        percent(summary.top1),
        percent(summary.top5),
        percent(summary.chance["uniform"]),
        percent(summary.chance["majority"]),
        "" if summary.loss is None else f"{summary.loss:.3f}",
        percent(summary.calibration_error),
    )
    return table


def _classes(rows: Sequence[ClassMetrics], all_classes: bool) -> tuple[str, Table]:
    """Return all classes in order, or those with the lowest F1 of the classes with images, with a title."""
    present = [row for row in rows if row.images]
    shown, title = list(rows) if all_classes else present, "Classes"
    if not all_classes and len(present) > WORST_CLASSES:
        shown = sorted(present, key=lambda row: row.f1 or 0.0)[:WORST_CLASSES]
        title = f"Worst {WORST_CLASSES} of {len(present)} classes by F1 (all: --per-class)"
    table = figure_table("class", "images:", "precision:", "recall:", "F1:")
    for row in shown:
        table.add_row(row.name, str(row.images), percent(row.precision), percent(row.recall), percent(row.f1))
    return title, table


def _scores(rows: Sequence[SplitMetrics]) -> list[Column]:
    return [
        Column("images", [str(row.images) for row in rows]),
        Column("top-1", [percent(row.top1) for row in rows]),
        Column("top-5", [percent(row.top5) for row in rows]),
        Column("macro F1", [percent(row.macro_f1) for row in rows]),
        Column("loss", ["" if row.loss is None else f"{row.loss:.3f}" for row in rows]),
        Column("calibration\nerror", [percent(row.calibration_error) for row in rows]),
    ]


def _pairs(pairs: Sequence[PairDiversity]) -> list[Column]:
    return [
        Column("one is\nright", [percent(pair.one_right) for pair in pairs]),
        Column("both are\nwrong", [percent(pair.both_wrong) for pair in pairs]),
        Column("with the\nsame class", [percent(pair.both_wrong_same_class) for pair in pairs]),
        Column("predictions\ndiffer", [percent(pair.different_predictions) for pair in pairs]),
        Column("Yule's Q", ["" if pair.q is None else f"{pair.q:.2f}" for pair in pairs]),
    ]


def best_member_line(best: BestMemberComparison, labels: Mapping[str, str]) -> str:
    """Say whether the ensemble beats its best member, and whether the difference is significant."""
    p_value = "< 0.001" if best.p_value < 0.001 else f"= {best.p_value:.2g}"
    return (
        f"ensemble compared with the best run ({labels[best.run]}): {100 * best.difference:+.1f} points (images only "
        f"right in the ensemble: {best.ensemble_only}, only in the run: {best.member_only}), "
        f"{'significant' if best.significant else 'not significant'} (exact McNemar test, p {p_value})"
    )


def show_sharpness(result: SharpnessResult) -> None:
    """Print the loss of each run, how far it rises by radius, and where the files are."""
    runs, console, settings = result.runs, out(), result.settings
    labels = run_labels([run.run for run in runs])
    for text in dict.fromkeys(run.images_text for run in runs):
        console.print(f"{', '.join(run.run for run in runs if run.images_text == text)} on {text}", soft_wrap=True)
    console.print()
    print_sections("run", labels, [""] * len(labels), _weights(runs))
    print_title(f"Rise of the loss in nats by radius (rho = {settings.rho:g})")
    sections = [label for label in labels for _ in range(2)]
    by_radius = list(zip(*(run.sharpness.rises for run in runs), strict=True))
    rises = [
        Column(f"{row[0].radius:g}", [rise_text(rise) for each in row for rise in (each.gradient, each.random)])
        for row in by_radius
    ]
    print_sections("direction", ["gradient", "random (mean)"] * len(runs), sections, rises)
    if settings.adaptive_rho is not None:
        print_title(f"Rise of the loss in nats by adaptive (ASAM) radius (rho = {settings.adaptive_rho:g})")
        rises = [Column(f"{row[0].adaptive_radius:g}", [rise_text(rise.adaptive) for rise in row]) for row in by_radius]
        print_sections("run", labels, [""] * len(labels), rises)
    console.print()
    lines = ["interrupted: what was not measured is missing."] * result.interrupted
    lines += [skipped_line(list(result.failures))] * bool(result.failures)
    command = f"fgvc evaluate {' '.join(quoted(run.run) for run in runs)}" + " --ensemble" * (len(runs) > 1)
    for line in [*lines, written_line(result.files), *next_lines([command])]:
        console.print(line, soft_wrap=True)


def rise_text(rise: float | None) -> str:
    """Format a rise with three digits, or as below the rounding error; "" for None."""
    if rise is None:
        return ""
    return f"< {ROUNDING:g}" if abs(rise) < ROUNDING else f"{rise:.3g}"


def _weights(runs: Sequence[RunSharpness]) -> list[Column]:
    found = [run.sharpness for run in runs]
    return [
        Column("images", [str(each.images) for each in found]),
        Column("loss", [f"{each.loss:.3g}" for each in found]),
        Column("gradient norm", [f"{each.gradient_norm:.3g}" for each in found]),
        Column("parameters", [f"{each.parameters:,}" for each in found]),
        Column("weight norm", [f"{each.weight_norm:.3g}" for each in found]),
    ]
