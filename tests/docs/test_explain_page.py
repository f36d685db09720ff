"""docs/explain.md: its commands and its example run, and its keys are those of the document."""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

PAGE = "docs/explain.md"


@pytest.fixture(scope="module")
def home(demo, tmp_path_factory) -> Path:
    """A folder with runs/RUN, trained on the demo images, three of them in class folders in photos/, and photo.jpg."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(demo / "first", home / "runs/RUN")
    for sample in sorted((home / "runs/RUN/samples").iterdir())[:3]:
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


def test_the_commands_of_the_page_run(page, fgvc, demo, at_home):
    (top,) = json.loads(fgvc("predict", "photo.jpg", "--json").stdout)["predictions"]
    other = next(name for name in ("Bar-winged-Shrike", "Bar-winged-Finch") if name != top["classes"][0]["class"])
    for command in page(PAGE).blocks("sh"):
        command = command.replace("Bar-winged-Shrike", other)  # the class to compare with is another than the predicted
        result = fgvc(*shlex.split(command)[1:], "--cache", demo / "cache", "--device", "cpu", "--force")
        assert result.exit_code == 0, result.stderr
    assert (at_home / "photo.explain.png").is_file()
    (results,) = [path.parent for path in (at_home / "runs/RUN/explanation").rglob("summary.json")]
    patterns = [row[0].strip("`") for row in page(PAGE).rows("## Over a dataset", table=1)]
    files = [path.relative_to(results) for path in results.rglob("*") if path.is_file()]
    assert all(any(file.match(pattern) for file in files) for pattern in patterns)
    assert all(any(file.match(pattern) for pattern in patterns) for file in files)


def test_the_keys_of_the_json_document(page, fgvc, at_home, tmp_path):
    section = page(PAGE).section("## The JSON document")
    result = fgvc("explain", "photo.jpg", "--occlude", "--json", "--device", "cpu", "--out", tmp_path)
    document = json.loads(result.stdout)
    assert set(document) == set(re.findall(r"`(\w+)`", section.split("An image has")[0]))
    image, step = (page(PAGE).rows("## The JSON document", table) for table in (0, 1))
    assert {row[0].strip("`") for row in image} == set(document["images"][0])
    (explanation,) = document["images"][0]["explanations"]
    (row,) = [row for row in image if row[0] == "`explanations`"]
    assert set(explanation) == set(re.findall(r"`(\w+)`", row[1]))
    assert {row[0].strip("`") for row in step} == set(explanation["looks"][0])


def test_the_example_computes_the_map_of_the_prediction(page, at_home, tmp_path):
    (tmp_path / "saliency.py").write_text(page(PAGE).files()["saliency.py"])
    with contextlib.redirect_stdout(io.StringIO()) as out:
        names = runpy.run_path(str(tmp_path / "saliency.py"))
    assert names["saliency"].shape == (32, 32) and 0 <= names["saliency"].min() <= names["saliency"].max() <= 1
    assert out.getvalue().split()[0] in names["classifier"].class_names
