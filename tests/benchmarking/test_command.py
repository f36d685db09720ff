"""`fgvc bench`: from the command line to the request, the files and the exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fgvc_cli.benchmarking import files, run
from fgvc_cli.benchmarking.combinations import BenchRequest
from fgvc_cli.benchmarking.results import Feed, Report, Row
from fgvc_cli.errors import FgvcError

TINY = ["--backbone", "timm/test_resnet", "--head", "linear", "--optimizer", "sgd", "--image-size", 32, "--batch-size",
        2, "--seconds", 0.01, "--device", "cpu"]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def measured(monkeypatch, make_report):
    """A function that sets the results of the next benchmarks; it returns the list of their requests."""

    def finds(rows: Sequence[Row], stop_after: int | None = None, feeds: Sequence[Feed] = ()) -> list[BenchRequest]:
        requests: list[BenchRequest] = []

        def bench(request: BenchRequest, registry: Any, save: Any) -> Report:
            requests.append(request)
            done = rows if stop_after is None else rows[:stop_after]
            for count in range(max(1, len(done) - 2), len(done) + 1):  # after the last three rows
                save(make_report(done[:count]))
            return make_report(done, feeds, interrupted=stop_after is not None)

        monkeypatch.setattr(run, "bench", bench)
        monkeypatch.setattr(files, "draw_chart", lambda path, report: path.write_bytes(b"a picture"))
        return requests

    return finds


def test_one_combination_end_to_end(fgvc, monkeypatch):
    monkeypatch.setattr(run, "matmul_rate", lambda device, precision: 1e11)
    result = fgvc("bench", *TINY, "--explain", "gradcam", "--out", "here")
    assert result.exit_code == 0, result.stderr
    assert "timm/test_resnet" in result.stdout and "linear: gradcam" in result.stdout
    assert "32 px, batches of 2, fp32" in result.stdout
    lines = result.stdout.splitlines()
    assert lines[-2:] == ["written: here/ (bench.json, bench.csv, bench.png)", "next: fgvc bench compare here OTHER"]
    (row,) = json.loads(Path("here/bench.json").read_text())["rows"]
    assert row["update"]["images_per_second"] > 0 and row["explain"]["gradcam"]["images_per_second"] > 0
    again = fgvc("bench", "compare", "here", "here/bench.json")
    assert again.exit_code == 0 and ("~1.00" in again.stdout or "?1.00" in again.stdout)


def test_options_become_the_request(fgvc, measured, make_rows):
    requests = measured(make_rows())
    fgvc(
        "bench", "--backbone", "a", "--backbone", "b", "--head", "c", "--optimizer", "d", "--all", "--explain", "e",
        "--explain", "f", "--image-size", 96, "--batch-size", 12, "--classes", 7, "--recipe", "scratch",
        "--set", "head.x=1", "--set", "train.seed=2", "--device", "cpu", "--precision", "bf16", "--channels-last", "on",
        "--compile", "--seconds", 1.5, "--epoch", "--pipeline", "--dataset", "demo", "--data", "photos", "--workers", 3,
    )  # fmt: skip
    fgvc("bench")
    fgvc("bench", "--batch-size", "max")
    assert [replace(requests[0], backbones=[], heads=[], optimizers=[], explain=[])] == [
        BenchRequest(
            [], [], [], True, [], 96, 12, 7, "scratch", ("head.x=1", "train.seed=2"), "cpu", "bf16", "on", True, 1.5,
            True, True, "demo", Path("photos"), 3,
        )
    ]  # fmt: skip
    names = requests[0].backbones, requests[0].heads, requests[0].optimizers, requests[0].explain
    assert [list(n) for n in names] == [["a", "b"], ["c"], ["d"], ["e", "f"]]
    assert requests[1:] == [BenchRequest(), BenchRequest(batch_size="max")]


def test_each_benchmark_gets_a_new_folder(fgvc, measured, make_rows):
    measured(make_rows())
    first, second = (fgvc("bench") for _ in range(2))
    one, other = (sorted(Path("bench").iterdir())[i] for i in (0, 1))
    assert f"written: {one}/ (bench.json, bench.csv, bench.png)" in first.stdout
    command = second.stdout.splitlines()[-1].removeprefix("next: fgvc ")
    assert command == f"bench compare {one} {other}"
    assert fgvc(*command.split()).exit_code == 0


def test_a_row_that_fails_does_not_change_the_exit_code_unless_all_do(fgvc, measured, make_rows):
    rows = make_rows(["vit_b16"])
    measured(rows)
    result = fgvc("bench", "--out", "some")
    assert result.exit_code == 0
    assert "failed: vit_b16 + cmal + (sgd, adamw, sam over sgd): cmal needs three maps" in result.stdout
    measured(rows[-2:])
    result = fgvc("bench", "--out", "none")
    assert result.exit_code == 1 and "failed: vit_b16 + cmal" in result.stdout
    assert len(result.stderr.splitlines()) == 1
    assert Path("none/bench.json").is_file() and not Path("none/bench.png").exists()
    measured([replace(row, failed="an explainer failed") for row in rows[:2]])
    assert fgvc("bench", "--out", "part").exit_code == 0


def test_an_interrupted_benchmark_is_shown_and_kept(fgvc, measured, make_rows):
    measured(make_rows(), stop_after=2)
    result = fgvc("bench", "--out", "here")
    assert result.exit_code == 130 and "interrupted: " in result.stdout
    assert "linear + adamw" in result.stdout and "pim" not in result.stdout
    document = json.loads(Path("here/bench.json").read_text())
    assert len(document["rows"]) == 2 and document["interrupted"] is True and Path("here/bench.png").is_file()
    measured(make_rows(), stop_after=0)
    assert fgvc("bench", "--out", "none").exit_code == 130 and not Path("none").exists()


def test_results_are_kept_row_by_row(fgvc, monkeypatch, make_report, make_rows):
    def bench(request: BenchRequest, registry: Any, save: Any) -> Report:
        save(make_report(make_rows()[:1]))
        raise RuntimeError("unexpected")

    monkeypatch.setattr(run, "bench", bench)
    assert fgvc("bench", "--out", "here").exit_code == 1
    assert len(json.loads(Path("here/bench.json").read_text())["rows"]) == 1


def test_a_full_disk_loses_no_results(fgvc, measured, make_rows, monkeypatch):
    """It is warned of once, measuring continues, and the table is printed before the command fails."""
    measured(make_rows())
    write = files.files.write_json
    full = [FgvcError("No space left to write bench.json.")] * 3

    def write_json(path: Path, document: Any) -> None:
        if full:
            raise full.pop()
        write(path, document)

    monkeypatch.setattr(files.files, "write_json", write_json)
    result = fgvc("bench", "--out", "here")  # there is room again after three combinations
    assert result.exit_code == 0 and result.stderr.count("warning: No space left to write bench.json. Measuring") == 1
    assert len(json.loads(Path("here/bench.json").read_text())["rows"]) == len(make_rows())
    full += [FgvcError("No space left to write bench.json.")] * 99
    result = fgvc("bench", "--out", "there")
    assert result.exit_code == 1 and "linear + adamw" in result.stdout and not Path("there").exists()
    assert result.stderr.splitlines()[-1] == "fgvc: error: No space left to write bench.json."
    assert json.loads(fgvc("bench", "--json", "--out", "there").stdout)["rows"]


def test_json_output(fgvc, measured, make_rows):
    measured(make_rows())
    result = fgvc("bench", "--json", "--out", "here")
    assert json.loads(result.stdout) == json.loads(Path("here/bench.json").read_text())
    assert Path("here/bench.png").is_file()
    document = json.loads(fgvc("bench", "compare", "here", "here", "--json").stdout)
    assert document["differences"] == {} and len(document["rows"]) == len(make_rows())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--batch-size", "0"], 2, "--batch-size 0"),
        (["--batch-size", "large"], 2, "--batch-size large"),
        (["--batch-size", "max", "--device", "cpu"], 2, "--batch-size 8"),
        (["--data", "photos"], 2, "--data is for real images"),
        (["--seconds", "0"], 2, "Invalid value for '--seconds'"),
        (["--head", "pin"], 2, "Did you mean 'pim'?"),
        (["--out", "file"], 2, "--out file is a file"),
        (["--out", "full"], 2, "--force"),
        (["resnet50"], 2, "--backbone, --head and --optimizer"),
        (["comapre"], 2, "Did you mean 'compare'?"),
        (["--epoch", "compare", "a", "b"], 2, "fgvc bench compare takes no --epoch"),
        (["compare", "a"], 2, "Missing argument 'B'"),
        (["compare", "a", "b"], 1, "a does not exist"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(fgvc, arguments, code, message):
    Path("file").touch()
    Path("full").mkdir()
    Path("full/bench.json").touch()
    result = fgvc("bench", *arguments)
    assert (result.exit_code, result.stdout) == (code, ""), result.stderr
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("fgvc: error: ")
    assert message in result.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["file", "full"]
