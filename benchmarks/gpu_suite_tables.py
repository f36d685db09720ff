"""The results of gpu_suite.py as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

Lines = Iterator[Sequence[Any]]
"""A header and rows; a value that is None is left empty."""


def as_markdown(machine: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    """Return a document: machine, what each part took and why it was not measured, and a table for each part."""
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "torchvision", "timm", "python", "fgvc"))
    lines = [
        f"# {machine['device_name']}",
        "",
        f"Driver {machine['driver'] or 'none'}, CUDA {machine['cuda'] or 'none'}; {versions}; "
        f"commit {machine['commit'] or 'unknown'}; {machine['date']}. Made by `python benchmarks/gpu_suite.py`.",
        "",
        *table(_overview(parts)),
    ]
    for name, rows in TABLES.items():
        steps = parts.get(name, {}).get("steps", {})
        figures = {step: outcome["figures"] for step, outcome in steps.items() if outcome["figures"] is not None}
        if figures:
            rates = _bare_rates(parts)
            lines += ["", f"## {name}", "", *table(rows(figures, rates))]
    return "\n".join(lines) + "\n"


def table(rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return a Markdown table of a header and rows."""
    texts = [[_text(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
    texts.insert(1, ["-" * width for width in widths])
    return ["| " + " | ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)) + " |" for row in texts]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3f}"
    return str(value).replace("|", "/").replace("\n", " ")


def _overview(parts: Mapping[str, Any]) -> Lines:
    yield "part", "state", "seconds", "reason"
    for name, part in parts.items():
        yield name, part["state"], round(part["seconds"]), part["reason"]


def _bare_rates(parts: Mapping[str, Any]) -> dict[str, float]:
    """Return images per second of the bare compiled loop by backbone."""
    steps = parts.get("bare", {}).get("steps", {}).values()
    found = [outcome["figures"] for outcome in steps if outcome["figures"]]
    return {name: row["images_per_second"]["bare loop"] for figures in found for name, row in figures.items()}


def _tests(figures: Mapping[str, Any], _: Mapping[str, float]) -> Lines:
    yield "tests", "passed", "failed", "skipped"
    for step, found in figures.items():
        yield step, found["passed"], found["failures"] + found["errors"], found["skipped"]
        yield from ((name, "", message, "") for name, message in found["failed"].items())


def _bare(figures: Mapping[str, Any], _: Mapping[str, float]) -> Lines:
    yield "backbone (linear, sgd)", "bare loop, images/s", "ours, images/s", "ours / bare", "distance of the weights"
    for found in figures.values():
        for name, row in found.items():
            rates = row["images_per_second"]
            yield name, rates["bare loop"], rates["ours"], row["ratio"], f"{row['relative_distance']:.0e}"


def _combinations(figures: Mapping[str, Any], bare: Mapping[str, float]) -> Lines:
    yield (
        "backbone", "head", "optimizer", "images/s", "of the bare compiled loop", "matrix share", "peak memory, GB",
        "time vs. MAC bound", "predict, images/s", "failed",
    )  # fmt: skip
    seen = set()
    for report in figures.values():
        for row in report["rows"]:
            update, predict = row["update"] or {}, row["predict"] or {}
            key = row["backbone"], row["head"], row["optimizer_title"]
            if key in seen:  # the baseline is in every report
                continue
            seen.add(key)
            rate, base, memory = update.get("images_per_second"), bare.get(row["backbone"]), update.get("peak_memory")
            yield (
                *key, rate, rate / base if rate and base else None, update.get("matrix_share"),
                memory / 1e9 if memory else None, update.get("time_vs_mac_bound"), predict.get("images_per_second"),
                row["failed"],
            )  # fmt: skip


def _epoch(figures: Mapping[str, Any], _: Mapping[str, float]) -> Lines:
    yield "variant", "epoch, images/s", "ready tensors, images/s", "epoch / ready", "pipeline: feeds, images/s", "notes"
    for step, report in figures.items():
        feeds = report["feeds"] or []
        rates = ", ".join(f"{feed['name']} {feed['images_per_second']:,.0f}" for feed in feeds)
        notes = "; ".join(dict.fromkeys(feed["note"] for feed in feeds if feed["note"]))
        for row in report["rows"]:
            epoch, update = (row[name] and row[name]["images_per_second"] for name in ("epoch", "update"))
            yield step, epoch, update, epoch / update if epoch and update else None, rates, row["failed"] or notes


def _augmentation(figures: Mapping[str, Any], _: Mapping[str, float]) -> Lines:
    yield "variant", "images/s"
    for found in figures.values():
        yield from found["images_per_second"].items()


def _seconds(figures: Mapping[str, Any], _: Mapping[str, float]) -> Lines:
    """Yield milliseconds by variant, and as a multiple of the first."""
    yield "measurement", "variant", "ms", "of the first"
    for step, found in figures.items():
        nested = found.get("seconds") or {
            name: {variant: ms / 1000 for variant, ms in row.items()} for name, row in found["milliseconds"].items()
        }
        if not isinstance(next(iter(nested.values())), dict):
            nested = {step: nested}
        for name, variants in nested.items():
            first = next(iter(variants.values()))
            for variant, seconds in variants.items():
                yield name, variant, 1000 * seconds, seconds / first


TABLES: dict[str, Callable[[Mapping[str, Any], Mapping[str, float]], Lines]] = {
    "tests": _tests,
    "bare": _bare,
    "combinations": _combinations,
    "compiled": _combinations,
    "epoch": _epoch,
    "augmentation": _augmentation,
    "gradcam": _seconds,
    "pim": _seconds,
    "cmal": _seconds,
    "choices": _seconds,
}
