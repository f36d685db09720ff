"""Time PIM's selectors and losses, compared with an implementation that works image by image in Python loops.

As in the published code, the latter sorts the points of each image, gathers those that are kept and the scores of those
that are dropped, and computes the losses of what was gathered. Both have the same weights and inputs, and end in the
four losses and in the sums over kept points that the combiner starts with. First all gradients are compared in float64.
Then whole steps, forward and backward, are timed alternately, with and without the layers that score the points, whose
matrix products both share.

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
from harness import Operations, medians, option_parser, report
from torch import Tensor, nn
from torch.nn import functional as F

from fgvc_cli.devices import autocast, pick_device, resolve_precision
from fgvc_heads.options import PimOptions
from fgvc_heads.pim.combiner import pool_kept
from fgvc_heads.pim.losses import PimOutput, pim_loss
from fgvc_heads.pim.selector import Selector, most_confident

TOLERANCE = 1e-12
"""Maximum difference of a gradient in float64, relative to its largest value."""


class Weights(nn.Module):
    """The layers of both implementations: selectors, and the weighted sums over kept points."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__()
        width, kept = arguments.width, sum(arguments.keeps)
        self.selectors = nn.ModuleList(Selector(width, arguments.classes, keep) for keep in arguments.keeps)
        self.pool_points = nn.Linear(kept, max(1, kept // 32))

    def scores(self, points: Sequence[Tensor]) -> list[Tensor]:
        """Return the scores B,N,K of the points of each map."""
        return [selector.scores(of_map) for selector, of_map in zip(self.selectors, points, strict=True)]


class Inputs(NamedTuple):
    """Inputs of a step: points B,N,F of each map, the combiner's scores B,K, targets B, the gradient B,F,J of the sums
    from the combiner, and scores B,N,K of each map if the layers are excluded."""

    points: list[Tensor]
    combined: Tensor
    targets: Tensor
    gradient: Tensor
    scores: list[Tensor] | None = None


Implementation = Callable[[Weights, Inputs, PimOptions], tuple[Tensor, Tensor]]
"""Returns the loss and the sums B,F,J."""


def image_by_image(weights: Weights, inputs: Inputs, options: PimOptions) -> tuple[Tensor, Tensor]:
    """Select points, gather them and compute the losses as published."""
    all_scores = weights.scores(inputs.points) if inputs.scores is None else inputs.scores
    loss = options.lambda_c * F.cross_entropy(inputs.combined, inputs.targets)
    all_selected = []
    for selector, points, scores in zip(weights.selectors, inputs.points, all_scores, strict=True):
        probabilities = scores.float().softmax(dim=2)
        selected, dropped = [], []
        for image in range(len(points)):
            confidences = probabilities[image].max(dim=1).values
            order = confidences.sort(descending=True).indices
            selected.append(points[image][order[: selector.keep]])
            dropped.append(scores[image][order[selector.keep :]])
        all_selected.append(torch.stack(selected))
        loss = loss + options.lambda_b * F.cross_entropy(scores.mean(dim=1), inputs.targets)
        if dropped[0].numel():
            bounded = torch.stack(dropped).tanh()
            loss = loss + options.lambda_n * F.mse_loss(bounded, torch.zeros_like(bounded) - 1)
    return loss, weights.pool_points(torch.cat(all_selected, dim=1).transpose(1, 2))


def ours(weights: Weights, inputs: Inputs, options: PimOptions) -> tuple[Tensor, Tensor]:
    """Do the same as in the head `pim`."""
    all_scores = weights.scores(inputs.points) if inputs.scores is None else inputs.scores
    selections = [most_confident(scores, s.keep) for scores, s in zip(all_scores, weights.selectors, strict=True)]
    kept, confidences = zip(*selections, strict=True)
    loss = pim_loss(PimOutput(inputs.combined, tuple(all_scores), kept, confidences), inputs.targets, options)
    pooled = pool_kept(inputs.points, kept, weights.pool_points.weight) + weights.pool_points.bias.unsqueeze(1)
    return loss.value, pooled.transpose(1, 2)


class Step:
    """Forward and backward pass of one implementation."""

    def __init__(
        self,
        implementation: Implementation,
        weights: Weights,
        inputs: Inputs,
        precision: AbstractContextManager[object],
    ) -> None:
        self.implementation, self.weights, self.inputs, self.precision = implementation, weights, inputs, precision
        self.options = PimOptions()
        self.leaves = [*weights.parameters(), *inputs.points, inputs.combined, *(inputs.scores or [])]

    def __call__(self) -> None:
        """Compute the gradients of the leaves."""
        for leaf in self.leaves:
            leaf.grad = None
        with self.precision:
            loss, pooled = self.implementation(self.weights, self.inputs, self.options)
        torch.autograd.backward([loss, pooled], [None, self.inputs.gradient.to(pooled.dtype)])  # type: ignore[list-item]

    def gradients(self) -> list[Tensor]:
        """Return the gradients of all leaves that have one."""
        self()
        return [leaf.grad for leaf in self.leaves if leaf.grad is not None]


def layers_alone(
    weights: Weights, inputs: Inputs, gradients: Sequence[Tensor], context: AbstractContextManager
) -> None:
    """Score the points and backpropagate from there, which both implementations share."""
    for leaf in (*weights.parameters(), *inputs.points):
        leaf.grad = None
    with context:
        scores = weights.scores(inputs.points)
    torch.autograd.backward(scores, [g.to(s.dtype) for g, s in zip(gradients, scores, strict=True)])


def make_inputs(arguments: argparse.Namespace, images: int, device: torch.device, dtype: torch.dtype) -> Inputs:
    """Draw a random batch of points."""
    draw = partial(torch.randn, device=device, dtype=dtype)
    points = [draw(images, count, arguments.width).requires_grad_() for count in arguments.points]
    joints = max(1, sum(arguments.keeps) // 32)
    combined = draw(images, arguments.classes).requires_grad_()
    targets = torch.arange(images, device=device) % arguments.classes
    return Inputs(
        points, combined, targets, draw(images, arguments.width, joints) / math.sqrt(images * arguments.width)
    )


def largest_difference(weights: Weights, inputs: Inputs) -> float:
    """Return the largest difference between the gradients of a tensor, relative to its largest gradient.

    The denominator is at least a thousandth of the largest gradient of all, as the bias before a norm has a gradient of
    0 except for rounding.
    """
    theirs, own = (Step(one, weights, inputs, nullcontext()).gradients() for one in (image_by_image, ours))
    least = max(float(gradient.abs().max()) for gradient in theirs) / 1000
    return max(float((a - b).abs().max()) / max(float(a.abs().max()), least) for a, b in zip(theirs, own, strict=True))


def parse() -> argparse.Namespace:
    """Parse the options; the defaults are PIM's published sizes: Swin-T at 384 pixels, CUB-200."""
    parser = option_parser(__doc__)
    parser.add_argument(
        "--points", type=int, nargs="+", default=[2304, 576, 144, 144], help="number of points of each map"
    )
    parser.add_argument(
        "--keeps", type=int, nargs="+", default=[2048, 512, 128, 32], help="number of points kept of each map"
    )
    parser.add_argument("--width", type=int, default=1536, help="channels of a point (head.fpn_size)")
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--checked", type=int, default=2, help="number of images whose gradients are compared")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    arguments = parser.parse_args()
    if len(arguments.points) != len(arguments.keeps):
        parser.error("--points and --keeps need the same number of values")
    return arguments


def main() -> None:
    """Check, measure and print."""
    arguments = parse()
    device = pick_device(arguments.device)
    precision = resolve_precision(arguments.precision, device)
    context = autocast(device, precision)
    torch.manual_seed(0)
    weights = Weights(arguments).to(device)

    difference = largest_difference(weights.double(), make_inputs(arguments, arguments.checked, device, torch.float64))
    if difference > TOLERANCE:
        raise SystemExit(f"the gradients differ by {difference:.1e} of their largest value in float64")
    print(f"the gradients differ by at most {difference:.1e} of their largest value (float64)")

    weights.float()
    inputs = make_inputs(arguments, arguments.batch_size, device, torch.float32)
    with torch.no_grad():
        scores = [value.float() for value in weights.scores(inputs.points)]
    without = inputs._replace(scores=[value.clone().requires_grad_() for value in scores])
    steps: dict[str, Callable[[], object]] = {
        "image by image": Step(image_by_image, weights, inputs, context),
        "ours": Step(ours, weights, inputs, context),
        "layers only": partial(layers_alone, weights, inputs, [torch.randn_like(s) for s in scores], context),
        "image by image, without layers": Step(image_by_image, weights, without, context),
        "ours, without layers": Step(ours, weights, without, context),
    }
    counted = {}
    for name, step in steps.items():
        with Operations() as operations:
            step()
        counted[name] = {"operations": operations.count, "bytes": operations.bytes}
    seconds = medians(steps, arguments.rounds, device)

    print(
        f"points {arguments.points}, kept {arguments.keeps}, {arguments.width} channels, {arguments.classes} classes,"
    )
    print(f"batches of {arguments.batch_size}, {precision}, {arguments.rounds} rounds")
    for name, median in seconds.items():
        counts = counted[name]
        print(f"{name:32} {1000 * median:9.1f} ms {counts['operations']:6} operations {counts['bytes'] / 1e9:6.1f} GB")
    ratios = {end: seconds[f"image by image{end}"] / seconds[f"ours{end}"] for end in ("", ", without layers")}
    bound = seconds["image by image"] / seconds["layers only"]
    print(f"ours is {ratios['']:.2f} times as fast; {bound:.2f} times if only the layers took time")
    print(f"ours is {ratios[', without layers']:.2f} times as fast, without layers")
    figures = {"precision": precision, "gradient_difference": difference, "seconds": seconds, "counts": counted}
    report(arguments, device, {**figures, "ratio": ratios[""], "ratio_without_layers": ratios[", without layers"]})


if __name__ == "__main__":
    main()
