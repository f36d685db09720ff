"""docs/report.md: its tables are the report's, its demonstration runs, its settings are those of the recipe."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from fgvc_cli.config.run_config import resolve
from fgvc_cli.options import as_toml
from fgvc_cli.registry import get_registry

PAGE = "docs/report.md"
SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "first_of_batch.py"

PRINTED = {
    "FGVC-Aircraft": "vit_b16 sgd 43 (33), sam 23 (51); resnet50 sgd 25 (13), sam 65.5 (39), cmal 72.7 (36), "
    "pim 29.5 (26); resnext50 sgd 26.3 (18), cmal 71.5 (43); efficientnet_b5 sgd 19.3 (21), sam 30.6 (36), "
    "pim 33.8 (27); swin_t sgd 50.8 (18), sam 54.8 (25), pim 24 (28)",
    "Flowers-102": "vit_b16 sgd 92.6 (42), sam 93.5 (84); resnet50 sgd 90.4 (14), sam 94.3 (21), cmal 97.2 (53), "
    "pim 26.5 (24); resnext50 sgd 95.8 (65), cmal 60.6 (4); efficientnet_b5 sgd 67.5 (24), sam 87.3 (65), "
    "pim 30.7 (28); swin_t sgd 95 (16), sam 95.7 (29), pim 36.3 (25)",
    "Mammalia": "vit_b16 sgd 53.9 (55), sam 52 (32); resnet50 sgd 45.2 (7), sam 45.5 (12), cmal 46.9 (43); "
    "resnext50 sgd 45.9 (9), cmal 59.9 (55); efficientnet_b5 sgd 25.3 (16), sam 24.7 (29); "
    "swin_t sgd 62.1 (14), sam 61.4 (20)",
}
"""The report's Tables 1 to 3: accuracy, and wall time in minutes."""


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """What the script defines."""
    return runpy.run_path(str(SCRIPT))


@pytest.mark.parametrize("name", PRINTED)
def test_the_tables_are_those_of_the_report(page, name):
    found = {}
    for row in page(PAGE).rows(f"### {name}"):
        cells = zip(("sgd", "sam", "cmal", "pim"), row[1:], strict=True)
        found[row[0].strip("`")] = {method: cell for method, cell in cells if cell}
    expected = {}
    for backbone in PRINTED[name].split("; "):
        title, _, cells = backbone.partition(" ")
        expected[title] = dict(cell.split(" ", 1) for cell in cells.split(", "))
    assert found == expected


def test_the_script_prints_what_the_page_shows(page, capsys):
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert page(PAGE).blocks("text") == [capsys.readouterr().out]


def test_the_code_that_the_page_shows_is_the_script(page):
    (code,) = page(PAGE).blocks("python")
    heading, _, body = code.partition("\n")
    path = heading.removeprefix("# ")
    assert page(path).path == SCRIPT and body in page(path).text
    assert f"python {path}\n" in page(PAGE).blocks("sh")


def test_a_perfect_model_scores_384_of_1020_on_flowers(example):
    torch = pytest.importorskip("torch")
    labels = torch.arange(102).repeat_interleave(10)
    scores = torch.nn.functional.one_hot(labels, 102).float()
    right = 0
    for batch, targets in zip(scores.split(16), labels.split(16), strict=True):
        right += int((batch[0].argmax() == targets).sum())
    ours = example["first_of_batch"](labels.tolist(), labels.tolist())
    assert right == ours == 384 and f"{right / len(labels):.3%}" == "37.647%"
    assert example["per_image"](labels.tolist(), labels.tolist()) == 1020
    assert example["in_class_order"]([10] * 102) == labels.tolist()


@pytest.mark.parametrize(("small", "large"), [(3, 2), (0, 4), (5, 0), (4, 3)])
def test_bounds_over_all_orders_are_those_of_trying_all(example, small, large):
    from itertools import permutations

    size = 7
    scores = [
        example["first_of_batch"](labels, labels)
        for sizes in set(permutations([size] * small + [size + 1] * large))
        for labels in [example["in_class_order"](sizes)]
    ]
    bounds = [example["over_all_orders"](choose, small=small, large=large, size=size) for choose in (min, max)]
    assert bounds == [min(scores), max(scores)]


def test_figures_in_the_text_are_those_that_the_script_prints(page):
    shown = re.sub(r"\s*=\s*", " = ", page(PAGE).blocks("text")[0])
    finding = " ".join(page(PAGE).prose.split("### 1.")[1].split("### 2.")[0].split())
    three_digits = set(re.findall(r"(\d+\.\d{3}) %", finding))
    assert three_digits == {"37.647", "77.708", "76.658", "72.697", "81.668"}
    for figure in three_digits:
        assert f"{figure}%" in shown
    for right, of in re.findall(r"(\d+) / (\d+)", finding):
        assert f"{right}/{of}" in shown
    assert f"{51 / 6149:.3%}" == "0.829%" and "51 of 6149 right, 0.829 %" in " ".join(page(PAGE).text.split())


def test_the_settings_are_those_of_the_recipe(page):
    compared = 0
    for of, _, here, _ in page(PAGE).rows("## The report's settings and ours"):
        settings = re.findall(r"`(\w+)\.(\w+)=([^`]+)`", here)
        kind, _, name = of.partition(" ")
        layers = [] if of == "all runs" else [{kind: {"name": name}}]
        config = resolve(layers, "report", {"device": "cuda", "weights": "pretrained"}, get_registry())
        for section, option, written in settings:
            found = getattr(config, section)
            values = as_toml(getattr(found, "options", found))
            shown = str(values[option]).lower() if isinstance(values[option], bool) else str(values[option])
            assert shown == written, f"{of}: {section}.{option}"
            compared += 1
    assert compared >= 20


def test_the_crop_is_224_of_260(page):
    config = resolve([], "report", {"device": "cuda", "weights": "pretrained"}, get_registry())
    assert round(config.train.image_size / config.train.crop_pct) == 260
