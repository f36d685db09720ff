"""Shared by the scripts here: timing variants alternately, counting operations, and saving results.

Variants take turns in one process, so that noise affects all of them equally.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from fgvc_cli.benchmarking.measuring import RandomClassifier
from fgvc_cli.benchmarking.run import machine_facts
from fgvc_cli.config.run_config import RunConfig
from fgvc_cli.contracts import Classifier, Preprocessing
from fgvc_cli.options import build
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.model_file import build_backbone, build_head
from fgvc_cli.training.setup import build_optimizer
from fgvc_cli.training.update import Update

CLASSES = 100


def option_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with `--json`, described by a script's docstring."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the results to this file too")
    return parser


def medians(variants: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """Return the median seconds of each variant over a number of rounds, after one round of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, work in variants.items():
            spent = timed(work, device)
            if number:
                seconds[name].append(spent)
    return {name: statistics.median(values) for name, values in seconds.items()}


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that some work takes on host and device."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@torch.no_grad()
def relative_distance(ours: nn.Module, theirs: nn.Module, start: Mapping[str, Tensor]) -> float:
    """Return the largest difference between two models' weights, divided by the largest change since the start."""
    pairs = zip(ours.named_parameters(), theirs.parameters(), strict=True)
    found = [(float((a - b).abs().max()), float((a - start[name]).abs().max())) for (name, a), b in pairs]
    return max(difference for difference, _ in found) / max(change for _, change in found)


def make_classifier(backbone: str, head: str, image_size: int, device: torch.device, seed: int = 0) -> Classifier:
    """Build a classifier with default options and random weights, in training mode."""
    torch.manual_seed(seed)
    registry = get_registry()
    body, top = registry.find("backbone", backbone), registry.find("head", head)
    built = build_backbone(body, body.options_type()(), image_size)
    of_head = build_head(top, build(top.options_type(), {}, "head"), built, CLASSES)
    preprocessing = Preprocessing(image_size, image_size, built.info.mean, built.info.std)
    return Classifier(built, of_head, [str(k) for k in range(CLASSES)], preprocessing).to(device).train()


def our_update(classifier: RandomClassifier, config: RunConfig, images: Tensor, batch: Tensor) -> Callable[[], object]:
    """Return an update as in the trainer; `batch`: targets, labels B or probabilities B,K."""
    model, optimizer = classifier.model.train(), build_optimizer(config.optimizer, classifier.model)
    update = Update(model, model.head, optimizer, classifier.autocast, config.train.clip_norm)
    return lambda: update([(images, batch)])


class Operations(TorchDispatchMode):
    """Counts the operations that compute something; views do not.

    Attributes:
        count: number of operations.
        bytes: size of the tensors that they take and return.
    """

    count = 0
    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Execute an operation and count it."""
        result = func(*args, **(kwargs or {}))
        returned = func._schema.returns
        if not any(value.alias_info is not None and not value.alias_info.is_write for value in returned):
            self.count += 1
            self.bytes += sum(_sizes((args, kwargs, result)))
        return result


def _sizes(tree: Any) -> Iterator[int]:
    """Yield the bytes of the tensors in a tree; an expanded dimension counts once."""
    for leaf in pytree.tree_leaves(tree):
        if isinstance(leaf, Tensor):
            elements = 1 if leaf.numel() else 0
            for side, stride in zip(leaf.shape, leaf.stride(), strict=True):
                elements *= side if stride else 1
            yield elements * leaf.element_size()


def report(arguments: argparse.Namespace, device: torch.device, figures: Mapping[str, Any]) -> None:
    """Print machine, versions and date; with `--json`, write them with options and figures to the file."""
    machine = machine_facts(device)
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "torchvision", "timm", "python", "fgvc"))
    print(f"on {machine['device_name']}, {machine['threads']} threads; {versions}; {machine['date']}")
    if arguments.json:
        script = Path(sys.argv[0]).name
        document = {"script": script, "options": vars(arguments), "machine": machine, "figures": figures}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(document, indent=2, default=str) + "\n", encoding="utf-8")
