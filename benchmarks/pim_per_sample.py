"""PIM's selectors and losses as this project computes them, beside the same image by image in Python loops.

Each image is sorted by itself, its points are gathered, and its dropped scores too; the losses are of what was
gathered. So the public code does it, and so the method reads. Both ways have the same weights and are given the same
points; they end in the four losses and in the sums over kept points that the combiner starts with. That all gradients
are the same is checked first, in float64. Then whole steps, forward and backward, are timed in turn: with the layers
that score the points, whose matrix products both ways share and nobody can leave out, and without them.

    OMP_NUM_THREADS=1 python benchmarks/pim_per_sample.py --rounds 5
    OMP_NUM_THREADS=1 python benchmarks/pim_per_sample.py --points 784 196 49 49 --keeps 32 32 32 32 --width 512
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
from in_turn import medians, option_parser, report
from operations import Operations
from torch import Tensor, nn
from torch.nn import functional as F

from fgvc_cli.devices import autocast, pick_device, resolve_precision
from fgvc_heads.options import PimOptions
from fgvc_heads.pim.combiner import pool_kept
from fgvc_heads.pim.losses import PimOutput, pim_loss
from fgvc_heads.pim.selector import Selector, most_confident

TOLERANCE = 1e-12
"""Of a gradient in float64, relative to its largest value."""


class Weights(nn.Module):
    """The layers of both ways: selectors, and the weighted sums over kept points."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__()
        width, kept = arguments.width, sum(arguments.keeps)
        self.selectors = nn.ModuleList(Selector(width, arguments.classes, keep) for keep in arguments.keeps)
        self.pool_points = nn.Linear(kept, max(1, kept // 32))

    def scores(self, points: Sequence[Tensor]) -> list[Tensor]:
        """Return the scores B,N,K of the points of each map."""
        return [selector.scores(of_map) for selector, of_map in zip(self.selectors, points, strict=True)]


class Given(NamedTuple):
    """What a step starts from: points B,N,F of each map, the combiner's scores B,K, targets B, and B,F,J, the gradient
    that the sums get from the combiner; scores B,N,K of each map where the layers have no part."""

    points: list[Tensor]
    combined: Tensor
    targets: Tensor
    gradient: Tensor
    scores: list[Tensor] | None = None


Way = Callable[[Weights, Given, PimOptions], tuple[Tensor, Tensor]]
"""Returns the loss and the sums B,F,J."""


def image_by_image(weights: Weights, given: Given, options: PimOptions) -> tuple[Tensor, Tensor]:
    """Select, gather and lose as the method is written down."""
    all_scores = weights.scores(given.points) if given.scores is None else given.scores
    loss = options.lambda_c * F.cross_entropy(given.combined, given.targets)
    all_selected = []
    for selector, points, scores in zip(weights.selectors, given.points, all_scores, strict=True):
        probabilities = scores.float().softmax(dim=2)
        selected, dropped = [], []
        for image in range(len(points)):
            confidences = probabilities[image].max(dim=1).values
            order = confidences.sort(descending=True).indices
            selected.append(points[image][order[: selector.keep]])
            dropped.append(scores[image][order[selector.keep :]])
        all_selected.append(torch.stack(selected))
        loss = loss + options.lambda_b * F.cross_entropy(scores.mean(dim=1), given.targets)
        if dropped[0].numel():
            bounded = torch.stack(dropped).tanh()
            loss = loss + options.lambda_n * F.mse_loss(bounded, torch.zeros_like(bounded) - 1)
    return loss, weights.pool_points(torch.cat(all_selected, dim=1).transpose(1, 2))


def ours(weights: Weights, given: Given, options: PimOptions) -> tuple[Tensor, Tensor]:
    """Do the same as the head `pim` does it."""
    all_scores = weights.scores(given.points) if given.scores is None else given.scores
    selections = [most_confident(scores, s.keep) for scores, s in zip(all_scores, weights.selectors, strict=True)]
    kept, confidences = zip(*selections, strict=True)
    loss = pim_loss(PimOutput(given.combined, tuple(all_scores), kept, confidences), given.targets, options)
    pooled = pool_kept(given.points, kept, weights.pool_points.weight) + weights.pool_points.bias.unsqueeze(1)
    return loss.value, pooled.transpose(1, 2)


class Step:
    """Forward and backward by one way."""

    def __init__(self, way: Way, weights: Weights, given: Given, precision: AbstractContextManager[object]) -> None:
        self.way, self.weights, self.given, self.precision = way, weights, given, precision
        self.options = PimOptions()
        self.leaves = [*weights.parameters(), *given.points, given.combined, *(given.scores or [])]

    def __call__(self) -> None:
        """Leave the gradients in the leaves."""
        for leaf in self.leaves:
            leaf.grad = None
        with self.precision:
            loss, pooled = self.way(self.weights, self.given, self.options)
        torch.autograd.backward([loss, pooled], [None, self.given.gradient.to(pooled.dtype)])  # type: ignore[list-item]

    def gradients(self) -> list[Tensor]:
        """Return the gradients of all leaves that have one."""
        self()
        return [leaf.grad for leaf in self.leaves if leaf.grad is not None]


def layers_alone(weights: Weights, given: Given, gradients: Sequence[Tensor], context: AbstractContextManager) -> None:
    """Score the points and go back from there: what both ways share."""
    for leaf in (*weights.parameters(), *given.points):
        leaf.grad = None
    with context:
        scores = weights.scores(given.points)
    torch.autograd.backward(scores, [g.to(s.dtype) for g, s in zip(gradients, scores, strict=True)])


def make_given(arguments: argparse.Namespace, images: int, device: torch.device, dtype: torch.dtype) -> Given:
    """Draw a batch of points."""
    draw = partial(torch.randn, device=device, dtype=dtype)
    points = [draw(images, count, arguments.width).requires_grad_() for count in arguments.points]
    joints = max(1, sum(arguments.keeps) // 32)
    combined = draw(images, arguments.classes).requires_grad_()
    targets = torch.arange(images, device=device) % arguments.classes
    return Given(points, combined, targets, draw(images, arguments.width, joints) / math.sqrt(images * arguments.width))


def largest_difference(weights: Weights, given: Given) -> float:
    """Return by how much the gradients of a tensor differ, relative to its largest.

    The bias before a norm has a gradient of 0, rounding aside: none counts as smaller than a thousandth of the largest
    gradient of all.
    """
    theirs, own = (Step(way, weights, given, nullcontext()).gradients() for way in (image_by_image, ours))
    least = max(float(gradient.abs().max()) for gradient in theirs) / 1000
    return max(float((a - b).abs().max()) / max(float(a.abs().max()), least) for a, b in zip(theirs, own, strict=True))


def parse() -> argparse.Namespace:
    """Read the options; they start as PIM's published sizes: Swin-T at 384 pixels, CUB-200."""
    parser = option_parser(__doc__)
    parser.add_argument("--points", type=int, nargs="+", default=[2304, 576, 144, 144], help="N of each map")
    parser.add_argument("--keeps", type=int, nargs="+", default=[2048, 512, 128, 32], help="of them kept")
    parser.add_argument("--width", type=int, default=1536, help="channels of a point: head.fpn_size")
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--checked", type=int, default=2, help="images of which the gradients are compared")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    arguments = parser.parse_args()
    if len(arguments.points) != len(arguments.keeps):
        parser.error("--points and --keeps: give as many numbers to both")
    return arguments


def main() -> None:
    """Check, measure and print."""
    arguments = parse()
    device = pick_device(arguments.device)
    precision = resolve_precision(arguments.precision, device)
    context = autocast(device, precision)
    torch.manual_seed(0)
    weights = Weights(arguments).to(device)

    difference = largest_difference(weights.double(), make_given(arguments, arguments.checked, device, torch.float64))
    if difference > TOLERANCE:
        raise SystemExit(f"the gradients differ by {difference:.1e} of their largest value in float64")
    print(f"gradients of both ways differ by at most {difference:.1e} of their largest value (float64)")

    weights.float()
    given = make_given(arguments, arguments.batch_size, device, torch.float32)
    with torch.no_grad():
        scores = [value.float() for value in weights.scores(given.points)]
    without = given._replace(scores=[value.clone().requires_grad_() for value in scores])
    steps: dict[str, Callable[[], object]] = {
        "image by image": Step(image_by_image, weights, given, context),
        "ours": Step(ours, weights, given, context),
        "layers alone": partial(layers_alone, weights, given, [torch.randn_like(s) for s in scores], context),
        "image by image, layers left out": Step(image_by_image, weights, without, context),
        "ours, layers left out": Step(ours, weights, without, context),
    }
    counted = {}
    for name, step in steps.items():
        with Operations() as operations:
            step()
        counted[name] = {"operations": operations.count, "bytes": operations.moved}
    seconds = medians(steps, arguments.rounds, device)

    print(
        f"points {arguments.points}, kept {arguments.keeps}, {arguments.width} channels, {arguments.classes} classes,"
    )
    print(f"batches of {arguments.batch_size}, {precision}, {arguments.rounds} rounds")
    for name, median in seconds.items():
        asked = counted[name]
        print(f"{name:32} {1000 * median:9.1f} ms {asked['operations']:6} operations {asked['bytes'] / 1e9:6.1f} GB")
    ratios = {end: seconds[f"image by image{end}"] / seconds[f"ours{end}"] for end in ("", ", layers left out")}
    bound = seconds["image by image"] / seconds["layers alone"]
    print(f"ours is {ratios['']:.2f} times as fast; if all but the layers took no time, it would be {bound:.2f} times")
    print(f"ours is {ratios[', layers left out']:.2f} times as fast, layers left out")
    figures = {"precision": precision, "gradient_difference": difference, "seconds": seconds, "asked": counted}
    report(arguments, device, {**figures, "ratio": ratios[""], "ratio_without_layers": ratios[", layers left out"]})


if __name__ == "__main__":
    main()
