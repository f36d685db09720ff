"""The files of a benchmark: the report as JSON, one row per combination as CSV, and a chart."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fgvc_cli import files
from fgvc_cli.benchmarking.chart import draw_chart
from fgvc_cli.benchmarking.comparing import compare
from fgvc_cli.benchmarking.results import Report, Row, Work, report_from_json
from fgvc_cli.errors import FgvcError

logger = logging.getLogger(__name__)

JSON_FILE, CSV_FILE, CHART_FILE = "bench.json", "bench.csv", "bench.png"
MAX_READ = 20
"""Maximum number of earlier benchmarks to search for one to compare with."""

SETUP = {"machine": ("device_name", "torch", "fgvc"), "settings": ("precision", "channels_last", "compile")}
"""Facts of the report that each CSV row repeats, so that files can be concatenated."""


class BenchFiles:
    """Writes a benchmark's files while it runs.

    Attributes:
        folder: created with the first file.
        written: the files that exist now, in the order of their first writing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[Path] = []
        self._warned = False

    def earlier(self, report: Report) -> Path | None:
        """Return the newest sibling folder with a benchmark that can be compared with this one, or None."""
        folder = self.folder.absolute()
        others = [path for path in folder.parent.glob(f"*/{JSON_FILE}") if path.parent != folder]
        for path in sorted(others, key=lambda path: path.stat().st_mtime_ns, reverse=True)[:MAX_READ]:
            with suppress(FgvcError):  # damaged, or nothing in common
                compare(read_report(path), report).check("", "")
                return path.parent
        return None

    def save_if_possible(self, report: Report) -> None:
        """Write the report so far; warn once if that fails, as a full disk should not end an hour of measuring."""
        try:
            self.save(report)
        except FgvcError as error:
            if not self._warned:
                logger.warning(f"{error} Measuring continues; writing is retried after every combination.")
            self._warned = True

    def save(self, report: Report) -> None:
        """Write the report so far, replacing each file atomically.

        Raises:
            FgvcError: it cannot be written.
        """
        if not self.written:
            self._clear()
        self._write(JSON_FILE, lambda path: files.write_json(path, report.as_json()))
        if report.rows:
            header, lines = table(report)
            self._write(CSV_FILE, lambda path: files.write_csv(path, header, lines))

    def finish(self, report: Report) -> None:
        """Write all files for the last time, with the chart if an update was timed.

        Raises:
            FgvcError: they cannot be written.
        """
        if not report.rows and not report.feeds:
            return
        self.save(report)
        if any(row.update for row in report.rows):
            self._write(CHART_FILE, lambda path: draw_chart(path, report))

    def _write(self, name: str, write: Callable[[Path], object]) -> None:
        path = self.folder / name
        write(path)
        if path not in self.written:
            self.written.append(path)

    def _clear(self) -> None:
        """Delete the benchmark that is replaced: its chart would not belong to the new results."""
        for name in (JSON_FILE, CSV_FILE, CHART_FILE):
            try:
                (self.folder / name).unlink(missing_ok=True)
            except OSError as error:
                raise FgvcError(f"Cannot replace {self.folder / name}: {error.strerror or error}.") from error


def read_report(path: Path) -> Report:
    """Read a report from a `bench.json` file or its folder.

    Raises:
        FgvcError: it does not exist, is damaged, or is not a report.
    """
    file = path / JSON_FILE if path.is_dir() else path
    if not file.is_file():
        problem = f"has no {JSON_FILE}" if path.is_dir() else "does not exist"
        raise FgvcError(f"{path} {problem}: choose a {JSON_FILE} written by fgvc bench, or its folder")
    return report_from_json(files.read_json(file), str(file))


def table(report: Report) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows of the CSV: one row per combination, one column per figure, empty where unknown."""
    explainers = dict.fromkeys(name for row in report.rows for name in row.explain)
    columns = {name: [getattr(row, name) for row in report.rows] for name in ("update", "predict", "epoch")}
    columns |= {f"explain_{name}": [row.explain.get(name) for row in report.rows] for name in explainers}
    measured = {name: works for name, works in columns.items() if any(works)}
    lines = [_line(row, {n: works[i] for n, works in measured.items()}, report) for i, row in enumerate(report.rows)]
    header = list(dict.fromkeys(column for line in lines for column in line))
    return header, [[line.get(column) for column in header] for line in lines]


def _line(row: Row, works: dict[str, Work | None], report: Report) -> dict[str, Any]:
    line: dict[str, Any] = {
        **row.identity,
        "baseline": int(row.baseline),
        "parameters": sum(row.parameters.values()) if row.parameters else None,
    }
    for name, work in works.items():
        if work is not None:
            line |= {f"{name}_{figure}": value for figure, value in _figures(work).items()}
    for part, names in SETUP.items():
        line |= {name: getattr(report, part).get(name) for name in names}
    return {**line, "failed": row.failed}


def _figures(work: Work) -> dict[str, Any]:
    return {
        "images_per_second": round(work.images_per_second, 3),
        "ms": work.timing.median,
        "ms_low": work.timing.low,
        "ms_high": work.timing.high,
        "rounds": work.timing.rounds,
        "warm_up_s": work.timing.warm_up,
        "waited": work.timing.waited,
        "macs": work.macs,
        "peak_memory": work.peak_memory,
        "matrix_share": work.matrix_share,
        "ratio": work.ratio,
        "time_vs_mac_bound": work.time_vs_mac_bound,
    }
