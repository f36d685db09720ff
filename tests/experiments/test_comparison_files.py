"""The files of a comparison."""

from __future__ import annotations

import csv
import json

import numpy as np
from PIL import Image

from fgvc_cli.experiments import comparison_files
from fgvc_cli.experiments.comparison import compare
from fgvc_cli.experiments.comparison_files import as_markdown, write_comparison
from fgvc_cli.experiments.folder import FailedRun
from fgvc_cli.experiments.text import row_labels


def test_files_agree(run_of, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison_files, "draw_curves", lambda *_: None)
    runs = [run_of([True] * 9 + [False], head="pim", seed=seed) for seed in (0, 1)] + [run_of([False] * 10, epochs=3)]
    comparison = compare(runs, [FailedRun("x", "b", "x", "sgd", 0, "no memory, at all")], ["y-seed0"])
    written = write_comparison(tmp_path / "new" / "comparison", comparison)
    assert [path.name for path in written] == ["comparison.json", "comparison.csv", "comparison.md", "curves.png"]
    assert json.loads(written[0].read_text()) == comparison.as_json()
    with written[1].open(newline="") as file:
        best, worst, failed = csv.DictReader(file)
    assert (best["head"], best["seeds"], best["top1"], best["top1_deviation"]) == ("pim", "0 1", "0.9", "0.0")
    assert (worst["letters"], float(worst["gap"]), worst["train.epochs"]) == ("b", 0.9, "3")
    assert float(worst["p"]) < 0.05 and best["gap"] == "" and failed["failed"] == "no memory, at all"
    markdown = written[2].read_text()
    assert "| b     | sgd       | pim  | 90.0 ± 0.0 % |" in markdown
    assert "b + x + sgd, seed 0: no memory, at all" in markdown and "y-seed0" in markdown


def test_markdown_escapes_cells(run_of):
    text = as_markdown(compare([run_of([True], head="a|b"), run_of([False])]))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 4 and len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "a\\|b" in table[2]


def test_curves_of_each_table(run_of, tmp_path):
    comparison = compare([run_of([True]), run_of([True], head="x", speed=2), run_of([True], split="val", epochs=1)])
    written = write_comparison(tmp_path, comparison)
    assert [path.name for path in written[3:]] == ["curves.png", "curves-2.png"]
    pixels = np.asarray(Image.open(written[3]).convert("RGB")).reshape(-1, 3)
    for color in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):  # a line for each row
        assert (np.abs(pixels.astype(int) - color).max(axis=1) < 8).sum() > 1000


def test_rows_of_the_same_components_are_labeled_by_their_settings(run_of):
    (table,) = compare([run_of([True], epochs=2), run_of([True], epochs=9), run_of([True], head="x")]).tables
    assert row_labels(table) == ["b + h + sgd (train.epochs 2)", "b + h + sgd (train.epochs 9)", "b + x + sgd"]
