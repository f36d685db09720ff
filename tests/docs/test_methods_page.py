"""docs/methods.md: its option tables are those of the code, its formulas and figures hold for the built components."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
import torch

from fgvc_cli.cli.show import value_text
from fgvc_cli.config.run_config import resolve, user_settings
from fgvc_cli.contracts import BackboneInfo, MapInfo, ParameterGroup
from fgvc_cli.options import describe
from fgvc_cli.registry import get_registry
from fgvc_cli.registry.records import BUILTIN_DISTRIBUTION, Component

PAGE = "docs/methods.md"


def built_in() -> list[Component]:
    found = [*get_registry().components("head"), *get_registry().components("optimizer")]
    return [component for component in found if component.distribution == BUILTIN_DISTRIBUTION]


def backbone(strides: tuple[int, ...], image_size: int = 224) -> BackboneInfo:
    """A convolutional backbone with maps of 8 channels on grids of the image size over the stride."""
    maps = tuple(MapInfo(8, stride, (image_size // stride,) * 2) for stride in strides)
    return BackboneInfo("plain", "convolutional", image_size, maps, 8, (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("component", built_in(), ids=lambda component: component.name)
def test_every_option_is_in_its_table_with_type_and_default(page, component):
    rows = page(PAGE).rows(f"### Options of `{component.name}`")
    options = describe(component.options_type())
    assert [row[:2] for row in rows] == [[f"`{option.name}`", option.type] for option in options]
    for (_, _, default, meaning), option in zip(rows, options, strict=True):
        written = default.strip("`")
        if re.fullmatch(r"\d+/\d+", written):
            assert float(Fraction(written)) == option.default
        else:
            shown = value_text(option.default)
            assert written == (f"[{shown}]" if isinstance(option.default, tuple) else shown)
        assert meaning


def test_every_built_in_head_and_optimizer_is_in_the_first_table(page):
    rows = page(PAGE).rows("# Methods")
    kinds = {name: row[1] for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert kinds == {component.name: component.kind for component in built_in()}


def test_passes_in_the_first_table_are_counted(page):
    passes = {row[0].split("`")[1]: row[3] for row in page(PAGE).rows("# Methods")}
    for name in ("linear", "pim", "cmal"):
        assert passes[name] == str(len(objectives(name)))
    twice = get_registry().find("optimizer", "sam").spec
    assert passes["sam"].startswith("twice") and twice.passes == 2


def objectives(name: str) -> list[str]:
    """Yield a head's objectives on two images of a plain backbone; return their names."""
    component = get_registry().find("head", name)
    info = backbone((8, 16, 32), image_size=64)
    head = component.load()(backbone=info, classes=3, options=component.options_type()())
    features = {index: torch.randn(2, 8, *entry.grid) for index, entry in enumerate(info.maps)}
    generator = head.objectives(torch.randn(2, 3, 64, 64), torch.tensor([0, 2]))
    names, output = [], None
    while True:
        try:
            objective = generator.send(output)
        except StopIteration:
            return names
        names.append(objective.name)
        output = head(_features(features), objective.part)


def _features(maps):
    from fgvc_cli.contracts import Features

    return Features(maps, torch.randn(2, 8))


def test_the_losses_of_cmal_are_those_of_the_table(page):
    rows = page(PAGE).rows("## `cmal`")
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5"]
    of_name = {"e1": "CE(z_1)", "e2": "CE(z_2)", "e3": "CE(z_3)", "concat": "2 CE(z_c)"}
    of_name["overall"] = " + ".join(of_name[name] for name in ("e1", "e2", "e3", "concat"))
    assert [row[2] for row in rows] == [of_name[name] for name in objectives("cmal")]


def test_what_the_cmal_table_says_of_the_backbone(page):
    component = get_registry().find("head", "cmal")
    head = component.load()(backbone=backbone((4, 8, 16, 32)), classes=3, options=component.options_type()())
    written = ["all", "up to the second-last map", "up to the third-last map", "all", "all"]
    assert [row[3] for row in page(PAGE).rows("## `cmal`")] == written
    deepest = [head.reads(part).maps[-1] for part in ("e3", "e2", "e1", "overall", "concat")]
    assert deepest == [3, 2, 1, 3, 3]


def test_experts_read_the_last_three_blocks_of_a_vit_and_training_says_so():
    component = get_registry().find("head", "cmal")
    head = component.load()(backbone=backbone((16,) * 4), classes=3, options=component.options_type()())
    assert head.reads().maps == (1, 2, 3)
    assert head.notes()


def test_points_and_joints_of_pim_at_224_px(page):
    text = page(PAGE).section("## `pim`")
    points = re.search(r"have (\d+), (\d+), (\d+) and (\d+) points", text)
    result = re.search(r"S = (\d+) and J = (\d+)", text)
    assert points and result
    swin = get_registry().find("backbone", "swin_t").spec
    info = backbone(swin.strides)
    assert [int(number) for number in points.groups()] == [entry.points for entry in info.maps]
    component = get_registry().find("head", "pim")
    head = component.load()(backbone=info, classes=3, options=component.options_type()())
    assert tuple(head.combiner.pool_points.weight.shape) == (int(result[2]), int(result[1]))
    joints = int(result[2])
    assert torch.allclose(head.combiner.adjacency, (torch.ones(joints, joints) + torch.eye(joints)) / 100)
    assert head.combiner.alpha.item() == 0


def test_strides_named_are_those_of_the_backbones(page):
    text = page(PAGE).section("## Words")
    for name in ("resnet50", "resnext50", "efficientnet_b5", "swin_t"):
        assert f"`{name}`" in text and get_registry().find("backbone", name).spec.strides == (4, 8, 16, 32)
    assert set(get_registry().find("backbone", "vit_b16").spec.strides) == {16}


def update(name: str, start: float, gradient: float, steps: int = 1, **settings: float) -> float:
    """Return a weight after steps with one gradient."""
    component = get_registry().find("optimizer", name)
    weight = torch.nn.Parameter(torch.tensor([[start]]))
    optimizer = component.load()(
        groups=[ParameterGroup("head", {"weight": weight})], options=component.options_type()(**settings)
    )
    for _ in range(steps):
        weight.grad = torch.tensor([[gradient]])
        optimizer.update(torch.zeros(()))
    return weight.item()


def test_the_formula_of_sgd():
    lr, momentum, decay, w, v = 0.1, 0.9, 0.01, 2.0, 0.0
    for _ in range(3):
        g = 0.5 + decay * w
        v = momentum * v + g
        w = w - lr * (g + momentum * v)
    assert update("sgd", 2.0, 0.5, 3, lr=lr, momentum=momentum, weight_decay=decay) == pytest.approx(w, rel=1e-6)


def test_the_formula_of_adamw():
    lr, beta1, beta2, eps, decay, w, m, s = 0.1, 0.9, 0.999, 1e-8, 0.05, 2.0, 0.0, 0.0
    for t in (1, 2, 3):
        w = w - lr * decay * w
        m, s = beta1 * m + (1 - beta1) * 0.5, beta2 * s + (1 - beta2) * 0.5**2
        w = w - lr * (m / (1 - beta1**t)) / ((s / (1 - beta2**t)) ** 0.5 + eps)
    assert update("adamw", 2.0, 0.5, 3, lr=lr, weight_decay=decay) == pytest.approx(w, rel=1e-6)


def test_the_radius_that_holds_without_rho(page):
    help_of_rho = page(PAGE).rows("### Options of `sam`")[0][3]
    options = get_registry().find("optimizer", "sam").options_type()
    plain, adaptive = re.findall(r"none: ([\d.]+), or ([\d.]+) if adaptive", help_of_rho)[0]
    assert options().radius == float(plain)
    assert options(adaptive=True).radius == float(adaptive)


def test_the_commands_for_sam_resolve_as_the_page_says(page):
    block = next(code for code in page(PAGE).blocks("sh") if "optimizer.base=adamw" in code)
    resolved = [_resolve(line) for line in block.splitlines()]
    assert [config.head.name for config in resolved] == ["cmal", "linear", "linear"]
    assert [config.optimizer.name for config in resolved] == ["sam"] * 3
    bases = [config.optimizer.base for config in resolved]
    assert [base.name for base in bases] == ["sgd", "adamw", "sgd"]
    assert bases[1].options.lr == 0.0001 and resolved[1].optimizer.options.rho == 0.1
    assert bases[2].options.lr == 0.01 and resolved[2].optimizer.options.adaptive


def _resolve(command: str):
    """Resolve a `fgvc train` line of the page, whose options are --head, --optimizer, --lr and --set."""
    words = command.removeprefix("fgvc train ").split()
    pairs = list(zip(words[::2], words[1::2], strict=True))
    named = {"--head": ("head", "name"), "--optimizer": ("optimizer", "name"), "--lr": ("optimizer", "lr")}
    options: dict[str, dict[str, object]] = {}
    for option, value in pairs:
        if option in named:
            section, key = named[option]
            options.setdefault(section, {})[key] = float(value) if key == "lr" else value
    settings, _ = user_settings(None, options, [value for option, value in pairs if option == "--set"])
    return resolve(settings, "finetune", {"device": "cuda", "weights": "pretrained"}, get_registry())


def test_recipes_and_pages_that_are_named_exist(page):
    text = page(PAGE).text
    recipes = {component.name for component in get_registry().components("recipe")}
    assert set(re.findall(r"`(\w+-paper)`", text)) == {"pim-paper", "cmal-paper"} <= recipes
    for name in re.findall(r"\]\(([\w.]+\.md)", text):
        assert (page(PAGE).path.parent / name).is_file()
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= headings
