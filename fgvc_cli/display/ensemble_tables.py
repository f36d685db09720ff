"""What an ensemble of runs shows a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fgvc_cli.display.console import out
from fgvc_cli.display.evaluation_tables import (
    figure_table,
    files_of_mistakes,
    images_text,
    left_out_lines,
    next_lines,
    percent,
    print_titled,
    quoted,
    show_hardest,
    written_line,
)
from fgvc_cli.display.run_labels import run_labels

if TYPE_CHECKING:
    from rich.table import Table

    from fgvc_cli.evaluation.evaluating import Evaluation

SHOWN_PAIRS = 10
"""How many pairs of runs are shown, those with the most to gain first; `summary.json` has all."""


def show_ensemble(evaluation: Evaluation, all_classes: bool) -> None:
    """Print the runs beside their ensemble, how their mistakes go together, and what is hardest for the ensemble.

    Args:
        evaluation: as `evaluate_ensemble` returned it.
        all_classes: whether to list every class, or the worst few.
    """
    summary, console = evaluation.summary, out()
    labels = dict(zip(summary["runs"], run_labels(summary["runs"]), strict=True))
    console.print(f"Ensemble of {len(labels)} runs on {images_text(summary)}\n", soft_wrap=True)
    console.print(_members(summary, labels))
    print_titled(*_pairs(summary["pairs"], labels))
    console.print()
    for line in (together_line(summary), over_best_line(summary, labels)):
        console.print(line, soft_wrap=True)
    show_hardest(summary, all_classes)
    console.print()
    for line in [*left_out_lines(summary), written_line(evaluation.files), *next_lines(_commands(summary))]:
        console.print(line, soft_wrap=True)


def together_line(summary: Mapping[str, Any]) -> str:
    """Say how much the runs get right between them."""
    together = summary["together"]
    return (
        f"right in at least one run: {percent(together['any_right'])} of the images, in every one: "
        f"{percent(together['all_right'])}, in none: {percent(1 - together['any_right'])}"
    )


def over_best_line(summary: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Say whether the ensemble beats its best member, and whether that may be chance."""
    best = summary["over_best"]
    verdict = "beyond noise" if best["significant"] else "within noise"
    return (
        f"ensemble over the best run ({labels[best['run']]}): {100 * best['difference']:+.1f} points "
        f"(right where it is wrong: {best['ensemble_only']} images, the reverse: {best['member_only']}), {verdict} "
        f"(exact McNemar test, p {p_text(best['p_value'])})"
    )


def p_text(p_value: float) -> str:
    """Write a p-value with two figures: `= 0.62`, `= 0.034`, `< 0.001`."""
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.2g}"


def _members(summary: Mapping[str, Any], labels: Mapping[str, str]) -> Table:
    table = figure_table("run", "images:", "top-1:", "top-5:", "macro F1:", "loss:", "calibration error:")
    for member in summary["members"]:
        table.add_row(labels[member["run"]], *_figures(member))
    table.add_row("ensemble", *_figures(summary), style="bold")
    return table


def _figures(found: Mapping[str, Any]) -> list[str]:
    return [
        str(found["images"]),
        percent(found["top1"]),
        percent(found["top5"]),
        percent(found["macro"]["f1"]),
        "" if found["loss"] is None else f"{found['loss']:.3f}",
        percent(found["calibration_error"]),
    ]


def _pairs(pairs: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> tuple[str, Table]:
    """Return the pairs, those of which most often one alone is right first, and a title that says if some are left."""
    title = "Two runs at a time: share of the images"
    if len(pairs) > SHOWN_PAIRS:
        title += f" ({SHOWN_PAIRS} of {len(pairs)} pairs, the most complementary)"
    headings = ("one is right:", "both are wrong:", "with the same class:", "predictions differ:", "Yule's Q:")
    table = figure_table("runs", *headings)
    for pair in sorted(pairs, key=lambda pair: -pair["one_right"])[:SHOWN_PAIRS]:
        shares = ("one_right", "both_wrong", "both_wrong_same_class", "different_predictions")
        q = "" if pair["q"] is None else f"{pair['q']:.2f}"
        table.add_row(" + ".join(labels[run] for run in pair["runs"]), *(percent(pair[name]) for name in shares), q)
    return title, table


def _commands(summary: Mapping[str, Any]) -> list[str]:
    """Return what shows where the runs look when the ensemble is surest and wrong."""
    runs = " ".join(f"--run {quoted(run)}" for run in summary["runs"])
    return [f"fgvc explain {quoted(file)} {runs}" for file in files_of_mistakes(summary)[:1]]
