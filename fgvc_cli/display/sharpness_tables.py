"""What the loss around runs' weights shows a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fgvc_cli.display.console import out
from fgvc_cli.display.evaluation_tables import (
    figure_table,
    images_text,
    left_out_line,
    next_lines,
    print_titled,
    quoted,
    written_line,
)
from fgvc_cli.display.run_labels import run_labels

if TYPE_CHECKING:
    from rich.table import Table

    from fgvc_cli.evaluation.sharpness.over_runs import SharpnessReport

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
    console.print(_weights(runs, labels))
    print_titled(_rise_title(summary, "rho"), _rises(runs, labels))
    if summary["adaptive_rho"] is not None:
        print_titled(_rise_title(summary, "adaptive_rho"), _adaptive_rises(runs, labels))
    console.print()
    for line in closing_lines(report):
        console.print(line, soft_wrap=True)


def closing_lines(report: SharpnessReport) -> list[str]:
    """Return what is missing, where the files are, and what most people would want next."""
    summary = report.summary
    lines = ["interrupted: what had not been measured is missing."] * summary["interrupted"]
    lines += [left_out_line(summary)] * bool(summary["failed"])
    runs = " ".join(quoted(run["run"]) for run in summary["runs"])
    command = f"fgvc evaluate {runs}" + (" --ensemble" if len(summary["runs"]) > 1 else "")
    return [*lines, written_line(report.files), *next_lines([command])]


def nats(value: float | None) -> str:
    """Write a loss with three figures; nothing for None."""
    return "" if value is None else f"{value:.3g}"


def rise_text(rise: float | None) -> str:
    """Write a rise with three figures; one so small that it may be rounding, up or down, as below that."""
    return f"< {ROUNDING:g}" if rise is not None and abs(rise) < ROUNDING else nats(rise)


def _weights(runs: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Table:
    table = figure_table("run", "images:", "loss:", "gradient's norm:", "parameters:", "their norm:")
    for run, label in zip(runs, labels, strict=True):
        norms = nats(run["gradient_norm"]), f"{run['parameters']:,}", nats(run["weight_norm"])
        table.add_row(label, str(run["images"]), nats(run["loss"]), *norms)
    return table


def _rise_title(summary: Mapping[str, Any], radius: str) -> str:
    kind = "the radius" if radius == "rho" else "the adaptive (ASAM) radius"
    return f"Rise of the loss, nats, by {kind} (rho = {summary[radius]:g})"


def _rises(runs: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Table:
    table = figure_table("run", "direction", *(f"{rise['radius']:g}:" for rise in runs[0]["rises"]))
    for run, label in zip(runs, labels, strict=True):
        table.add_row(label, "gradient", *(rise_text(rise["gradient"]) for rise in run["rises"]))
        table.add_row("", "random (mean)", *(rise_text(rise["random"]) for rise in run["rises"]))
    return table


def _adaptive_rises(runs: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Table:
    table = figure_table("run", *(f"{rise['adaptive_radius']:g}:" for rise in runs[0]["rises"]))
    for run, label in zip(runs, labels, strict=True):
        table.add_row(label, *(rise_text(rise["adaptive"]) for rise in run["rises"]))
    return table
