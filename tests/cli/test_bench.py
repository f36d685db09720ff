"""`fgvc bench`: from the command line to the request, the files, the table and the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fgvc_cli.benchmarking import files, run
from fgvc_cli.benchmarking.combinations import LARGEST, BenchRequest
from fgvc_cli.benchmarking.results import Feed, Report, Row
from fgvc_cli.cli.bench import COMPARE_EXAMPLE, EXAMPLE
from fgvc_cli.errors import FgvcError

TINY = ["--backbone", "timm/test_resnet", "--head", "linear", "--optimizer", "sgd", "--image-size", 32, "--batch-size",
        2, "--seconds", 0.05, "--device", "cpu"]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def measured(monkeypatch, bench_report):
    """A function that says what the next benchmarks find; it returns the requests that they get."""

    def finds(rows: Sequence[Row], stop_after: int | None = None, feeds: Sequence[Feed] = ()) -> list[BenchRequest]:
        requests: list[BenchRequest] = []

        def bench(request: BenchRequest, registry: Any, watcher: Any, keep: Any) -> Report:
            requests.append(request)
            watcher.planned([row.name for row in rows])
            done = rows if stop_after is None else rows[:stop_after]
            for count, row in enumerate(done, 1):
                watcher.started(row.name)
                keep(bench_report(done[:count]))
                watcher.finished(row)
            return bench_report(done, feeds, interrupted=stop_after is not None)

        monkeypatch.setattr(run, "bench", bench)
        monkeypatch.setattr(files, "draw_chart", lambda path, report: path.write_bytes(b"a picture"))
        return requests

    return finds


def test_its_help_ends_with_its_example(fgvc):
    for arguments, example in ((["bench"], EXAMPLE), (["bench", "compare"], COMPARE_EXAMPLE)):
        result = fgvc(*arguments, "--help")
        assert result.exit_code == 0 and example.startswith(f"fgvc {' '.join(arguments)}")
        assert " ".join(result.stdout.split()).endswith(f"Example: {example}")


def test_a_combination_is_really_timed(fgvc, tmp_path):
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


def test_what_is_typed_is_what_is_asked_for(fgvc, measured, bench_rows):
    requests = measured(bench_rows())
    fgvc(
        "bench", "--backbone", "a", "--backbone", "b", "--head", "c", "--optimizer", "d", "--all", "--explain", "e",
        "--explain", "f", "--image-size", 96, "--batch-size", 12, "--classes", 7, "--recipe", "scratch",
        "--set", "head.x=1", "--set", "train.seed=2", "--device", "cpu", "--precision", "bf16", "--channels-last", "on",
        "--compile", "--seconds", 1.5, "--epoch", "--pipeline", "--dataset", "demo", "--data", "photos", "--workers", 3,
    )  # fmt: skip
    fgvc("bench")
    fgvc("bench", "--batch-size", "max")
    assert [replace(requests[0], backbones=[], heads=[], optimizers=[], explainers=[])] == [
        BenchRequest(
            [], [], [], True, [], 96, 12, 7, "scratch", ("head.x=1", "train.seed=2"), "cpu", "bf16", "on", True, 1.5,
            True, True, "demo", Path("photos"), 3,
        )
    ]  # fmt: skip
    names = requests[0].backbones, requests[0].heads, requests[0].optimizers, requests[0].explainers
    assert [list(n) for n in names] == [["a", "b"], ["c"], ["d"], ["e", "f"]]
    assert requests[1:] == [BenchRequest(), BenchRequest(batch_size=LARGEST)]


def test_the_files_go_to_a_new_folder_each_time_and_the_next_comparison_is_offered(fgvc, measured, bench_rows):
    measured(bench_rows())
    first, second = (fgvc("bench") for _ in range(2))
    one, other = (sorted(Path("bench").iterdir())[i] for i in (0, 1))
    assert f"written: {one}/ (bench.json, bench.csv, bench.png)" in first.stdout
    command = second.stdout.splitlines()[-1].removeprefix("next: fgvc ")
    assert command == f"bench compare {one} {other}"
    assert fgvc(*command.split()).exit_code == 0


def test_a_row_that_fails_does_not_change_the_exit_code_unless_all_do(fgvc, measured, bench_rows):
    rows = bench_rows(["vit_b16"])
    measured(rows)
    result = fgvc("bench", "--out", "some")
    assert result.exit_code == 0 and "failed: vit_b16 + cmal + sgd: cmal needs three maps" in result.stderr
    assert "failed: vit_b16 + cmal + (sgd, adamw, sam over sgd): cmal needs three maps" in result.stdout
    measured(rows[-2:])
    result = fgvc("bench", "--out", "none")
    assert result.exit_code == 1 and "failed: vit_b16 + cmal" in result.stdout
    assert result.stderr.splitlines()[-1] == "fgvc: error: No combination could be timed: the reasons are above."
    assert Path("none/bench.json").is_file() and not Path("none/bench.png").exists()
    measured([replace(row, failed="an explainer failed") for row in rows[:2]])
    assert fgvc("bench", "--out", "part").exit_code == 0


def test_an_interrupted_one_shows_and_keeps_what_there_is(fgvc, measured, bench_rows):
    measured(bench_rows(), stop_after=2)
    result = fgvc("bench", "--out", "here")
    assert result.exit_code == 130 and "interrupted: " in result.stdout
    assert "linear + adamw" in result.stdout and "pim" not in result.stdout
    document = json.loads(Path("here/bench.json").read_text())
    assert len(document["rows"]) == 2 and document["interrupted"] is True and Path("here/bench.png").is_file()
    measured(bench_rows(), stop_after=0)
    assert fgvc("bench", "--out", "none").exit_code == 130 and not Path("none").exists()


def test_what_is_measured_is_kept_row_by_row(fgvc, monkeypatch, bench_report, bench_rows):
    def bench(request: BenchRequest, registry: Any, watcher: Any, keep: Any) -> Report:
        keep(bench_report(bench_rows()[:1]))
        raise RuntimeError("the machine catches fire")

    monkeypatch.setattr(run, "bench", bench)
    assert fgvc("bench", "--out", "here").exit_code == 1
    assert len(json.loads(Path("here/bench.json").read_text())["rows"]) == 1


def test_a_full_disk_costs_no_figures(fgvc, measured, bench_rows, monkeypatch):
    """It is told at once, measuring goes on, and the table is printed before the command fails."""
    measured(bench_rows())
    write = files.files.write_json
    full = [FgvcError("No space left to write bench.json.")] * 3

    def write_json(path: Path, document: Any) -> None:
        if full:
            raise full.pop()
        write(path, document)

    monkeypatch.setattr(files.files, "write_json", write_json)
    result = fgvc("bench", "--out", "here")  # there is room again after three combinations
    assert result.exit_code == 0 and result.stderr.count("warning: No space left to write bench.json. Measuring") == 1
    assert len(json.loads(Path("here/bench.json").read_text())["rows"]) == len(bench_rows())
    full += [FgvcError("No space left to write bench.json.")] * 99
    result = fgvc("bench", "--out", "there")
    assert result.exit_code == 1 and "linear + adamw" in result.stdout and not Path("there").exists()
    assert result.stderr.splitlines()[-1] == "fgvc: error: No space left to write bench.json."
    assert json.loads(fgvc("bench", "--json", "--out", "there").stdout)["rows"]


def test_what_cannot_be_replaced_is_one_line(fgvc, measured, bench_rows):
    measured(bench_rows())
    Path("here/bench.png").mkdir(parents=True)
    result = fgvc("bench", "--out", "here", "--force")
    assert result.exit_code == 1 and "linear + adamw" in result.stdout
    assert result.stderr.splitlines()[-1].startswith("fgvc: error: Cannot replace here/bench.png: ")


def test_what_a_component_prints_is_no_result(fgvc, monkeypatch, bench_report):
    monkeypatch.setattr(run, "bench", lambda *_: sys.stdout.write("a head says hello") and bench_report(()))
    result = fgvc("bench", "--json")
    assert json.loads(result.stdout)["rows"] == [] and "a head says hello" in result.stderr


def test_the_input_pipeline_alone(fgvc, measured):
    requests = measured([], feeds=[Feed("later epochs", 1200.0, 768)])
    result = fgvc("bench", "--pipeline", "--dataset", "demo")
    assert result.exit_code == 0 and "later epochs" in result.stdout and requests[0].pipeline
    assert "(bench.json)" in result.stdout


def test_json_is_one_document_and_the_files_are_written_too(fgvc, measured, bench_rows):
    measured(bench_rows())
    result = fgvc("bench", "--json", "--out", "here")
    assert json.loads(result.stdout) == json.loads(Path("here/bench.json").read_text())
    assert Path("here/bench.png").is_file()
    document = json.loads(fgvc("bench", "compare", "here", "here", "--json").stdout)
    assert document["differences"] == {} and len(document["rows"]) == len(bench_rows())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--batch-size", "0"], 2, "--batch-size 0: write a number of images, or max"),
        (["--batch-size", "large"], 2, "--batch-size large: write a number of images, or max"),
        (["--batch-size", "max", "--device", "cpu"], 2, "a number"),
        (["--data", "photos"], 2, "--data is for real images, and updates are timed on random ones: add --epoch,"),
        (["--dataset", "demo"], 2, "--dataset is for real images"),
        (["--workers", "2"], 2, "--workers is for real images"),
        (["--seconds", "0"], 2, "Invalid value for '--seconds'"),
        (["--image-size", "8"], 2, "Invalid value for '--image-size'"),
        (["--channels-last", "yes"], 2, "channels_last"),
        (["--precision", "fp8"], 2, "fp8"),
        (["--backbone", "resnet5"], 2, "Did you mean 'resnet50'"),
        (["--head", "pin"], 2, "Did you mean 'pim'?"),
        (["--explain", "gradcm"], 2, "Did you mean 'gradcam'"),
        (["--recipe", "finetun"], 2, "Did you mean 'finetune'"),
        (["--set", "head.widht=3"], 2, "widht"),
        (["--out", "file"], 2, "--out file is a file"),
        (["--out", "full"], 2, "--out full exists"),
        (["resnet50"], 2, "Components are named with --backbone, --head and --optimizer."),
        (["comapre"], 2, "Did you mean 'compare'?"),
        (["--epoch", "compare", "a", "b"], 2, "fgvc bench compare takes no --epoch: leave it out."),
        (["compare", "a"], 2, "Missing argument 'B'. See fgvc bench compare --help."),
        (["compare", "a", "b"], 1, "a: there is no such file. Name a bench.json that fgvc bench wrote, or its folder."),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_left(fgvc, arguments, code, message):
    Path("file").touch()
    Path("full").mkdir()
    Path("full/bench.json").touch()
    result = fgvc("bench", *arguments)
    assert (result.exit_code, result.stdout) == (code, ""), result.stderr
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("fgvc: error: ")
    assert message in result.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["file", "full"]


def test_two_without_anything_in_common(fgvc, measured, bench_rows):
    for name in ("resnet50", "swin_t"):
        measured(bench_rows([name]))
        fgvc("bench", "--out", name)
    result = fgvc("bench", "compare", "resnet50", "swin_t")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "have no combination in common at the same sizes: resnet50 has resnet50 + linear" in result.stderr


@pytest.mark.parametrize(
    ("option", "start", "found"),
    [("--backbone", "swin", "swin_t"), ("--head", "pi", "pim"), ("--optimizer", "sa", "sam"),
     ("--explain", "layer", "layercam"), ("--recipe", "finet", "finetune")],
)  # fmt: skip
def test_names_are_completed(option, start, found):
    words = f"fgvc bench {option} {start}"
    environment = {**os.environ, "_FGVC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "3"}
    completed = subprocess.run(
        [sys.executable, "-c", "from fgvc_cli.cli.app import main; main()"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert completed.stdout.split() == [found]
