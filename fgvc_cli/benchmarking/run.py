"""Run a benchmark."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fgvc_cli._version import __version__
from fgvc_cli.benchmarking.combinations import BenchRequest, Plan, plan
from fgvc_cli.benchmarking.measuring import free_memory
from fgvc_cli.benchmarking.results import Report
from fgvc_cli.benchmarking.rows import RowMaker
from fgvc_cli.benchmarking.text import failures, speed
from fgvc_cli.benchmarking.timing import Meter, matmul_rate
from fgvc_cli.devices import describe_device, resolve_precision
from fgvc_cli.launch import usable_cores
from fgvc_cli.progress import progress
from fgvc_cli.registry import Registry

logger = logging.getLogger(__name__)


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Return the device, its name, and the versions of the libraries that compute on it."""
    return {
        "device": device.type,
        "device_name": _processor_name() if device.type == "cpu" else describe_device(device),
        "threads": torch.get_num_threads(),
        "cores": usable_cores(),
        **{name: metadata.version(name) for name in ("torch", "torchvision", "timm")},
        "python": platform.python_version(),
        "fgvc": __version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def bench(request: BenchRequest, registry: Registry, save: Callable[[Report], None]) -> Report:
    """Measure the requested combinations; `save` is called with the report so far after the pipeline and each row.

    Returns:
        The report. After Ctrl-C it has the measurements so far (`Report.interrupted`). After SIGTERM these are passed
        to `save`, and `SystemExit` propagates.

    Raises:
        UsageError: a name, an option or a value does not exist or does not fit; nothing was measured.
        FgvcError: the images for `epoch` or `pipeline` cannot be read; no row was measured.
    """
    planned = plan(request, registry)
    report = Report(machine_facts(planned.device), _settings(request, planned))
    images = None
    if request.epoch or request.pipeline:
        from fgvc_cli.training.setup import open_splits

        images = open_splits(planned.config)
    if len(planned.combinations) > 1:
        logger.info(f"{len(planned.combinations)} combinations; Ctrl-C keeps the results so far")
    torch.backends.cudnn.benchmark = True  # as in training
    try:
        for measured in _measure(report, request, planned, images):
            report = measured
            save(report)
    except KeyboardInterrupt:
        report = replace(report, interrupted=True)
    except SystemExit:
        if report.rows or report.feeds:
            save(replace(report, interrupted=True))
        raise
    finally:
        free_memory(planned.device)
    return report


def _measure(report: Report, request: BenchRequest, planned: Plan, images: Any) -> Iterator[Report]:
    """Yield the report after each step."""
    with progress("bench", len(planned.combinations) or None, "combinations") as bar:
        if request.pipeline:
            from fgvc_cli.benchmarking.pipeline import measure_feeds

            bar.advance(0, "input pipeline")
            report = replace(report, feeds=measure_feeds(planned.config, planned.seconds, images))
            yield report
        if not planned.combinations:
            return
        rate = matmul_rate(planned.device, report.settings["precision"])
        report = replace(report, machine={**report.machine, "macs_per_second": rate})
        maker = RowMaker(request, planned, Meter(planned.device, planned.seconds, rate), images)
        for combination in planned.combinations:
            bar.advance(0, combination.name)
            row = maker.make(combination)
            report = replace(report, rows=(*report.rows, row))
            yield report
            bar.advance(1, f"{combination.name}: {f'{speed(row.update)} images/s' if row.update else 'failed'}")
            for line in failures([row]):
                logger.info(line)


def _settings(request: BenchRequest, planned: Plan) -> dict[str, Any]:
    """Return the requested settings with their defaults resolved."""
    config = planned.config
    return {
        "image_size": config.train.image_size,
        "batch_size": "max" if planned.largest_batch else config.train.batch_size,
        "classes": request.classes,
        "precision": resolve_precision(config.train.precision, planned.device),
        "channels_last": config.train.channels_last,
        "compile": config.train.compile,
        "recipe": config.recipe,
        "set": list(request.settings),
        "seconds": planned.seconds,
        "explainers": {explainer.name: dict(explainer.options) for explainer in planned.explainers},
        "epoch": request.epoch,
        "pipeline": request.pipeline,
        "dataset": config.dataset.name if request.epoch or request.pipeline else None,
        "data": None if config.data is None else str(config.data),
        "workers": request.workers,
    }
