"""Measure what checking the calls of a plugin's components costs in an update.

The built-in backbone, head and optimizer are timed as they are, and as those of an external plugin, which are checked.

    OMP_NUM_THREADS=1 python benchmarks/contract_checks.py --backbone timm/test_resnet --image-size 64
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from harness import CLASSES, medians, option_parser, report

from fgvc_cli.contracts import Classifier, Head, Optimizer, ParameterGroup, Preprocessing
from fgvc_cli.devices import autocast, pick_device
from fgvc_cli.enforcement import make
from fgvc_cli.options import build
from fgvc_cli.registry import Component, get_registry
from fgvc_cli.registry.records import Origin
from fgvc_cli.runs.model_file import build_backbone
from fgvc_cli.specs import Kind
from fgvc_cli.training.update import Update


def make_update(arguments: argparse.Namespace, device: torch.device, checked: bool) -> Callable[[], object]:
    """Return an update of a new classifier, whose components are checked or not."""

    def component(kind: Kind, name: str) -> Component:
        found = get_registry().find(kind, name)
        return replace(found, origin=Origin("fgvc-other", "1.0")) if checked else found

    torch.manual_seed(0)
    body, top = component("backbone", arguments.backbone), component("head", arguments.head)
    backbone = build_backbone(body, build(body.options_type(), {}, "backbone"), arguments.image_size)
    options = build(top.options_type(), {}, "head")
    head: Head = make(top, cast(type[Head], Head), backbone=backbone.info, classes=CLASSES, options=options)
    backbone.prune(head.reads())
    info, names = backbone.info, [str(k) for k in range(CLASSES)]
    preprocessing = Preprocessing(arguments.image_size, arguments.image_size, info.mean, info.std)
    model = Classifier(backbone, head, names, preprocessing).to(device).train()
    groups = [ParameterGroup("backbone", dict(backbone.named_parameters()))]
    groups.append(ParameterGroup("head", dict(head.named_parameters())))
    sgd = component("optimizer", "sgd")
    rates = build(sgd.options_type(), {"lr": 1e-5}, "optimizer")
    optimizer: Optimizer = make(sgd, cast(type[Optimizer], Optimizer), groups=groups, options=rates)
    update = Update(model, head, optimizer, lambda: autocast(device, "fp32"))
    images = torch.randn(arguments.batch_size, 3, arguments.image_size, arguments.image_size, device=device)
    targets = torch.arange(arguments.batch_size, device=device) % CLASSES
    return lambda: update([(images, targets)])


def main() -> None:
    """Time both kinds of update alternately."""
    parser = option_parser(__doc__)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--head", default="linear")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    variants = {name: make_update(arguments, device, name == "checked") for name in ("unchecked", "checked")}
    seconds = medians(variants, arguments.rounds, device)
    for name, median in seconds.items():
        print(f"{name:10} {arguments.batch_size / median:8.1f} images/s  {1000 * median:.2f} ms")
    ratio = seconds["unchecked"] / seconds["checked"]
    print(f"checked: {ratio:.4f} of the images per second of unchecked")
    report(arguments, device, {"seconds": seconds, "ratio": ratio})


if __name__ == "__main__":
    main()
