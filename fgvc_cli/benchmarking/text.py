"""Benchmark results as text."""

from __future__ import annotations

from collections.abc import Sequence

from fgvc_cli.benchmarking.results import Report, Row, Work
from fgvc_cli.formatting import counted, rate, share

MAX_WAITED = 0.1
"""Fraction of its time that an update may wait for the CPU without a warning."""


def row_names(rows: Sequence[Row]) -> list[str]:
    """Return the name of each row within its section: "pim + sam over sgd"."""
    return [f"{row.head} + {row.optimizer_title}" for row in rows]


def sections(rows: Sequence[Row]) -> list[str]:
    """Return the section of each row: its backbone, with the image size if there are several."""
    several = len({row.image_size for row in rows}) > 1
    return [f"{row.backbone} at {row.image_size} px" if several else row.backbone for row in rows]


def baseline_name(rows: Sequence[Row]) -> str | None:
    """Return the name of the baseline, or None unless all backbones have the same."""
    names = set(row_names([row for row in rows if row.baseline]))
    return names.pop() if len(names) == 1 else None


def failures(rows: Sequence[Row]) -> list[str]:
    """Return a line for each reason why rows failed wholly or in part, merging those of one backbone that share it."""
    groups: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for row in rows:
        if row.failed:
            extent = "failed in part" if row.update else "failed"
            heads = groups.setdefault((extent, row.backbone, row.failed), {})
            heads.setdefault(row.head, []).append(row.optimizer_title)
    lines = []
    for (extent, backbone, reason), heads in groups.items():
        optimizers = {
            head: titles[0] if len(titles) == 1 else f"({', '.join(titles)})" for head, titles in heads.items()
        }
        named = ", ".join(f"{head} + {titles}" for head, titles in optimizers.items())
        lines.append(f"{extent}: {backbone} + {named}: {reason}")
    return lines


def busy_cpu(rows: Sequence[Row]) -> list[str]:
    """Return a warning if the CPU was busy with other work while updates were timed."""
    waited = [row.update.timing.waited or 0.0 for row in rows if row.update]
    late = [fraction for fraction in waited if fraction > MAX_WAITED]
    if not late:
        return []
    return [
        f"the CPU was busy with other work: {len(late)} of {len(waited)} updates waited for it, up to "
        f"{share(max(late))} of their time. These times are too long and ratios may be wrong; measure again when it is "
        "idle."
    ]


def spread(work: Work | None) -> str:
    """Format milliseconds as "123.4 ± 1.2": the median and half of the interquartile range."""
    if work is None:
        return ""
    timing = work.timing
    digits = 0 if timing.median >= 1000 else 1 if timing.median >= 10 else 2
    if timing.rounds < 2:
        return f"{timing.median:.{digits}f} (once)"
    return f"{timing.median:.{digits}f} ± {(timing.high - timing.low) / 2:.{digits}f}"


def speed(work: Work | None) -> str:
    """Format images per second."""
    return "" if work is None else rate(work.images_per_second)


def setup_lines(report: Report) -> list[str]:
    """Return two lines: the machine with its versions, and the settings."""
    machine, settings = report.machine, report.settings
    device = str(machine.get("device_name") or machine.get("device") or "unknown device")
    threads = machine.get("threads")
    if machine.get("device") == "cpu" and threads and "thread" not in device:
        device += f", {counted(threads, 'thread')}"
    names = {"torch": "torch", "timm": "timm", "cuda": "CUDA", "fgvc": "fgvc"}
    versions = [f"{name} {machine[key]}" for key, name in names.items() if machine.get(key)]
    parts = [
        *_sizes(report),
        str(settings.get("precision", "")),
        f"channels-last {settings['channels_last']}" if settings.get("channels_last") else "",
        "compiled" if settings.get("compile") else "not compiled",
        f"{settings['classes']} classes" if settings.get("classes") else "",
        f"recipe {settings['recipe']}" if settings.get("recipe") else "",
        *(settings.get("set") or ()),
    ]
    return ["; ".join([device, ", ".join(versions)]), ", ".join(part for part in parts if part)]


def _sizes(report: Report) -> list[str]:
    """Return image size and batch size, each if it is the same in all rows; without rows, those of the settings."""
    pixels = {row.image_size for row in report.rows}
    images = {row.batch_size for row in report.rows if row.batch_size}  # 0: no batch fitted
    if not report.rows:
        pixels, images = ({report.settings[name]} for name in ("image_size", "batch_size"))
    named = [f"{next(iter(pixels))} px"] if len(pixels) == 1 else []
    return named + ([f"batches of {next(iter(images))}"] if len(images) == 1 else [])
