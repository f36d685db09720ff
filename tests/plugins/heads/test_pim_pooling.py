"""The sums over kept points: the same by either way, and by the plain one; each way where it is the quicker."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fgvc_heads.pim import combiner
from fgvc_heads.pim.combiner import pool_gathered, pool_in_place, pool_kept

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


class Issued(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func._schema.name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("many", [0.0, 1 / 4, 2.0], ids=["all in place", "as it is", "all gathered"])
def test_sums_and_gradients_are_the_plain_ones(given, many, monkeypatch):
    monkeypatch.setattr(combiner, "MANY", many)
    points, _, weight = given
    expected, found = one_by_one(*given), pool_kept(*given)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    outer = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inputs = [*points, weight]
    wanted, gradients = (torch.autograd.grad(value, inputs, outer) for value in (expected, found))
    for ours, theirs in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


def test_points_that_are_not_kept_count_for_nothing(given):
    points, kept, weight = given
    found = pool_kept(points, kept, weight)
    others = []
    for of_map, indices in zip(points, kept, strict=True):
        dropped = torch.ones(of_map.shape[:2]).scatter_(1, indices, 0.0).bool()
        others.append(torch.where(dropped.unsqueeze(2), 1e3, of_map))
    torch.testing.assert_close(pool_kept(others, kept, weight), found)


def test_which_weight_a_point_gets_depends_on_its_place(given):
    points, kept, weight = given
    turned = [indices.flip(1) for indices in kept]
    assert not torch.allclose(pool_kept(points, turned, weight), pool_kept(points, kept, weight))


def test_gathers_few_points_and_multiplies_where_many_are_kept(given):
    points, kept, weight = given
    with Issued() as issued, torch.no_grad():
        pool_kept(points, kept, weight)
    assert issued.names.count("aten::index_select") == 1  # the map of which 2 of 9 are kept
    assert issued.names.count("aten::scatter") == 2


@pytest.mark.parametrize("pool", [pool_in_place, pool_gathered])
def test_mixed_precision_multiplies_in_it(pool):
    points, weight = torch.randn(IMAGES, 9, WIDTH, requires_grad=True), torch.randn(JOINTS, 5, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pool(points, kept_of(9, 5, 0), weight)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), pool(points, kept_of(9, 5, 0), weight), rtol=0.03, atol=0.1)
    found.sum().backward()
    assert points.grad.dtype == weight.grad.dtype == torch.float32
