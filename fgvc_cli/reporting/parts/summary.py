"""What was trained on what, and how: two small tables."""

from __future__ import annotations

from typing import Any

from fgvc_cli.display.progress import duration_text
from fgvc_cli.reporting.page import Section
from fgvc_cli.reporting.recorded import Recorded
from fgvc_cli.reporting.templating import NO_BREAK, count, fragment

Facts = list[tuple[str, str]]
VERSIONED = ("fgvc-cli", "torch", "timm", "python")
"""Of what the summary names the version; all of them stand where it is said how to do the run again."""


def summary_section(recorded: Recorded, anchor: str) -> Section:
    """Return the tables of facts."""
    tables = [("Data and model", _data_and_model(recorded)), ("Training", _training(recorded))]
    return Section(f"{anchor}summary", "Summary", fragment("summary.html", tables=tables))


def _data_and_model(recorded: Recorded) -> Facts:
    summary, preprocessing = recorded.summary, recorded.model["preprocessing"]
    splits = summary["splits"]
    origins = dict.fromkeys(split["origin"] for split in splits.values() if split["origin"])
    parameters = summary["parameters"]
    facts = [
        ("data set", recorded.dataset),
        ("where", str(recorded.setting("dataset", "data") or "")),
        ("classes", count(summary["classes"])),
        ("images", ", ".join(f"{name} {count(split['images'])}" for name, split in splits.items())),
        ("splits", "; ".join(origins)),
        ("backbone", _component(summary["components"]["backbone"])),
        ("head", _component(summary["components"]["head"])),
        (
            "parameters",
            f"{_amount(parameters['backbone'])} backbone + {_amount(parameters['head'])} head = "
            f"{_amount(parameters['total'])}",
        ),
        ("image size", f"{preprocessing['image_size']} px, from {preprocessing['resize']} px"),
        ("weights", str(summary["weights"])),
    ]
    return [fact for fact in facts if fact[1]]


def _training(recorded: Recorded) -> Facts:
    summary, batch = recorded.summary, recorded.setting("train", "batch_size")
    rate = summary["images_per_second"]
    facts = [
        ("optimizer", recorded.optimizer),
        ("options", _options(summary["components"]["optimizer"])),
        ("recipe", str(summary["recipe"])),
        ("epochs", _epochs(summary)),
        ("batch", f"{batch} images" if batch else ""),
        ("time", duration_text(summary["seconds"]) + (f", {rate:.0f} images/s" if rate else "")),
        ("device", f"{summary['device']}, {summary['precision']}"),
        ("processes", str(summary["processes"]) if summary["processes"] > 1 else ""),
        ("seed", str(summary["seed"])),
        ("versions", ", ".join(f"{name} {v}" for name in VERSIONED if (v := summary["versions"].get(name)))),
    ]
    return [fact for fact in facts if fact[1]]


def _component(component: dict[str, Any]) -> str:
    """Name a component, and what it is of where that is not this program."""
    own = component["distribution"] == "fgvc-cli"
    return component["name"] if own else f"{component['name']} ({component['distribution']} {component['version']})"


def _options(component: dict[str, Any]) -> str:
    """Return the options that are set, those of what an optimizer is built over with them."""
    options = {**component["options"], **component.get("base", {}).get("options", {})}
    return ", ".join(f"{name} {_value(value)}" for name, value in options.items() if value not in ("none", "", None))


def _value(value: object) -> str:
    return "yes" if value is True else "no" if value is False else str(value)


def _epochs(summary: dict[str, Any]) -> str:
    if not summary["epochs"]:
        return "none: weights as they came from a file"
    early = ", stopped early" if summary["stopped_early"] else ""
    return f"{summary['epochs']}{early}; best: {summary['best_epoch']}"


def _amount(parameters: int) -> str:
    """Write a number of parameters with three digits or so."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if parameters >= factor:
            return f"{parameters / factor:.3g}{NO_BREAK}{unit}"
    return str(parameters)
