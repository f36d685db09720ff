"""Compare ways to compute the same update: the choices in docs/performance.md.

The variants of a set are timed alternately in one process and compared with the first of the set.

    OMP_NUM_THREADS=1 python benchmarks/update_choices.py heads --backbone swin_t --rounds 5
    OMP_NUM_THREADS=1 python benchmarks/update_choices.py sgd adamw zeros pooling
"""

from __future__ import annotations

import argparse
import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from harness import CLASSES, make_classifier, medians, option_parser, report
from torch import Tensor, nn
from torch.nn import functional as F

from fgvc_cli.benchmarking.macs import count_macs
from fgvc_cli.contracts import ParameterGroup
from fgvc_cli.devices import (
    M_MMAP_MAX,
    M_TRIM_THRESHOLD,
    autocast,
    compile_in_place,
    pick_device,
    resolve_precision,
    reuse_freed_memory,
)
from fgvc_cli.options import build
from fgvc_cli.registry import get_registry
from fgvc_cli.training.update import Update

Variants = dict[str, Callable[[], object]]


def make_update(
    arguments: argparse.Namespace,
    device: torch.device,
    layout: torch.memory_format = torch.contiguous_format,
    precision: str = "auto",
    compiled: bool = False,
) -> Callable[[], object]:
    """Return a whole update with SGD of a new classifier."""
    model = make_classifier(arguments.backbone, arguments.head, arguments.image_size, device).to(memory_format=layout)
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


def heads(arguments: argparse.Namespace, device: torch.device) -> Variants:
    """Compare the heads on one backbone with `linear`."""
    return {
        head: make_update(argparse.Namespace(**{**vars(arguments), "head": head}), device)
        for head in ("linear", "pim", "cmal")
    }


def layouts(arguments: argparse.Namespace, device: torch.device) -> Variants:
    """Compare the memory formats."""
    formats = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
    return {name: make_update(arguments, device, layout) for name, layout in formats.items()}


def precisions(arguments: argparse.Namespace, device: torch.device) -> Variants:
    """Compare the precisions."""
    return {precision: make_update(arguments, device, precision=precision) for precision in ("fp32", "bf16")}


def compiling(arguments: argparse.Namespace, device: torch.device) -> Variants:
    """Compare the compiled model with the eager one."""
    return {
        name: make_update(arguments, device, compiled=compiled)
        for name, compiled in {"eager": False, "compiled": True}.items()
    }


def memory(arguments: argparse.Namespace, device: torch.device) -> Variants:
    """Compare reusing freed memory with what glibc does once its thresholds have adapted to large blocks."""
    update = make_update(arguments, device)
    m_mmap_threshold, largest = -3, 32 * 1024**2

    def returning() -> None:
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 65536)
        mallopt(m_mmap_threshold, largest)
        mallopt(M_TRIM_THRESHOLD, 2 * largest)
        update()

    def reusing() -> None:
        reuse_freed_memory()
        update()

    return {"returned": returning, "reused": reusing}


def steps(kind: str, arguments: argparse.Namespace, device: torch.device) -> Variants:
    """Compare torch's implementations of an optimizer step."""
    kernels: dict[str, dict[str, Any]] = {
        "fused": {"fused": True},
        "foreach": {"foreach": True},
        "for loop": {"foreach": False},
    }
    weights = list(make_classifier(arguments.backbone, arguments.head, arguments.image_size, device).parameters())
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    made: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": partial(torch.optim.SGD, lr=1e-5, momentum=0.9, nesterov=True, weight_decay=5e-4),
        "adamw": partial(torch.optim.AdamW, lr=1e-5),
    }
    return {name: made[kind](weights, **kernel).step for name, kernel in kernels.items()}


def zeros(arguments: argparse.Namespace, device: torch.device) -> Variants:
    """Compare ways to give every parameter a zero gradient, as parameters without one get for `coast`."""
    weights = list(make_classifier(arguments.backbone, arguments.head, arguments.image_size, device).parameters())

    def foreach() -> list[Tensor]:
        zeros = [torch.empty_like(weight) for weight in weights]
        torch._foreach_zero_(zeros)
        return zeros

    kept = foreach()
    return {
        "tensor by tensor": lambda: [torch.zeros_like(weight) for weight in weights],
        "foreach": foreach,
        "foreach on kept tensors": lambda: torch._foreach_zero_(kept),
    }


def pooling(arguments: argparse.Namespace, device: torch.device) -> Variants:
    """Compare implementations of global max pooling, forward and backward, in both memory formats."""
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 1).flatten(1),
        "max over points": lambda x: x.flatten(2).max(dim=2).values,
        "amax (equal values share the gradient)": lambda x: x.amax((2, 3)),
    }
    side = arguments.image_size // 8
    values = torch.randn(arguments.batch_size, 1024, side, side, device=device).relu()
    variants: Variants = {}
    for layout, name in ((torch.contiguous_format, "contiguous"), (torch.channels_last, "channels-last")):
        feature_map = nn.Parameter(values.contiguous(memory_format=layout))
        variants |= {f"{name}, {kind}": partial(_pool, pool, feature_map) for kind, pool in kinds.items()}
    return variants


def _pool(pool: Callable[[Tensor], Tensor], feature_map: nn.Parameter) -> None:
    feature_map.grad = None
    pool(feature_map).sum().backward()


SETS: dict[str, Callable[[argparse.Namespace, torch.device], Variants]] = {
    "sgd": partial(steps, "sgd"),
    "adamw": partial(steps, "adamw"),
    "zeros": zeros,
    "pooling": pooling,
    "heads": heads,
    "layout": layouts,
    "precision": precisions,
    "compile": compiling,
    "memory": memory,
}

COUNTED = ("heads",)
"""Sets whose variants have different numbers of MACs, for which the time vs. MAC bound is printed too."""


def measured(name: str, arguments: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """Time and print a set of variants; return the milliseconds of each."""
    variants = SETS[name](arguments, device)
    macs = {variant: count_macs(work) for variant, work in variants.items()} if name in COUNTED else {}
    seconds = medians(variants, arguments.rounds, device)
    first = next(iter(seconds))
    print(name)
    for variant, median in seconds.items():
        line = f"  {variant:40} {1000 * median:9.2f} ms   {median / seconds[first]:6.3f} of the first"
        if macs:
            bound = median / seconds[first] * macs[first] / macs[variant]
            line += (
                f"   {macs[variant] / arguments.batch_size / 1e9:7.2f} GMACs per image, time vs. MAC bound {bound:.3f}"
            )
        print(line)
    return {variant: 1000 * median for variant, median in seconds.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"any of {', '.join(SETS)}; default: the first four")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--head", default="cmal")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.sets) - SETS.keys():
        parser.error(f"unknown set {', '.join(sorted(unknown))}: choose from {', '.join(SETS)}")
    device = pick_device(arguments.device)
    model = f"{arguments.backbone} + {arguments.head}"
    print(f"{model}, {arguments.image_size} px, batches of {arguments.batch_size}, {arguments.rounds} rounds")
    figures = {name: measured(name, arguments, device) for name in arguments.sets or list(SETS)[:4]}
    report(arguments, device, {"milliseconds": figures})


if __name__ == "__main__":
    main()
