"""What an ensemble of runs shows a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fgvc_cli.display.console import out
from fgvc_cli.display.evaluation_tables import (
    files_of_mistakes,
    images_text,
    left_out_lines,
    next_lines,
    percent,
    print_title,
    quoted,
    show_hardest,
    written_line,
)
from fgvc_cli.display.run_labels import run_labels
from fgvc_cli.display.sections import Column, print_sections

if TYPE_CHECKING:
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
    names = [*(labels[member["run"]] for member in summary["members"]), "ensemble"]
    print_sections("run", names, [""] * len(names), _scores([*summary["members"], summary]))
    pairs = most_complementary(summary["pairs"])
    print_title(_pairs_title(len(pairs), len(summary["pairs"])))
    names = [" + ".join(labels[run] for run in pair["runs"]) for pair in pairs]
    print_sections("runs", names, [""] * len(names), _pairs(pairs))
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


def _scores(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    return [
        Column("images", [str(row["images"]) for row in rows]),
        Column("top-1", [percent(row["top1"]) for row in rows]),
        Column("top-5", [percent(row["top5"]) for row in rows]),
        Column("macro F1", [percent(row["macro"]["f1"]) for row in rows]),
        Column("loss", ["" if row["loss"] is None else f"{row['loss']:.3f}" for row in rows]),
        Column("calibration\nerror", [percent(row["calibration_error"]) for row in rows]),
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


def _commands(summary: Mapping[str, Any]) -> list[str]:
    """Return what shows where the runs look when the ensemble is surest and wrong."""
    runs = " ".join(f"--run {quoted(run)}" for run in summary["runs"])
    return [f"fgvc explain {quoted(file)} {runs}" for file in files_of_mistakes(summary)[:1]]
