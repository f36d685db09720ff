"""docs/explain.md: its tables are those of the command, its examples run, and it stops as it says."""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
from PIL import Image

from fgvc_cli.explaining import overlays, panels
from fgvc_cli.explaining.masking import BLUR_SIGMA
from fgvc_cli.explaining.overlays import COLORMAP

PAGE = "docs/explain.md"
TINY = [
    "--backbone", "timm/test_resnet", "--set", "dataset.train=2", "--set", "dataset.val=1", "--set", "dataset.test=1",
    "--set", "dataset.size=64", "--image-size", "32", "--batch-size", "6", "--epochs", "1", "--weights", "none",
    "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def home(fgvc, cache, tmp_path_factory) -> Path:
    """A folder with runs/RUN, trained on the demo images, photos/ in class folders and photo.jpg."""
    home = tmp_path_factory.mktemp("home")
    result = fgvc("train", *TINY, "--cache", cache, "--out", home / "runs/RUN")
    assert result.exit_code == 0, result.stderr
    for sample in sorted((home / "runs/RUN/samples").iterdir()):
        folder = home / "photos/test" / sample.stem.rpartition("-")[0]
        folder.mkdir(parents=True)
        with Image.open(sample) as image:
            image.save(folder / "1.png")
            image.save(home / "photo.jpg")
    return home


@pytest.fixture
def at_home(home, monkeypatch) -> Path:
    monkeypatch.chdir(home)
    monkeypatch.setenv("FGVC_RUNS", "runs")
    return home


def test_the_commands_of_the_page_run(page, fgvc, at_home, cache):
    for command in page(PAGE).blocks("sh"):
        result = fgvc(*shlex.split(command)[1:], "--cache", cache, "--device", "cpu", "--force")
        assert result.exit_code == 0, result.stderr
    assert (at_home / "photo.explain.png").is_file()
    folder = at_home / "runs/RUN/explanation"
    (results,) = [path.parent for path in folder.rglob("summary.json")]
    patterns = [row[0].strip("`") for row in page(PAGE).rows("## Over a dataset", table=1)]
    files = [path.relative_to(results) for path in results.rglob("*") if path.is_file()]
    assert all(any(file.match(pattern) for file in files) for pattern in patterns)
    assert all(any(file.match(pattern) for pattern in patterns) for file in files)


def test_the_keys_of_the_json_document(page, fgvc, at_home, tmp_path):
    section = page(PAGE).section("## The JSON document")
    for occlude in ([], ["--occlude"]):
        result = fgvc("explain", "photos", *occlude, "--json", "--device", "cpu", "--out", tmp_path, "--force")
        document = json.loads(result.stdout)
        assert set(document) == set(re.findall(r"`(\w+)`", section.split("An image has")[0]))
        image, look = (page(PAGE).rows("## The JSON document", table) for table in (0, 1))
        assert {row[0].strip("`") for row in image} == set(document["images"][0])
        (explanation,) = document["images"][0]["explanations"]
        (row,) = [row for row in image if row[0] == "`explanations`"]
        assert set(explanation) == set(re.findall(r"`(\w+)`", row[1]))
        assert {row[0].strip("`") for row in look} == set(explanation["looks"][0])
        assert (document["occlusion"] is None) == (not occlude) == (explanation["survived"] is None)


def test_the_sizes_and_colors_are_those_of_the_code(page):
    text = " ".join(page(PAGE).section("## The picture").split())
    assert f"over {overlays.LONGEST_SIDE} px" in text and f"under {overlays.SMALL_SIDE} px" in text
    assert f"{panels.PANEL_PIXELS // 10**6} million pixels" in text and f"`{COLORMAP}`" in text
    assert BLUR_SIGMA == 0.1 and "a tenth of its side" in " ".join(page(PAGE).section("## Options").split())


def test_the_exit_codes_are_those_of_the_page(page, fgvc, at_home, tmp_path, monkeypatch):
    assert {row[0] for row in page(PAGE).rows("## Exit codes")} == {"0", "1", "2", "3", "130"}
    out = ["--device", "cpu", "--out", tmp_path]
    assert fgvc("explain", "photo.jpg", *out).exit_code == 0
    assert fgvc("explain", "photo.jpg", *out).exit_code == 2
    assert fgvc("explain", "none.jpg", *out).exit_code == 1
    assert fgvc("explain", "photos", "none.jpg", *out).exit_code == 3

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(panels, "draw_panel", stop)
    assert fgvc("explain", "photo.jpg", *out, "--force").exit_code == 130


def test_the_example_draws_the_map_of_the_prediction(page, at_home, tmp_path):
    (tmp_path / "heat_map.py").write_text(page(PAGE).files()["heat_map.py"])
    with contextlib.redirect_stdout(io.StringIO()) as out:
        names = runpy.run_path(str(tmp_path / "heat_map.py"))
    assert names["heat_map"].shape == (32, 32) and 0 <= names["heat_map"].min() <= names["heat_map"].max() <= 1
    assert out.getvalue().split()[0] in names["classifier"].class_names


def test_the_picture_is_a_panel_with_four_pictures_in_a_line(page):
    (name,) = re.findall(r"\((images/[\w.]+)\)", page(PAGE).text)
    with Image.open(page(PAGE).path.parent / name) as image:
        assert image.format == "PNG" and image.width > 2 * image.height
