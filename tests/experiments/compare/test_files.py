"""The files of a comparison."""

from __future__ import annotations

import csv
import json

import numpy as np
from PIL import Image

from fgvc_cli.experiments.compare import as_markdown, labels, write
from fgvc_cli.experiments.comparison import compare
from fgvc_cli.experiments.folder import FailedRun


def test_each_file_says_the_same(run_of, tmp_path):
    runs = [run_of([True] * 9 + [False], head="pim", seed=seed) for seed in (0, 1)] + [run_of([False] * 10, epochs=3)]
    comparison = compare(runs, [FailedRun("x", "b", "x", "sgd", 0, "no memory, it says")], ["y-seed0"])
    written = write(tmp_path / "new" / "comparison", comparison)
    assert [path.name for path in written] == ["comparison.json", "comparison.csv", "comparison.md", "curves.png"]
    assert json.loads(written[0].read_text()) == comparison.as_json()
    with written[1].open(newline="") as file:
        best, worst, failed = csv.DictReader(file)
    assert (best["head"], best["seeds"], best["top1"], best["top1_deviation"]) == ("pim", "0 1", "0.9", "0.0")
    assert (worst["letters"], float(worst["behind"]), worst["train.epochs"]) == ("b", 0.9, "3")
    assert float(worst["p"]) < 0.05 and best["behind"] == "" and failed["failed"] == "no memory, it says"
    markdown = written[2].read_text()
    assert "| b     | sgd       | pim     | 90.0 ± 0.0 % |" in markdown
    assert "- failed: b + x + sgd, seed 0: no memory, it says" in markdown and "- not finished: y-seed0" in markdown


def test_markdown_is_a_table_whatever_stands_in_it(run_of):
    text = as_markdown(compare([run_of([True], head="a|b"), run_of([False])]))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 4 and len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "a\\|b" in table[2]


def test_curves_are_drawn_for_each_set_of_images(run_of, tmp_path):
    comparison = compare([run_of([True]), run_of([True], head="x", pace=2), run_of([True], split="val", epochs=1)])
    written = write(tmp_path, comparison)
    assert [path.name for path in written[3:]] == ["curves.png", "curves-2.png"]
    pixels = np.asarray(Image.open(written[3]).convert("RGB")).reshape(-1, 3)
    for color in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):  # a line for each row
        assert (np.abs(pixels.astype(int) - color).max(axis=1) < 8).sum() > 1000


def test_rows_of_the_same_components_are_labeled_by_what_else_they_have(run_of):
    (section,) = compare([run_of([True], epochs=2), run_of([True], epochs=9), run_of([True], head="x")]).sections
    assert labels(section) == ["b + h + sgd (train.epochs 2)", "b + h + sgd (train.epochs 9)", "b + x + sgd"]
