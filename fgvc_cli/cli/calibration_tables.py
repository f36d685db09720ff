"""Tables of a calibration, and of evaluations of calibrated runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fgvc_cli.cli.console import out
from fgvc_cli.cli.tables import figure_table, next_lines, print_titled, skipped_line, written_line
from fgvc_cli.formatting import counted, percent, quoted

if TYPE_CHECKING:
    from fgvc_cli.evaluation.calibrate import CalibrationResult
    from fgvc_cli.scoring.calibration.metrics import CalibratedMetrics, UnknownMetrics


def show_calibration(result: CalibrationResult) -> None:
    """Print what was fitted, the precision by answered images, what is promised, and the next commands."""
    summary, calibration, console = result.summary, result.summary.calibration, out()
    images = calibration.dataset["data"] or calibration.dataset["name"]
    console.print(f"{summary.run} on {calibration.split} of {images}: {calibration.images} images\n", soft_wrap=True)
    table = figure_table("probabilities", "temperature:", "loss:", "calibration error:", "top-1:")
    for index, (name, temperature) in enumerate((("before", 1.0), ("after", calibration.temperature))):
        figures = f"{temperature:.3f}", f"{summary.loss[index]:.3f}", percent(summary.calibration_error[index])
        table.add_row(name, *figures, percent(summary.top1))
    console.print(table)
    table = figure_table("answered:", "if the probability is above:", "precision:", "at least (95 %):")
    for point in summary.points:
        row = percent(point.answered), percent(point.threshold), percent(point.precision), percent(point.lower)
        table.add_row(*row)
    print_titled("Precision of the answers", table)
    console.print()
    lines = [skipped_line(list(summary.failures))] * bool(summary.failures)
    run, views = quoted(summary.run), f" --tta {','.join(calibration.tta)}" if calibration.tta else ""
    commands = [f"fgvc evaluate {run}{views}"]
    if calibration.precision is None:
        commands.append(f"fgvc calibrate {run} --precision 0.95{views}")
    for line in [*lines, *calibration.lines, written_line(result.files[:-1])]:
        console.print(line, soft_wrap=True)
    for line in next_lines(commands):
        console.print(line, soft_wrap=True)


def show_calibrated(metrics: CalibratedMetrics | None) -> None:
    """Print the metrics of a calibrated run; nothing without a calibration."""
    if metrics is None:
        return
    table = figure_table("calibrated", "", "promised")
    table.add_row("loss", "" if metrics.loss is None else f"{metrics.loss:.3f}", "")
    table.add_row("calibration error", percent(metrics.calibration_error), "")
    table.add_row("answered", percent(metrics.answered), "")
    table.add_row("precision of the answers", percent(metrics.precision), _least(metrics.promised_precision))
    table.add_row("unknown (uncertain)", percent(metrics.uncertain), "")
    table.add_row("unknown (unfamiliar)", percent(metrics.unfamiliar), "")
    if metrics.set_size is not None:
        table.add_row("coverage of the sets", percent(metrics.coverage), _least(metrics.promised_coverage))
        table.add_row("classes in a set (mean)", f"{metrics.set_size:.2f}", "")
    print_titled("Calibrated", table)


def _least(value: float | None) -> str:
    return "" if value is None else f"at least {percent(value)}"


def show_unknown(metrics: UnknownMetrics | None) -> None:
    """Print how images of unknown classes are told apart; nothing without such images."""
    if metrics is None:
        return
    table = figure_table("score", "AUROC:", "unknown kept where 95 % of known are:", "unknown rejected:", "known kept:")
    for name, found in metrics.detection.items():
        shown = f"{name} (in use)" if name == metrics.score else name
        table.add_row(shown, percent(found.auroc), percent(found.fpr95), percent(found.rejected), percent(found.kept))
    print_titled(f"Unknown classes: {counted(metrics.images, 'image')} of {metrics.source}", table)
    if metrics.answered is not None:
        out().print(f"unknown images that get an answer all the same: {percent(metrics.answered)}", soft_wrap=True)
