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


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """What the script defines."""
    return runpy.run_path(str(SCRIPT))


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
