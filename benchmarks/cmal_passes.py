"""Time CMAL's update, compared with a plain implementation: five full passes, and crops image by image.

Both start from the same weights and train on the same batch with the same optimizer, alternately in one process, each
with its own random regions. The plain implementation runs the whole network for each of the five losses. Prints the
medians and their ratio.

    python benchmarks/cmal_passes.py --backbone resnet50 --image-size 128 --batch-size 8 --rounds 7
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import torch
from harness import CLASSES, make_classifier, medians, option_parser, report
from torch import Tensor
from torch.nn import functional as F

from fgvc_cli.contracts import Classifier, ParameterGroup
from fgvc_cli.devices import autocast, describe_device, pick_device, resolve_precision
from fgvc_cli.options import build
from fgvc_cli.registry import get_registry
from fgvc_cli.training.update import Update

Autocast = Callable[[], AbstractContextManager[object]]


def plain_attention(feature_map: Tensor, scores: Tensor, first: Tensor, last: Tensor, size: int) -> list[Tensor]:
    """Return each image's attention map at image size, in [0, 1]."""
    maps = []
    for image, row in zip(feature_map, scores, strict=True):
        hidden = first @ image.flatten(1).float()  # hidden,H*W
        small = (last[row.argmax()] @ hidden).view(1, 1, *image.shape[1:])
        large = F.interpolate(small, (size, size), mode="bilinear", align_corners=True)[0, 0]
        maps.append((large - large.min()) / (large.max() - large.min() + 1e-6))
    return maps


def plain_crops(images: Tensor, maps: list[Tensor]) -> Tensor:
    """Crop each image's region and resize it to image size."""
    size, crops = images.shape[2], []
    for image, attention in zip(images, maps, strict=True):
        passed = (attention >= 0.5).nonzero()
        (y0, x0), (y1, x1) = passed.min(dim=0).values.tolist(), passed.max(dim=0).values.tolist()
        rows = slice(max(int(y0 - 0.1 * size), 0), min(int(y1 + 0.1 * size), size))
        columns = slice(max(int(x0 - 0.1 * size), 0), min(int(x1 + 0.1 * size), size))
        cut = image[None, :, rows, columns]
        crops.append(F.interpolate(cut, (size, size), mode="bilinear", align_corners=True))
    return torch.cat(crops)


def plain_update(
    model: Classifier, optimizer: torch.optim.Optimizer, images: Tensor, targets: Tensor, precision: Autocast
) -> None:
    """Take CMAL's five steps as published."""

    def whole(x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        output = model(x)
        return output.all_scores(), output.expert_maps

    def step(loss: Tensor) -> None:
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)  # zeros keep momentum and weight decay going, as published

    entropy = partial(F.cross_entropy, target=targets)
    with precision():
        scores, maps = whole(images)
        loss = entropy(scores[2].float())
    step(loss)
    attention, regions = [], []
    with torch.no_grad():
        for level, expert in enumerate(model.head.experts):
            weights = expert.classifier.hidden.weight, expert.classifier.output.weight
            attention.append(plain_attention(maps[level], scores[level], *weights, images.shape[2]))
            regions.append(plain_crops(images, attention[-1]))
        together = [a + b + c for a, b, c in zip(*attention, strict=True)]
        overall = plain_crops(images, [(m - m.min()) / (m.max() - m.min() + 1e-6) for m in together])
    for level, other in ((1, 0), (0, 1)):
        draw = torch.rand(1).item()
        shown = regions[2] if draw < 1 / 3 else regions[other] if draw < 2 / 3 else images
        with precision():
            loss = entropy(whole(shown)[0][level].float())
        step(loss)
    with precision():
        e1, e2, e3, concat = (entropy(s.float()) for s in whole(overall)[0])
        loss = e1 + e2 + e3 + 2 * concat
    step(loss)
    with precision():
        loss = 2 * entropy(whole(images)[0][3].float())
    step(loss)


def make_variants(
    arguments: argparse.Namespace, device: torch.device, precision: str
) -> dict[str, Callable[[], object]]:
    """Return both implementations of an update, each with its own classifier."""
    size, count = arguments.image_size, arguments.batch_size
    images, targets = torch.randn(count, 3, size, size, device=device), torch.arange(count, device=device) % CLASSES
    theirs = make_classifier(arguments.backbone, "cmal", size, device)
    if theirs.backbone.info.channels_last and device.type == "cuda":
        theirs.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    model = copy.deepcopy(theirs)
    sgd = get_registry().find("optimizer", "sgd")
    options = build(sgd.options_type(), {"lr": 1e-4, "nesterov": False}, "optimizer")
    groups = [ParameterGroup(p, dict(getattr(model, p).named_parameters())) for p in ("backbone", "head")]
    context = partial(autocast, device, precision)
    update = Update(model, model.head, sgd.load()(groups=groups, options=options), context)
    trained = [p for p in theirs.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    plain = torch.optim.SGD(trained, lr=1e-4, momentum=0.9, weight_decay=5e-4, fused=True)
    return {
        "five full passes, crops one by one": lambda: plain_update(theirs, plain, images, targets, context),
        "ours": lambda: update([(images, targets)]),
    }


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    precision = resolve_precision(arguments.precision, device)
    torch.manual_seed(0)
    variants = make_variants(arguments, device, precision)
    seconds = medians(variants, arguments.rounds, device)
    plain, ours = seconds.values()
    print(
        f"{arguments.backbone}, {arguments.image_size} px, batches of {arguments.batch_size}, "
        f"{precision}, {describe_device(device)}, {arguments.rounds} rounds"
    )
    for name, median in seconds.items():
        print(f"{name:36} {1000 * median:9.1f} ms per update   {arguments.batch_size / median:8.1f} images/s")
    print(f"ours takes {ours / plain:.3f} of the plain time")
    report(arguments, device, {"precision": precision, "seconds": seconds, "share_of_plain": ours / plain})


if __name__ == "__main__":
    main()
