"""docs/methods.md: passes, losses, sizes and commands are those of the built-in components."""

from __future__ import annotations

import re

import torch

from fgvc_cli.contracts import BackboneInfo, Features, Head, MapInfo
from fgvc_cli.registry import get_registry

PAGE = "docs/methods.md"


def head_of(name: str, strides: tuple[int, ...], image_size: int = 224) -> Head:
    """Build a head with default options on maps of 8 channels."""
    component = get_registry().find("head", name)
    maps = tuple(MapInfo(8, stride, (image_size // stride,) * 2) for stride in strides)
    info = BackboneInfo("plain", "convolutional", image_size, maps, 8, (0.5,) * 3, (0.5,) * 3)
    head: Head = component.load()(backbone=info, classes=3, options=component.options_type()())
    return head


def objectives(name: str) -> list[str]:
    """Return the names of a head's objectives."""
    head = head_of(name, (8, 16, 32), image_size=64)
    features = Features({i: torch.randn(2, 8, 64 // s, 64 // s) for i, s in enumerate((8, 16, 32))}, torch.randn(2, 8))
    generator = head.objectives(torch.randn(2, 3, 64, 64), torch.tensor([0, 2]))
    names, output = [], None
    while True:
        try:
            objective = generator.send(output)
        except StopIteration:
            return names
        names.append(objective.name)
        output = head(features, objective.part)


def test_passes_in_the_first_table_are_counted(page):
    passes = {row[0].split("`")[1]: row[3] for row in page(PAGE).rows("# Methods")}
    for name in ("linear", "pim", "cmal"):
        assert passes[name] == str(len(objectives(name)))
    assert passes["sam"].startswith("twice") and get_registry().find("optimizer", "sam").spec.passes == 2


def test_the_losses_of_cmal_are_those_of_the_table(page):
    rows = page(PAGE).rows("## `cmal`")
    of_name = {"e1": "CE(z_1)", "e2": "CE(z_2)", "e3": "CE(z_3)", "concat": "2 CE(z_c)"}
    of_name["overall"] = " + ".join(of_name[name] for name in ("e1", "e2", "e3", "concat"))
    assert [row[2] for row in rows] == [of_name[name] for name in objectives("cmal")]
    head = head_of("cmal", (4, 8, 16, 32))
    depths = {3: "all", 2: "up to the second-last map", 1: "up to the third-last map"}
    assert [row[3] for row in rows] == [depths[head.reads(name).maps[-1]] for name in objectives("cmal")]


def test_points_and_joints_of_pim_at_224_px(page):
    text = page(PAGE).section("## `pim`")
    points = re.search(r"have\s+(\d+), (\d+), (\d+) and (\d+) points", text)
    sizes = re.search(r"S = (\d+) and J = (\d+)", text)
    assert points and sizes
    strides = get_registry().find("backbone", "swin_t").spec.strides
    assert [int(number) for number in points.groups()] == [(224 // stride) ** 2 for stride in strides]
    combiner = head_of("pim", strides).combiner
    assert tuple(combiner.pool_points.weight.shape) == (int(sizes[2]), int(sizes[1]))
    joints = int(sizes[2])
    assert torch.allclose(combiner.adjacency, (torch.ones(joints, joints) + torch.eye(joints)) / 100)
    assert combiner.alpha.item() == 0
