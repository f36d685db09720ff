"""Run a benchmark from request to report."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import torch

from fgvc_cli._version import __version__
from fgvc_cli.benchmarking.combinations import LARGEST, BenchRequest, Plan, plan
from fgvc_cli.benchmarking.measuring import free_memory
from fgvc_cli.benchmarking.results import Feed, Report, Row
from fgvc_cli.benchmarking.rows import RowMaker
from fgvc_cli.benchmarking.timing import Meter, matmul_rate
from fgvc_cli.devices import describe_device, resolve_precision
from fgvc_cli.launch import usable_cores
from fgvc_cli.registry import Registry


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Return the device, what it is called, and the versions of what computes on it."""
    return {
        "device": device.type,
        "device_name": processor_name() if device.type == "cpu" else describe_device(device),
        "threads": torch.get_num_threads(),
        "cores": usable_cores(),
        **{name: metadata.version(name) for name in ("torch", "torchvision", "timm")},
        "python": platform.python_version(),
        "fgvc": __version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def processor_name() -> str:
    """Return what the processor is called, as far as the system tells."""
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


PIPELINE = "input pipeline"
"""What `Watcher.started` is told when the input pipeline's turn comes; it is no row."""


class Watcher(Protocol):
    """What a benchmark reports to while it runs."""

    def planned(self, names: Sequence[str]) -> None:
        """These rows will be measured, in this order; called once, before anything is measured."""

    def started(self, name: str) -> None:
        """This row's turn has come (or `PIPELINE`'s, which comes before all rows)."""

    def finished(self, row: Row) -> None:
        """A row is measured, or could not be (`row.failed`)."""


def bench(request: BenchRequest, registry: Registry, watcher: Watcher, keep: Callable[[Report], None]) -> Report:
    """Measure what was asked for.

    Args:
        request: which combinations, and how.
        registry: finds the components.
        watcher: is told how far it is.
        keep: gets the report as far as it is, after the pipeline and after each row.

    Returns:
        The report. After Ctrl-C it holds what was measured until then, and says so (`Report.interrupted`); after
        SIGTERM that is kept, and `SystemExit` goes on.

    Raises:
        UsageError: a name, an option or a value does not exist or does not fit; nothing was measured.
        FgvcError: the images for `epoch` or `pipeline` cannot be read; no row was measured.
    """
    planned = plan(request, registry)
    report = Report(machine_facts(planned.device), _settings(request, planned))
    images = _open_images(planned) if request.epoch or request.pipeline else None
    watcher.planned([combination.name for combination in planned.combinations])
    measured = _Measured(report, keep)
    torch.backends.cudnn.benchmark = True  # as training has it
    try:
        _measure(request, planned, images, watcher, measured)
    except KeyboardInterrupt:
        return measured.interrupted()
    except SystemExit:  # SIGTERM: nobody is there to look at a table
        if measured.report.rows or measured.report.feeds:
            keep(measured.interrupted())
        raise
    finally:
        free_memory(planned.device)
    return measured.report


@dataclass
class _Measured:
    """The report as far as it is."""

    report: Report
    keep: Callable[[Report], None]

    def add(self, row: Row) -> None:
        self.report = replace(self.report, rows=(*self.report.rows, row))
        self.keep(self.report)

    def add_feeds(self, feeds: tuple[Feed, ...]) -> None:
        self.report = replace(self.report, feeds=feeds)
        self.keep(self.report)

    def interrupted(self) -> Report:
        return replace(self.report, interrupted=True)

    def note_rate(self, rate: float) -> None:
        self.report = replace(self.report, machine={**self.report.machine, "multiply_adds_per_second": rate})


def _measure(request: BenchRequest, planned: Plan, images: Any, watcher: Watcher, measured: _Measured) -> None:
    if request.pipeline:
        from fgvc_cli.benchmarking.pipeline import measure_feeds

        watcher.started(PIPELINE)
        measured.add_feeds(measure_feeds(planned.alone, planned.seconds, images))
    rate = None
    if planned.combinations:
        rate = matmul_rate(planned.device, measured.report.settings["precision"])
        measured.note_rate(rate)
    maker = RowMaker(request, planned, Meter(planned.device, planned.seconds, rate), images)
    for combination in planned.combinations:
        watcher.started(combination.name)
        row = maker.make(combination)
        measured.add(row)
        watcher.finished(row)


def _open_images(planned: Plan) -> Any:
    """Open the dataset, so that what is wrong with it is said before anything is measured."""
    from fgvc_cli.training.setup import open_splits

    return open_splits(planned.alone)


def _settings(request: BenchRequest, planned: Plan) -> dict[str, Any]:
    """Return what was asked for, with what a default came to."""
    train = planned.alone.train
    return {
        "image_size": train.image_size,
        "batch_size": "max" if request.batch_size == LARGEST else train.batch_size,
        "classes": request.classes,
        "precision": resolve_precision(train.precision, planned.device),
        "channels_last": train.channels_last,
        "compile": train.compile,
        "recipe": planned.alone.recipe,
        "set": list(request.settings),
        "seconds": planned.seconds,
        "explainers": {explainer.name: dict(explainer.options) for explainer in planned.explainers},
        "epoch": request.epoch,
        "pipeline": request.pipeline,
        "dataset": planned.alone.dataset.name if request.epoch or request.pipeline else None,
        "data": None if planned.alone.data is None else str(planned.alone.data),
        "workers": request.workers,
    }
