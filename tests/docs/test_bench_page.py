"""docs/bench.md: columns, defaults, JSON keys and commands are those of the program."""

from __future__ import annotations

import re
from dataclasses import fields

import torch

from fgvc_cli.benchmarking import files
from fgvc_cli.benchmarking.results import FORMAT, RENAMED, Feed, Report, Row, Timing, Work
from fgvc_cli.benchmarking.run import machine_facts
from fgvc_cli.cli import bench_tables

PAGE = "docs/bench.md"


def names_in(text: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", text))


def field_names(record: type) -> set[str]:
    return {field.name for field in fields(record)}


def test_every_column_is_explained_and_in_the_sample(page):
    columns = bench_tables.columns(())
    headings = [column.heading.replace("\n", " ").strip() for column in columns]
    assert [row[0].strip("`") for row in page(PAGE).rows("## What is measured")] == headings
    (sample,) = page(PAGE).blocks("")
    absent = {"batch", "bf16 vs. fp32"}  # one batch size, and a CPU without bf16 units
    for column in (column for column, heading in zip(columns, headings, strict=True) if heading not in absent):
        assert all(line in sample for line in column.heading.split("\n"))


def test_files_and_json_keys(page):
    named = [row[0].strip("`") for row in page(PAGE).rows("## Files")]
    assert named == [files.JSON_FILE, files.CSV_FILE, files.CHART_FILE]
    section = " ".join(page(PAGE).section("## The JSON document").split())
    whole, machine = section.split("`machine` has")
    assert f"`format` ({FORMAT})" in whole
    assert names_in(whole) - RENAMED.keys() - set(RENAMED.values()) == {"format", *field_names(Report)}
    assert names_in(machine.split("A row has")[0]) == {*machine_facts(torch.device("cpu")), "macs_per_second"}
    row, work = (page(PAGE).rows("## The JSON document", table) for table in (0, 1))
    assert {cells[0].strip("`") for cells in row} == field_names(Row)
    assert {cells[0].strip("`") for cells in work} == {"images_per_second", *field_names(Work)}
    (of_timing,) = [cells[1] for cells in work if cells[0] == "`timing`"]
    assert names_in(of_timing) == field_names(Timing)
    assert names_in(section.split("A feed of the pipeline has")[1]) == field_names(Feed)
