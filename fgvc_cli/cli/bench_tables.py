"""Tables of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fgvc_cli.benchmarking.results import Feed, Report, Row, Work
from fgvc_cli.benchmarking.text import (
    baseline_name,
    busy_cpu,
    failures,
    row_names,
    sections,
    setup_lines,
    speed,
    spread,
)
from fgvc_cli.cli.console import out
from fgvc_cli.cli.lazy import as_options
from fgvc_cli.cli.tables import Column, figure_table, print_sections, print_title, print_titled, written_line
from fgvc_cli.formatting import bytes_of, count, quoted, rate, ratio, share

if TYPE_CHECKING:
    from fgvc_cli.benchmarking.files import BenchFiles


def show_report(report: Report) -> None:
    """Print machine and settings, the tables, and the meaning of their columns."""
    console, rows = out(), report.rows
    for line in setup_lines(report):
        console.print(line, soft_wrap=True)
    if rows:
        print_title("Training updates and predictions")
        print_sections("head + optimizer", row_names(rows), sections(rows), columns(rows))
    _show_explainers(rows)
    _show_epochs([row for row in rows if row.epoch])
    _show_feeds(report.feeds)
    console.print()
    for line in (*failures(rows), *busy_cpu(rows)):
        console.print(as_options(line), soft_wrap=True)
    for line in meanings(report):
        console.print(line, style="dim", soft_wrap=True)
    if report.interrupted:
        console.print("interrupted: only the combinations measured so far are shown", soft_wrap=True)


def show_places(files: BenchFiles, report: Report) -> None:
    """Print where the files are, and the command to compare them with an earlier benchmark."""
    if not files.written:
        return
    out().print(written_line(files.written), soft_wrap=True)
    if report.feeds or any(row.update or row.predict for row in report.rows):
        folder, other = quoted(str(files.folder)), files.earlier(report)
        compared = f"{quoted(str(other))} {folder}" if other else f"{folder} OTHER"
        out().print(f"next: fgvc bench compare {compared}", soft_wrap=True)


def meanings(report: Report) -> list[str]:
    """Return the meaning of each column that is shown."""
    updates = [row.update for row in report.rows if row.update]
    if not updates:
        return []
    lines = ["update: all objectives of the head, all passes of the optimizer; median ± half the interquartile range"]
    if any(work.timing.rounds < 2 for work in updates):
        lines.append("(once): one round within the time limit, so the spread is unknown; increase --seconds")
    if any(work.ratio is not None for work in updates):
        lines.append(f"ratio: images/s relative to {baseline_name(report.rows) or 'the baseline'} on the same backbone")
    if any(work.time_vs_mac_bound is not None for work in updates):
        lines.append("time vs. MAC bound: time of the update / time of its MACs at the MACs/s of the baseline")
    if any(row.bf16 for row in report.rows):
        from fgvc_cli.devices import BF16_GAIN  # imports torch, which `fgvc bench compare` does not need

        lines.append(f"bf16 vs. fp32: time of an update in bf16 relative to fp32; auto takes bf16 up to {BF16_GAIN:g}")
    if any(work.macs for work in updates):
        lines.append("MACs: multiply-accumulate operations per image in an update, forward and backward")
    if any(work.peak_memory for work in updates):
        lines.append("peak memory: of tensors in an update, weights and optimizer state included")
    matrix_rate = report.machine.get("macs_per_second")
    if matrix_rate and any(work.matrix_share for work in updates):
        lines.append(f"matrix share: MACs/s as a share of the device's {count(matrix_rate)}MACs/s on large matrices")
    return lines


def columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of the table of updates and predictions."""
    several = len({row.batch_size for row in rows if row.batch_size}) > 1
    updates, predictions = [row.update for row in rows], [row.predict for row in rows]
    milliseconds = ["failed" if row.failed and not row.update else spread(row.update) for row in rows]
    return [
        Column("\nbatch", [str(row.batch_size or "") if several else "" for row in rows]),
        Column("update\nms", milliseconds),
        Column("update\nimages/s", [speed(work) for work in updates]),
        Column("\nratio", [ratio(work.ratio if work else None) for work in updates]),
        Column("predict\nimages/s", [speed(work) for work in predictions]),
        Column("\nparameters", [count(sum(row.parameters.values())) for row in rows]),
        Column("\nMACs", [count(work.macs if work else None) for work in updates]),
        Column("peak\nmemory", [bytes_of(work.peak_memory if work else None) for work in updates]),
        Column("matrix\nshare", [share(work.matrix_share if work else None) for work in updates]),
        Column("bf16\nvs. fp32", [ratio(row.bf16_vs_fp32) for row in rows]),
        Column("time vs.\nMAC bound", [ratio(work.time_vs_mac_bound if work else None) for work in updates]),
    ]


def _show_explainers(rows: Sequence[Row]) -> None:
    """Print the times of saliency maps once per head, as they do not depend on the optimizer."""
    found: dict[tuple[str, str], Work] = {}
    for row, section in zip(rows, sections(rows), strict=True):
        for name, work in row.explain.items():
            found.setdefault((section, f"{row.head}: {name}"), work)
    if not found:
        return
    works = list(found.values())
    print_title("Saliency maps")
    shown = [
        Column("ms\nper batch", [spread(work) for work in works]),
        Column("\nimages/s", [speed(work) for work in works]),
        Column("\nratio", [ratio(work.ratio) for work in works]),
        Column("peak\nmemory", [bytes_of(work.peak_memory) for work in works]),
    ]
    print_sections("head: explainer", [name for _, name in found], [section for section, _ in found], shown)


def _show_epochs(rows: Sequence[Row]) -> None:
    if not rows:
        return
    epochs = [row.epoch for row in rows if row.epoch]
    print_title("Epochs over real images, loading and augmentation included")
    relative = [
        epoch.images_per_second / row.update.images_per_second if row.update else None
        for epoch, row in zip(epochs, rows, strict=True)
    ]
    shown = [
        Column("\nimages", [str(epoch.images) for epoch in epochs]),
        Column("\nseconds", [f"{epoch.timing.median / 1000:.1f}" for epoch in epochs]),
        Column("\nimages/s", [speed(epoch) for epoch in epochs]),
        Column("\nratio", [ratio(epoch.ratio) for epoch in epochs]),
        Column("relative to\nupdates", [share(value) for value in relative]),
    ]
    print_sections("head + optimizer", row_names(rows), sections(rows), shown)


def _show_feeds(feeds: Sequence[Feed]) -> None:
    table = figure_table("images from", "images/s:", "images:", "note")
    for feed in feeds:
        table.add_row(feed.name, rate(feed.images_per_second), str(feed.images), as_options(feed.note))
    print_titled("Input pipeline, without a model", table)
