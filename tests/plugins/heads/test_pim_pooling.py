"""The sums over kept points: the same by either way, and by the plain one; each way where it is the quicker."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fgvc_heads.pim import combiner
from fgvc_heads.pim.combiner import pool_kept

IMAGES, WIDTH, JOINTS = 3, 7, 2
SIZES = ((20, 18), (9, 2), (4, 4))
"""Points of each map, and how many are kept: most, few, all."""


def kept_of(points: int, keep: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(points, generator=generator)[:keep] for _ in range(IMAGES)])


@pytest.fixture
def given() -> tuple[list[Tensor], list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    points = [torch.randn(IMAGES, n, WIDTH, generator=generator, dtype=torch.float64) for n, _ in SIZES]
    kept = [kept_of(n, keep, seed) for seed, (n, keep) in enumerate(SIZES)]
    weight = torch.randn(JOINTS, sum(keep for _, keep in SIZES), generator=generator, dtype=torch.float64)
    return [of_map.requires_grad_() for of_map in points], kept, weight.requires_grad_()


def one_by_one(points: list[Tensor], kept: list[Tensor], weight: Tensor) -> Tensor:
    """Each image's points, brought together and summed."""
    together = [
        torch.stack([of_map[image, n] for of_map, indices in zip(points, kept, strict=True) for n in indices[image]])
        for image in range(IMAGES)
    ]
    return torch.stack([weight @ rows for rows in together])


@pytest.mark.parametrize("many", [0.0, 1 / 4, 2.0], ids=["all in place", "as it is", "all gathered"])
def test_sums_and_gradients_are_the_plain_ones(given, many, monkeypatch):
    monkeypatch.setattr(combiner, "DENSE_FRACTION", many)
    points, _, weight = given
    expected, found = one_by_one(*given), pool_kept(*given)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    outer = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inputs = [*points, weight]
    wanted, gradients = (torch.autograd.grad(value, inputs, outer) for value in (expected, found))
    for ours, theirs in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)
