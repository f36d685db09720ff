"""Tables of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fgvc_cli.benchmarking.results import Report, Row, Work
from fgvc_cli.benchmarking.text import circumstances, failures, kept_waiting, row_names, sections, speed, spread
from fgvc_cli.cli.console import out
from fgvc_cli.cli.tables import Column, print_sections
from fgvc_cli.formatting import bytes_of, count, quoted, rate, ratio, share

if TYPE_CHECKING:
    from rich.table import Table

    from fgvc_cli.benchmarking.files import BenchFiles


def show_report(report: Report) -> None:
    """Print what it was measured on, the tables, and what their columns mean."""
    console = out()
    for line in circumstances(report):
        console.print(line, soft_wrap=True)
    if report.rows:
        _titled("Training updates and prediction")
        print_sections("head + optimizer", row_names(report.rows), sections(report.rows), _columns(report.rows))
    _show_explainers(report.rows)
    _show_epochs(report.rows)
    if report.feeds:
        _titled("Input pipeline, without a model")
        console.print(_feeds(report))
    console.print()
    for line in (*failures(report.rows), *kept_waiting(report.rows)):
        console.print(line, soft_wrap=True)
    for line in meanings(report):
        console.print(line, style="dim", soft_wrap=True)
    if report.interrupted:
        console.print("interrupted: these are the combinations that were measured until then.", soft_wrap=True)


def show_places(files: BenchFiles, report: Report) -> None:
    """Print where the files are, and how to compare them with an earlier benchmark, or a later one."""
    if not files.written:
        return
    here, other = quoted(str(files.folder)), files.earlier(report)
    compared = f"{quoted(str(other))} {here}" if other else f"{here} OTHER"
    out().print(f"written: {here}/ ({', '.join(file.name for file in files.written)})", soft_wrap=True)
    if report.feeds or any(row.update or row.predict for row in report.rows):
        out().print(f"next: fgvc bench compare {compared}", soft_wrap=True)


def meanings(report: Report) -> list[str]:
    """Return what the columns mean; those that are not shown are left out."""
    updates = [row.update for row in report.rows if row.update]
    if not updates:
        return []
    lines = [
        "update: all objectives of the head and passes of the optimizer; median ± half of the quartiles' distance."
    ]
    if any(work.timing.rounds < 2 for work in updates):
        lines.append("(once): there was time for one round alone, which says nothing of the spread; see --seconds.")
    baselines = {f"{row.head} + {row.optimizer_title}" for row in report.rows if row.baseline}
    base = next(iter(baselines)) if len(baselines) == 1 else "the baseline"
    if any(work.ratio is not None for work in updates):
        lines.append(f"ratio: images/s beside {base} on the same backbone.")
    if any(work.over_arithmetic is not None for work in updates):
        lines.append("over arithmetic: the update's time beside what its multiply-adds would take at that one's rate.")
    if any(work.multiply_adds for work in updates):
        lines.append("multiply-adds: of an image in an update, forward and backward.")
    if any(work.peak_memory for work in updates):
        lines.append("peak memory: of tensors in an update, weights and optimizer state included.")
    products = report.machine.get("multiply_adds_per_second")
    if products and any(work.matrix_share for work in updates):
        lines.append(
            f"matrix share: of the {count(products)} multiply-adds/s at which this device multiplies matrices."
        )
    return lines


def _columns(rows: Sequence[Row]) -> list[Column]:
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
        Column("multiply-\nadds", [count(work.multiply_adds if work else None) for work in updates]),
        Column("peak\nmemory", [bytes_of(work.peak_memory if work else None) for work in updates]),
        Column("matrix\nshare", [share(work.matrix_share if work else None) for work in updates]),
        Column("over\narithmetic", [ratio(work.over_arithmetic if work else None) for work in updates]),
    ]


def _show_explainers(rows: Sequence[Row]) -> None:
    """Print the heat maps' times: they do not depend on the optimizer, so each head is shown once."""
    found: dict[tuple[str, str, str], tuple[Row, str, Work]] = {}
    for row, section in zip(rows, sections(rows), strict=True):
        for name, work in row.explain.items():
            found.setdefault((section, row.head, name), (row, name, work))
    if not found:
        return
    shown, works = list(found), [work for _, _, work in found.values()]
    _titled("Heat maps")
    columns = [
        Column("ms\na batch", [spread(work) for work in works]),
        Column("\nimages/s", [speed(work) for work in works]),
        Column("\nratio", [ratio(work.ratio) for work in works]),
        Column("peak\nmemory", [bytes_of(work.peak_memory) for work in works]),
    ]
    names = [f"{head}: {name}" for _, head, name in shown]
    print_sections("head: explainer", names, [section for section, _, _ in shown], columns)


def _show_epochs(rows: Sequence[Row]) -> None:
    """Print epochs over real images, beside the rate of the updates alone."""
    timed = [(row, row.epoch) for row in rows if row.epoch is not None]
    if not timed:
        return
    _titled("Epochs over real images, reading and augmenting included")
    columns = [
        Column("\nimages", [str(epoch.images) for _, epoch in timed]),
        Column("\nseconds", [f"{epoch.timing.median / 1000:.1f}" for _, epoch in timed]),
        Column("\nimages/s", [speed(epoch) for _, epoch in timed]),
        Column("\nratio", [ratio(epoch.ratio) for _, epoch in timed]),
        Column("beside\nupdates", [share(_beside_updates(row)) for row, _ in timed]),
    ]
    only = [row for row, _ in timed]
    print_sections("head + optimizer", row_names(only), sections(only), columns)


def _beside_updates(row: Row) -> float | None:
    """Return the share of the updates' images a second that an epoch reaches: the rest goes into reading."""
    if row.epoch is None or row.update is None:
        return None
    return row.epoch.images_per_second / row.update.images_per_second


def _feeds(report: Report) -> Table:
    from fgvc_cli.cli.data_tables import plain_table

    table = plain_table("images come from", "images/s:", "images:", "note")
    for feed in report.feeds:
        table.add_row(feed.name, rate(feed.images_per_second), str(feed.images), feed.note)
    return table


def _titled(title: str) -> None:
    from rich.text import Text

    out().print()
    out().print(Text(title, style="bold"))
