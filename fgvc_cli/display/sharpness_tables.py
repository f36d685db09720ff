"""What the loss around runs' weights shows a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fgvc_cli.display.console import out
from fgvc_cli.display.evaluation_tables import (
    images_text,
    left_out_line,
    next_lines,
    print_title,
    quoted,
    written_line,
)
from fgvc_cli.display.run_labels import run_labels
from fgvc_cli.display.sections import Column, print_sections

if TYPE_CHECKING:
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
    print_sections("run", labels, [""] * len(labels), _weights(runs))
    print_title(f"Rise of the loss, nats, by the radius (rho = {summary['rho']:g})")
    print_sections("direction", ["gradient", "random (mean)"] * len(runs), _twice(labels), _rises(runs))
    if summary["adaptive_rho"] is not None:
        print_title(f"Rise of the loss, nats, by the adaptive (ASAM) radius (rho = {summary['adaptive_rho']:g})")
        print_sections("run", labels, [""] * len(labels), _adaptive_rises(runs))
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
