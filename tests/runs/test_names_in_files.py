"""Names with any content in CSV and JSON files."""

from __future__ import annotations

import csv
import json
import os

import pytest

from fgvc_cli import files
from fgvc_cli.runs import model_file

BYTES = os.fsdecode(b"jay-\xff.jpg")


@pytest.mark.parametrize("name", ["=1+1", "+cmd", "@SUM(A1)", "\t=2", "'=x", "''@x", "plain", "'quoted'", "-1"])
def test_names_are_no_formulas_and_are_read_back(tmp_path, name) -> None:
    files.write_csv(tmp_path / "a.csv", ["key", "value"], [[name, -0.5]])
    with (tmp_path / "a.csv").open(newline="") as file:
        _, (key, value) = csv.reader(file)
    assert key[0] not in "=+@\t\r" and value == "-0.5"
    assert files.csv_text(key) == name


def test_names_that_are_not_utf8_are_written(tmp_path) -> None:
    files.write_csv(tmp_path / "a.csv", ["key"], [[BYTES]])
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "key\njay-\\udcff.jpg\n"
    files.write_json(tmp_path / "a.json", {"key": BYTES})
    assert files.read_json(tmp_path / "a.json") == {"key": BYTES}
    files.append_line(tmp_path / "a.jsonl", {"key": BYTES})
    assert json.loads((tmp_path / "a.jsonl").read_text(encoding="utf-8")) == {"key": BYTES}
    model_file.save(tmp_path / "a.safetensors", {}, {"classes": [BYTES]})
    assert model_file.load_document(tmp_path / "a.safetensors") == {"classes": [BYTES]}
