"""PIM against a plain reading of the method: one image, one point, one class at a time, no vectorisation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from fgvc_heads.options import PimOptions
from fgvc_heads.pim import PimHead

IMAGES, CLASSES = 3, 5
OPTIONS = PimOptions(
    fpn_size=12,
    num_selects=(20, 7, 4, 9),  # the last map keeps all of its points: no L_n there
    joints_divisor=8,
    dropout=0.0,
    lambda_b=0.5,
    lambda_s=0.7,
    lambda_n=5.0,
    lambda_c=1.0,
)


@dataclass
class Slow:
    """What the plain reading finds."""

    scores: list[Tensor]
    kept: list[list[list[int]]]
    parts: dict[str, Tensor]


def affine(layer, x: Tensor) -> Tensor:
    """A linear layer or 1x1 convolution on one vector."""
    return layer.weight.flatten(1) @ x + layer.bias


def interpolation(deep: tuple[int, int], shallow: tuple[int, int]) -> Tensor:
    """The matrix of bilinear interpolation without aligned corners, N_shallow x N_deep."""
    matrix = torch.zeros(shallow[0] * shallow[1], deep[0] * deep[1], dtype=torch.float64)
    for row in range(shallow[0]):
        for column in range(shallow[1]):
            y = max((row + 0.5) * deep[0] / shallow[0] - 0.5, 0)
            x = max((column + 0.5) * deep[1] / shallow[1] - 0.5, 0)
            for yy in (math.floor(y), math.floor(y) + 1):
                for xx in (math.floor(x), math.floor(x) + 1):
                    share = max(0, 1 - abs(y - yy)) * max(0, 1 - abs(x - xx))
                    if share:
                        point = min(yy, deep[0] - 1) * deep[1] + min(xx, deep[1] - 1)
                        matrix[row * shallow[1] + column, point] += share
    return matrix


def normalized(norm, rows: list[Tensor]) -> list[Tensor]:
    """Batch normalization in training: over all rows."""
    mean = sum(rows) / len(rows)
    variance = sum((row - mean) ** 2 for row in rows) / len(rows)
    return [(row - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias for row in rows]


def cross_entropy(scores: Tensor, target: Tensor) -> Tensor:
    """Of one vector of scores, against a class or probabilities."""
    log_probabilities = scores - scores.exp().sum().log()
    return -log_probabilities[target] if target.ndim == 0 else -(target * log_probabilities).sum()


def slow_pyramid(pyramid, info, maps: list[Tensor]) -> list[list[list[Tensor]]]:
    """Step 1 of the notes: the points by level and image."""
    images, levels = range(len(maps[0])), range(len(maps))
    points = []
    for level in levels:
        first, _, second = pyramid.projections[level]
        points.append([[affine(second, affine(first, x).relu()) for x in maps[level][i].flatten(1).T] for i in images])
    for level in reversed(levels[:-1]):
        shallow, deep = info.maps[level], info.maps[level + 1]
        for i in images:
            below = torch.stack(points[level + 1][i])
            if info.architecture == "transformer" and shallow.points != deep.points:
                mix = pyramid.upsamplers[level].mix
                below = mix.weight[:, :, 0] @ below + mix.bias[:, None]
            elif info.architecture == "convolutional" and shallow.grid != deep.grid:
                below = interpolation(deep.grid, shallow.grid) @ below
            points[level][i] = [point + below[n] for n, point in enumerate(points[level][i])]
    return points


def slow_combiner(combiner, chosen: list[list[Tensor]]) -> list[Tensor]:
    """Step 3: the scores of each image from its chosen points."""
    joints, mixed = range(combiner.adjacency.shape[0]), []
    for points in chosen:
        pooled = torch.stack([affine(combiner.pool_points, channel) for channel in torch.stack(points).T])  # F,J
        q = [affine(combiner.query, pooled[:, j]).mean() for j in joints]
        k = [affine(combiner.key, pooled[:, j]).mean() for j in joints]
        convolved = [affine(combiner.conv, pooled[:, j]) for j in joints]
        for j in joints:
            column = [combiner.adjacency[i, j] + combiner.alpha[0] * (q[i] - k[j]).tanh() for i in joints]
            mixed.append(sum(weight * channels for weight, channels in zip(column, convolved, strict=True)))
    rows = normalized(combiner.norm, mixed)
    scores = []
    for image in range(len(chosen)):
        mine = rows[image * len(joints) : (image + 1) * len(joints)]
        merged = sum(weight * row for weight, row in zip(combiner.pool_joints.weight[0], mine, strict=True))
        scores.append(affine(combiner.classifier, merged + combiner.pool_joints.bias))
    return scores


def slow_pim(head: PimHead, info, maps: list[Tensor], targets: Tensor) -> Slow:
    """The whole of PIM; `targets` B or B,K."""
    images = range(len(targets))
    parts = dict.fromkeys(("L_b", "L_s", "L_n", "L_c"), torch.zeros((), dtype=torch.float64))
    kept_by_map: list[list[list[int]]] = []
    chosen: list[list[Tensor]] = [[] for _ in images]
    for level, points_by_image in enumerate(slow_pyramid(head.pyramid, info, maps)):
        selector, keep = head.selectors[level], OPTIONS.num_selects[level]
        hidden = [affine(selector.hidden, point) for points in points_by_image for point in points]
        scored = [affine(selector.classifier, row.relu()) for row in normalized(selector.norm, hidden)]
        kept_by_map.append([])
        for i, points in enumerate(points_by_image):
            scores = scored[i * len(points) : (i + 1) * len(points)]
            confidence = [max((s.exp() / s.exp().sum()).tolist()) for s in scores]
            order = sorted(range(len(points)), key=confidence.__getitem__, reverse=True)
            kept, dropped = order[:keep], order[keep:]
            kept_by_map[level].append(kept)
            chosen[i] += [points[n] for n in kept]
            parts["L_b"] = parts["L_b"] + cross_entropy(sum(scores) / len(points), targets[i]) / len(images)
            for n in kept:
                parts["L_s"] = parts["L_s"] + cross_entropy(scores[n], targets[i]) / len(images) / keep
            for n in dropped:
                distance = ((scores[n].tanh() - -1) ** 2).sum()
                parts["L_n"] = parts["L_n"] + distance / len(images) / len(dropped) / CLASSES
    final = slow_combiner(head.combiner, chosen)
    for i in images:
        parts["L_c"] = parts["L_c"] + cross_entropy(final[i], targets[i]) / len(images)
    return Slow(final, kept_by_map, parts)


def built(info) -> PimHead:
    torch.manual_seed(0)
    head = PimHead(info, CLASSES, OPTIONS).double()
    with torch.no_grad():  # away from the start, where alpha = 0 hides the adaptive adjacency
        head.combiner.alpha.fill_(0.3)
        head.combiner.adjacency.add_(torch.randn_like(head.combiner.adjacency) / 10)
    return head


def targets_of(kind: str) -> Tensor:
    if kind == "classes":
        return torch.tensor([4, 0, 2])
    return torch.rand(IMAGES, CLASSES, generator=torch.Generator().manual_seed(1)).softmax(dim=1)


@pytest.mark.parametrize("kind", ["classes", "probabilities"])
@pytest.mark.parametrize("architecture", ["cnn", "transformer"])
def test_loss_selection_and_gradients(architecture, kind, request, features_of):
    info = request.getfixturevalue(architecture)
    head, targets = built(info), targets_of(kind)
    features = features_of(info, IMAGES, dtype=torch.float64)
    maps = [features.maps[index] for index in range(4)]
    inputs = [*head.parameters(), *maps]

    (objective,) = head.objectives(torch.zeros(IMAGES, 3, 36, 36), targets)
    output = head(features)
    loss = objective.loss(output)
    gradients = torch.autograd.grad(loss.value, inputs)

    slow = slow_pim(head, info, maps, targets.double() if targets.is_floating_point() else targets)
    weights = {"L_b": 0.5, "L_s": 0.7, "L_n": 5.0, "L_c": 1.0}
    slow_gradients = torch.autograd.grad(sum(weights[name] * part for name, part in slow.parts.items()), inputs)

    assert [kept.tolist() for kept in output.kept] == slow.kept
    torch.testing.assert_close(output.scores, torch.stack(slow.scores))
    for name, part in slow.parts.items():
        torch.testing.assert_close(loss.parts[name], part.detach(), rtol=1e-12, atol=1e-12)
    total = sum(weights[name] * part.item() for name, part in slow.parts.items())
    assert loss.value.item() == pytest.approx(total, rel=1e-12)
    for ours, theirs in zip(gradients, slow_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_reference_depends_on_the_order_of_the_points(cnn, features_of):
    """Were the combiner blind to it, the test above could not tell a right order from a wrong one."""
    head = built(cnn).eval()
    points, kept = torch.randn(1, 40, 12, dtype=torch.float64), torch.arange(40).unsqueeze(0)
    assert not torch.allclose(head.combiner([points], [kept]), head.combiner([points], [kept.flip(1)]), atol=1e-3)
