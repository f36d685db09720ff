"""The files of a benchmark: the whole report as JSON, a line a combination as CSV, and a chart."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fgvc_cli import files
from fgvc_cli.benchmarking.chart import draw_chart
from fgvc_cli.benchmarking.comparing import compare
from fgvc_cli.benchmarking.results import Report, Row, Work, report_from_json
from fgvc_cli.errors import FgvcError
from fgvc_cli.files import write_csv
from fgvc_cli.runs.folder import choose_new_folder

logger = logging.getLogger(__name__)

JSON_FILE, CSV_FILE, CHART_FILE = "bench.json", "bench.csv", "bench.png"
FOLDER = "bench"
"""Where benchmarks go that are given no folder, in the current one."""
LOOKED_AT = 20
"""So many benchmarks are looked through for one that can be compared."""

CIRCUMSTANCES = {"machine": ("device_name", "torch", "fgvc"), "settings": ("precision", "channels_last", "compile")}
"""What each line of the CSV repeats of the report, so that several files can be put together."""


class BenchFiles:
    """Writes a benchmark's files as it goes on.

    Attributes:
        folder: where to; made with the first file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written: list[Path] = []
        self._warned = False

    @property
    def written(self) -> list[Path]:
        """Return the files that are there now, in the order of their first writing."""
        return list(self._written)

    def earlier(self, report: Report) -> Path | None:
        """Return the folder of the newest other benchmark beside this one that can be compared with it, or None."""
        here = self.folder.absolute()
        others = [path for path in here.parent.glob(f"*/{JSON_FILE}") if path.parent != here]
        for path in sorted(others, key=lambda path: path.stat().st_mtime_ns, reverse=True)[:LOOKED_AT]:
            with suppress(FgvcError):  # a damaged one is no reason to complain now
                compare(read_report(path), report).refuse_if_empty("", "")
                return path.parent
        return None

    def keep_if_possible(self, report: Report) -> None:
        """Write what is known so far; where that cannot be, warn once: no disk is worth an hour of measuring."""
        try:
            self.keep(report)
        except FgvcError as error:
            if not self._warned:
                logger.warning(f"{error} Measuring goes on; it is tried again after every combination.")
            self._warned = True

    def keep(self, report: Report) -> None:
        """Write what is known so far: each file replaces its predecessor whole.

        Raises:
            FgvcError: it cannot be written.
        """
        if not self._written:
            self._clear()
        self._write(JSON_FILE, lambda path: files.write_json(path, report.as_json()))
        if report.rows:
            header, lines = table(report)
            self._write(CSV_FILE, lambda path: write_csv(path, header, lines))

    def finish(self, report: Report) -> None:
        """Write everything for the last time, and the chart if an update was timed.

        Raises:
            FgvcError: it cannot be written.
        """
        if not report.rows and not report.feeds:
            return
        self.keep(report)
        if any(row.update for row in report.rows):
            self._write(CHART_FILE, lambda path: draw_chart(path, report))

    def _write(self, name: str, write: Any) -> None:
        path = self.folder / name
        write(path)
        if path not in self._written:
            self._written.append(path)

    def _clear(self) -> None:
        """Delete an earlier benchmark that is replaced: a chart of it beside the new figures would deceive."""
        for name in (JSON_FILE, CSV_FILE, CHART_FILE):
            try:
                (self.folder / name).unlink(missing_ok=True)
            except OSError as error:
                raise FgvcError(f"Cannot replace {self.folder / name}: {error.strerror or error}.") from error


def choose_folder(out: Path | None, force: bool) -> Path:
    """Return the folder for the files, see `choose_new_folder`."""
    return choose_new_folder(out, force, FOLDER, "the benchmark")


def read_report(path: Path) -> Report:
    """Read a report from a `bench.json`, or from the folder that one lies in.

    Raises:
        FgvcError: it is not there, or no such file.
    """
    file = path / JSON_FILE if path.is_dir() else path
    if not file.is_file():
        missing = f"has no {JSON_FILE}" if path.is_dir() else "there is no such file"
        raise FgvcError(f"{path}: {missing}. Name a {JSON_FILE} that fgvc bench wrote, or its folder.")
    return report_from_json(files.read_json(file), str(file))


def table(report: Report) -> tuple[list[str], list[list[Any]]]:
    """Return header and lines of the CSV: one line a combination, one column a figure; what is not known is empty."""
    lines = [_line(row, report) for row in report.rows]
    columns = list(dict.fromkeys(column for line in lines for column in line))
    return columns, [[line.get(column) for column in columns] for line in lines]


def _line(row: Row, report: Report) -> dict[str, Any]:
    line: dict[str, Any] = {
        "backbone": row.backbone,
        "head": row.head,
        "optimizer": row.optimizer_title,
        "image_size": row.image_size,
        "batch_size": row.batch_size,
        "baseline": int(row.baseline),
        "parameters": sum(row.parameters.values()) if row.parameters else None,
    }
    works: Mapping[str, Work | None] = {"update": row.update, "predict": row.predict, "epoch": row.epoch}
    explained = {f"explain_{name}": row.explain.get(name) for name in _explainers(report.rows)}
    for name, work in {**works, **explained}.items():
        if any(_work(other, name) is not None for other in report.rows):
            line |= {f"{name}_{figure}": value for figure, value in _figures(work).items()}
    for part, names in CIRCUMSTANCES.items():
        line |= {name: getattr(report, part).get(name) for name in names}
    return {**line, "failed": row.failed}


def _figures(work: Work | None) -> dict[str, Any]:
    if work is None:
        return {}
    return {
        "images_per_second": round(work.images_per_second, 3),
        "ms": work.timing.median,
        "ms_low": work.timing.low,
        "ms_high": work.timing.high,
        "rounds": work.timing.rounds,
        "warm_up_s": work.timing.warm_up,
        "waited": work.timing.waited,
        "multiply_adds": work.multiply_adds,
        "peak_memory": work.peak_memory,
        "matrix_share": work.matrix_share,
        "ratio": work.ratio,
        "over_arithmetic": work.over_arithmetic,
    }


def _explainers(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.explain))


def _work(row: Row, name: str) -> Work | None:
    explainer = name.removeprefix("explain_")
    return row.explain.get(explainer) if explainer != name else getattr(row, name)
