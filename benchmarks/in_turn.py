"""What the scripts here share: timing several ways of one thing in turn, and keeping the figures.

Ways take turns in one process, so that noise falls on all alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fgvc_cli.benchmarking.run import machine_facts


def option_parser(document: str | None) -> argparse.ArgumentParser:
    """Return a parser of a script's options, described by its docstring; `--json` is there already."""
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures here too")
    return parser


def medians(ways: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """Return the median seconds of each way over that many rounds; one more round before them warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, work in ways.items():
            spent = timed(work, device)
            if number:
                seconds[name].append(spent)
    return {name: statistics.median(values) for name, values in seconds.items()}


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that some work takes, the device's included."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@torch.no_grad()
def apart(ours: nn.Module, theirs: nn.Module, start: Mapping[str, Tensor]) -> float:
    """Return how far the weights of two models lie apart, as a share of how far they have come from the start."""
    pairs = zip(ours.named_parameters(), theirs.parameters(), strict=True)
    found = [(float((a - b).abs().max()), float((a - start[name]).abs().max())) for (name, a), b in pairs]
    return max(between for between, _ in found) / max(way for _, way in found)


def report(arguments: argparse.Namespace, device: torch.device, figures: Mapping[str, Any]) -> None:
    """Print on what and when this was measured; with `--json`, write that, the options and the figures to a file."""
    machine = machine_facts(device)
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "torchvision", "timm", "python", "fgvc"))
    print(f"on {machine['device_name']}, {machine['threads']} threads; {versions}; {machine['date']}")
    if arguments.json:
        script = Path(sys.argv[0]).name
        document = {"script": script, "options": vars(arguments), "machine": machine, "figures": figures}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(document, indent=2, default=str) + "\n", encoding="utf-8")
