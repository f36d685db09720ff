"""Ways to compute one and the same update, side by side: what docs/performance.md chooses between.

Each set of ways is timed in turn in one process; the first of a set is what the others are compared with.

    OMP_NUM_THREADS=1 python benchmarks/update_choices.py heads --backbone swin_t --rounds 5
    OMP_NUM_THREADS=1 python benchmarks/update_choices.py sgd adamw zeros pooling
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from in_turn import medians, option_parser, report
from torch import Tensor, nn
from torch.nn import functional as F

from fgvc_cli.benchmarking.macs import count_macs
from fgvc_cli.contracts import Classifier, ParameterGroup, Preprocessing
from fgvc_cli.devices import autocast, compile_in_place, pick_device, resolve_precision
from fgvc_cli.options import build
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.model_file import build_backbone, build_head
from fgvc_cli.training.update import Update

CLASSES = 100
Ways = dict[str, Callable[[], object]]


def make_classifier(arguments: argparse.Namespace, device: torch.device) -> Classifier:
    """Build backbone and head with random weights, always the same, in training mode."""
    torch.manual_seed(0)
    registry, size = get_registry(), arguments.image_size
    body, head = registry.find("backbone", arguments.backbone), registry.find("head", arguments.head)
    backbone = build_backbone(body, body.options_type()(), size)
    built = build_head(head, build(head.options_type(), {}, "head"), backbone, CLASSES)
    preprocessing = Preprocessing(size, size, backbone.info.mean, backbone.info.std)
    return Classifier(backbone, built, [str(k) for k in range(CLASSES)], preprocessing).to(device).train()


def update_way(
    arguments: argparse.Namespace,
    device: torch.device,
    layout: torch.memory_format = torch.contiguous_format,
    precision: str = "auto",
    compiled: bool = False,
) -> Callable[[], object]:
    """Return one whole update with SGD, of a classifier of its own."""
    model = make_classifier(arguments, device).to(memory_format=layout)
    sgd = get_registry().find("optimizer", "sgd")
    groups = [ParameterGroup(p, dict(getattr(model, p).named_parameters())) for p in ("backbone", "head")]
    optimizer = sgd.load()(groups=groups, options=build(sgd.options_type(), {"lr": 1e-5}, "optimizer"))
    context = partial(autocast, device, resolve_precision(precision, device))
    update = Update(model, model.head, optimizer, context)
    if compiled:
        compile_in_place(model)
    side, count = arguments.image_size, arguments.batch_size
    images = torch.randn(count, 3, side, side, device=device).contiguous(memory_format=layout)
    targets = torch.arange(count, device=device) % CLASSES
    return lambda: update([(images, targets)])


def heads(arguments: argparse.Namespace, device: torch.device) -> Ways:
    """Compare the heads on one backbone, the plain one first."""
    return {
        head: update_way(argparse.Namespace(**{**vars(arguments), "head": head}), device)
        for head in ("linear", "pim", "cmal")
    }


def layouts(arguments: argparse.Namespace, device: torch.device) -> Ways:
    """Compare the memory formats."""
    formats = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
    return {name: update_way(arguments, device, layout) for name, layout in formats.items()}


def precisions(arguments: argparse.Namespace, device: torch.device) -> Ways:
    """Compare the precisions."""
    return {precision: update_way(arguments, device, precision=precision) for precision in ("fp32", "bf16")}


def compiling(arguments: argparse.Namespace, device: torch.device) -> Ways:
    """Compare the model as it is with the compiled one."""
    return {
        name: update_way(arguments, device, compiled=compiled)
        for name, compiled in {"eager": False, "compiled": True}.items()
    }


def steps(kind: str, arguments: argparse.Namespace, device: torch.device) -> Ways:
    """Compare torch's kernels for a step: all in one, one an operation, one an operation and parameter."""
    kernels: dict[str, dict[str, Any]] = {
        "fused": {"fused": True},
        "foreach": {"foreach": True},
        "parameter by parameter": {"foreach": False},
    }
    weights = list(make_classifier(arguments, device).parameters())
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    made: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": partial(torch.optim.SGD, lr=1e-5, momentum=0.9, nesterov=True, weight_decay=5e-4),
        "adamw": partial(torch.optim.AdamW, lr=1e-5),
    }
    return {name: made[kind](weights, **kernel).step for name, kernel in kernels.items()}


def zeros(arguments: argparse.Namespace, device: torch.device) -> Ways:
    """Compare ways to give every parameter a gradient of 0, as idle ones get that coast."""
    weights = list(make_classifier(arguments, device).parameters())

    def at_once() -> list[Tensor]:
        made = [torch.empty_like(weight) for weight in weights]
        torch._foreach_zero_(made)
        return made

    kept = at_once()
    return {
        "tensor by tensor": lambda: [torch.zeros_like(weight) for weight in weights],
        "filled at once": at_once,
        "kept and filled at once": lambda: torch._foreach_zero_(kept),
    }


def pooling(arguments: argparse.Namespace, device: torch.device) -> Ways:
    """Compare ways to a map's largest value by channel, forward and backward, in both memory formats."""
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 1).flatten(1),
        "max over points": lambda x: x.flatten(2).max(dim=2).values,
        "amax (shares gradients among equals)": lambda x: x.amax((2, 3)),
    }
    side = arguments.image_size // 8
    drawn = torch.randn(arguments.batch_size, 1024, side, side, device=device).relu()
    ways: Ways = {}
    for layout, name in ((torch.contiguous_format, "contiguous"), (torch.channels_last, "channels-last")):
        own_map = nn.Parameter(drawn.contiguous(memory_format=layout))
        ways |= {f"{name}, {kind}": partial(_pooled, pool, own_map) for kind, pool in kinds.items()}
    return ways


def _pooled(pool: Callable[[Tensor], Tensor], own_map: nn.Parameter) -> None:
    own_map.grad = None
    pool(own_map).sum().backward()


SETS: dict[str, Callable[[argparse.Namespace, torch.device], Ways]] = {
    "sgd": partial(steps, "sgd"),
    "adamw": partial(steps, "adamw"),
    "zeros": zeros,
    "pooling": pooling,
    "heads": heads,
    "layout": layouts,
    "precision": precisions,
    "compile": compiling,
}

COUNTED = ("heads",)
"""Sets whose ways take different numbers of multiply-adds: time is compared for each of them, too."""


def measured(name: str, arguments: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """Time a set of ways and print it; return milliseconds by way."""
    ways = SETS[name](arguments, device)
    counts = {way: count_macs(work) for way, work in ways.items()} if name in COUNTED else {}
    seconds = medians(ways, arguments.rounds, device)
    first = next(iter(seconds))
    print(name)
    for way, median in seconds.items():
        line = f"  {way:40} {1000 * median:9.2f} ms   {median / seconds[first]:6.3f} of the first's time"
        if counts:
            share = median / seconds[first] * counts[first] / counts[way]
            line += f"   {counts[way] / arguments.batch_size / 1e9:7.2f} G multiply-adds an image, {share:.3f} for each"
        print(line)
    return {way: 1000 * median for way, median in seconds.items()}


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"any of {', '.join(SETS)}; default: the first four")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--head", default="cmal")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args(words)
    if unknown := set(arguments.sets) - SETS.keys():
        parser.error(f"unknown set {', '.join(sorted(unknown))}: choose from {', '.join(SETS)}")
    device = pick_device(arguments.device)
    what = f"{arguments.backbone} + {arguments.head}, {arguments.image_size} px, batches of {arguments.batch_size}"
    print(f"{what}, {arguments.rounds} rounds")
    figures = {name: measured(name, arguments, device) for name in arguments.sets or list(SETS)[:4]}
    report(arguments, device, {"milliseconds": figures})


if __name__ == "__main__":
    main()
