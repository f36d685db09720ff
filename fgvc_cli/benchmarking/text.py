"""Benchmark figures and names as text."""

from __future__ import annotations

from collections.abc import Sequence

from fgvc_cli.benchmarking.results import Report, Row, Work
from fgvc_cli.formatting import rate, share

WAITED = 0.1
"""Share of its time that work may wait for the processor before its figures are doubted."""


def combination(row: Row) -> str:
    """Name a row whole: "swin_t + pim + sam over sgd"."""
    return f"{row.backbone} + {row.head} + {row.optimizer_title}"


def row_names(rows: Sequence[Row]) -> list[str]:
    """Name each row below the name of its section: "pim + sam over sgd"."""
    return [f"{row.head} + {row.optimizer_title}" for row in rows]


def sections(rows: Sequence[Row]) -> list[str]:
    """Return the title above each row: its backbone, and the image size if there are several."""
    several = len({row.image_size for row in rows}) > 1
    return [f"{row.backbone} at {row.image_size} px" if several else row.backbone for row in rows]


def failures(rows: Sequence[Row]) -> list[str]:
    """Return a line for each reason why rows failed, wholly or in part; those of one backbone that share it are one."""
    alike: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for row in rows:
        if row.failed:
            extent = "in part" if row.update else "failed"
            heads = alike.setdefault((extent, row.backbone, row.failed), {})
            heads.setdefault(row.head, []).append(row.optimizer_title)
    return [
        f"{extent}: {backbone} + {', '.join(f'{head} + {_either(titles)}' for head, titles in heads.items())}: {reason}"
        for (extent, backbone, reason), heads in alike.items()
    ]


def kept_waiting(rows: Sequence[Row]) -> list[str]:
    """Return a line that says that the processor had other work while updates were timed, if it had."""
    shares = [row.update.timing.waited or 0.0 for row in rows if row.update]
    late = [waited for waited in shares if waited > WAITED]
    if not late:
        return []
    return [
        f"the processor had other work: {len(late)} of {len(shares)} updates waited for it, the most for "
        f"{share(max(late))} of its time. These times are too long, and ratios may be wrong: measure again when it is "
        "free."
    ]


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"({', '.join(names)})"


def spread(work: Work | None) -> str:
    """Write milliseconds as "123.4 ± 1.2": the median, and half of what lies between the quartiles."""
    if work is None:
        return ""
    timing = work.timing
    digits = 0 if timing.median >= 1000 else 1 if timing.median >= 10 else 2
    if timing.rounds < 2:
        return f"{timing.median:.{digits}f} (once)"
    return f"{timing.median:.{digits}f} ± {(timing.high - timing.low) / 2:.{digits}f}"


def speed(work: Work | None) -> str:
    """Write images a second."""
    return "" if work is None else rate(work.images_per_second)


def circumstances(report: Report) -> list[str]:
    """Return what a report was measured on, and with which settings, in two lines."""
    machine, settings = report.machine, report.settings
    device = str(machine.get("device_name") or machine.get("device") or "unknown device")
    threads = machine.get("threads")
    if machine.get("device") == "cpu" and threads and "thread" not in device:
        device += f", {threads} thread{'' if threads == 1 else 's'}"
    names = {"torch": "torch", "timm": "timm", "cuda": "CUDA", "fgvc": "fgvc"}
    versions = [f"{name} {machine[key]}" for key, name in names.items() if machine.get(key)]
    channels_last = {"auto": "channels-last where it pays", "on": "channels-last", "off": "not channels-last"}
    how = [
        *_sizes(report),
        str(settings.get("precision", "")),
        channels_last.get(str(settings.get("channels_last")), ""),
        "compiled" if settings.get("compile") else "not compiled",
        f"{settings['classes']} classes" if settings.get("classes") else "",
        f"recipe {settings['recipe']}" if settings.get("recipe") else "",
        *(f"--set {text}" for text in settings.get("set") or ()),
    ]
    return ["; ".join([device, ", ".join(versions)]), ", ".join(part for part in how if part)]


def _sizes(report: Report) -> list[str]:
    """Name image size and batch size, each if all rows have the same; without rows, those of the settings."""
    pixels = {row.image_size for row in report.rows}
    images = {row.batch_size for row in report.rows if row.batch_size}  # 0: not even one batch fitted
    if not report.rows:
        pixels, images = ({report.settings[name]} for name in ("image_size", "batch_size"))
    named = [f"{next(iter(pixels))} px"] if len(pixels) == 1 else []
    return named + ([f"batches of {next(iter(images))}"] if len(images) == 1 else [])
