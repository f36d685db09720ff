"""`fgvc report` from end to end, on a run whose classifier always says "bee"."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

RANDOM = ["--explainer", "random"]


def component(name: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "distribution": "fgvc-cli", "version": "0.1.0", "options": options}


def finish(run: Path, epochs: int = 2, **more: Any) -> None:
    """Give a run folder what a training leaves at its end; `more` changes the summary."""
    part = {"loss": 1.0, "objective": 1.0, "top1": 0.5, "images": 9}
    lines = [
        {
            "epoch": epoch, "train": part, "val": part, "rates": {"backbone": 0.1, "head": 0.1}, "processes": 1,
            "images_per_second": 50.0, "seconds": 1.0,
        }
        for epoch in range(1, epochs + 1)
    ]  # fmt: skip
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = {
        "run": run.name, "classes": 3, "chance": 1 / 3, "dataset": {"name": "folder"},
        "splits": {"train": {"images": 9, "origin": ""}, "test": {"images": 10, "origin": ""}},
        "components": {
            "backbone": component("timm/test_resnet"), "head": component("linear"), "optimizer": component("sgd"),
            "dataset": component("folder"),
        },
        "recipe": "scratch", "weights": "None.", "epochs": epochs, "best_epoch": epochs, "stopped_early": False,
        "train": part, "val": part, "test": None, "parameters": {"backbone": 1000, "head": 10, "total": 1010},
        "seconds": 2.0, "images_per_second": 50.0, "unreadable": {}, "device": "cpu (1 threads)", "processes": 1,
        "precision": "fp32", "seed": 0, "versions": {"fgvc-cli": "0.1.0", "torch": "2.6"},
    }  # fmt: skip
    (run / "summary.json").write_text(json.dumps({**summary, **more}))


@pytest.fixture
def run(bee_run: Path) -> Path:
    """The run, finished."""
    finish(bee_run)
    return bee_run


def words(page: Path) -> str:
    """The text of a page, without its style sheet and pictures."""
    html = re.sub(r"<style>.*?</style>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_a_page_is_made_and_the_split_is_evaluated_first(fgvc, run):
    result = fgvc("report", run, *RANDOM)
    assert result.exit_code == 0, result.stderr
    assert (run / "evaluation/test/predictions.csv").is_file()
    assert f"run        {run}" in result.stderr and "images     10, test of" in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "bee-run: test top-1 60.0 % ± 15.5 %, 10 images"
    assert lines[1].startswith(f"page: {run}/report.html (")
    text = words(run / "report.html")
    for said in (
        "timm/test_resnet + linear on insects", "Of 10 test images, 60.0 % are classified rightly",
        "where guessing gets 33.3 %", "Learning curves", "Accuracy by class", "1 ant · 4 ·", "Taken for bee , is ant",
        "What the decision rests on", "The decision survived", f"fgvc train --config {run}/config.toml",
        "val_fraction = 0.25", "1 class has no image in this split cat",
    ):  # fmt: skip
        assert said in text, said
    assert (run / "report.html").stat().st_size < 450_000


def test_what_was_evaluated_is_not_evaluated_again(fgvc, run):
    fgvc("evaluate", run)
    summary = run / "evaluation/test/summary.json"
    summary.write_text(summary.read_text().replace('"top1": 0.6', '"top1": 0.7', 1))
    result = fgvc("report", run, *RANDOM)
    assert result.exit_code == 0 and "test top-1 70.0 %" in result.stdout and "images     " not in result.stderr


def test_the_commands_of_the_page_and_of_the_end_can_be_pasted(fgvc, run):
    stdout = fgvc("report", run, *RANDOM).stdout
    (first, second) = (line.removeprefix("next: ").strip() for line in stdout.splitlines()[-2:])
    assert first.startswith("fgvc explain ") and "--occlude --steps 3" in first
    assert second == f"fgvc evaluate {run} --split test --per-class"
    page = (run / "report.html").read_text()
    commands = re.findall(r"<code>(fgvc (?:evaluate|report|explain)[^<]*)</code>", page)
    assert [command.split()[1] for command in commands] == ["evaluate", "explain", "report"]
    for command in (*commands, second):
        out = ["--out", run / "pictures"] if command.startswith("fgvc explain") else []
        result = fgvc(*command.split()[1:], *out)
        assert result.exit_code == 0, (command, result.stderr)


def test_a_new_page_takes_the_place_of_the_one_before_and_out_is_refused(fgvc, run, tmp_path):
    for images in (1, 2):
        assert fgvc("report", run, *RANDOM, "--images", images).exit_code == 0
        assert words(run / "report.html").count("Taken for") == images
    out = tmp_path / "pages" / "mine.html"
    assert fgvc("report", run, "--images", 0, "--out", out).exit_code == 0 and out.is_file()
    out.write_text("mine")
    refused = fgvc("report", run, "--images", 0, "--out", out)
    assert refused.exit_code == 2 and "--force" in refused.stderr and out.read_text() == "mine"
    assert fgvc("report", run, "--images", 0, "--out", out, "--force").exit_code == 0 and out.stat().st_size > 1000
    folder = fgvc("report", run, "--out", tmp_path)
    assert folder.exit_code == 2 and "is a folder" in folder.stderr
    os.mkfifo(tmp_path / "pipe")
    pipe = fgvc("report", run, "--out", tmp_path / "pipe", "--force")
    assert pipe.exit_code == 2 and "no ordinary file" in pipe.stderr and (tmp_path / "pipe").is_fifo()


def test_without_images_nothing_is_explained(fgvc, run, monkeypatch):
    from fgvc_cli.report import run_report

    monkeypatch.setattr(run_report, "show_examples", None)
    assert fgvc("report", run, "--images", 0).exit_code == 0
    text = words(run / "report.html")
    assert "Confusion" in text and "Most confident mistakes" not in text


def test_several_runs_are_sections_of_one_page(fgvc, run, tmp_path, monkeypatch):
    other = shutil.copytree(run, tmp_path / "other-run")
    monkeypatch.chdir(tmp_path)
    result = fgvc("report", run, other, run, *RANDOM)
    assert result.exit_code == 0, result.stderr
    (page,) = tmp_path.glob("report-*.html")
    assert re.fullmatch(r"report-\d{8}-\d{6}\.html", page.name) and f"page: {page.name} (" in result.stdout
    text = words(page)
    assert "2 runs on insects" in text and "1. bee-run" in text and "2. other-run" in text
    assert not (run / "report.html").exists()
    fgvc("report", run, other, "--images", 0)
    fgvc("report", run, other, "--images", 0)
    assert len(list(tmp_path.glob("report-*.html"))) == 3, "none takes the place of another"


def test_json_has_the_facts(fgvc, run):
    result = fgvc("report", run, *RANDOM, "--json")
    document = json.loads(result.stdout)
    assert document["page"] == str(run / "report.html")
    assert document["bytes"] == (run / "report.html").stat().st_size
    (facts,) = document["runs"]
    assert (facts["run"], facts["split"], facts["images"], facts["top1"]) == (str(run), "test", 10, 0.6)
    assert facts["standard_error"] == pytest.approx(0.1549, abs=1e-4)
    assert facts["explainer"] == "random" and facts["missing"] == []
    assert sorted(facts["mistakes"]) == [f"ant/{i}.png" for i in range(4)]
    assert len(facts["occlusion"]) == 6 and all(row["survived"] for row in facts["occlusion"])


def test_another_split_and_other_photographs_can_be_reported_of(fgvc, run, tmp_path):
    result = fgvc("report", run, *RANDOM, "--split", "val")
    assert result.exit_code == 0 and "val top-1" in result.stdout
    assert "chosen on val" in words(run / "report.html")
    shutil.copytree(tmp_path / "insects/test", tmp_path / "garden")
    result = fgvc("report", run, *RANDOM, "--data", tmp_path / "garden", "--out", tmp_path / "garden.html")
    assert result.exit_code == 0, result.stderr
    assert f"Split: all of {tmp_path}/garden" in words(tmp_path / "garden.html")
    assert f"fgvc evaluate {run} --data {tmp_path}/garden" in words(tmp_path / "garden.html")


def test_without_a_test_split_validation_is_taken_and_that_is_said(fgvc, run, tmp_path):
    shutil.rmtree(tmp_path / "insects/test")
    result = fgvc("report", run, *RANDOM)
    assert result.exit_code == 0 and "val top-1" in result.stdout
    assert "no test split, so this is its validation split" in words(run / "report.html")


def test_a_run_that_was_not_trained_here_has_no_curves(fgvc, run):
    finish(run, epochs=0, images_per_second=None)
    assert fgvc("report", run, *RANDOM).exit_code == 0
    assert "there are no curves" in words(run / "report.html")


def test_where_the_data_set_is_gone_the_page_has_what_was_kept(fgvc, run, tmp_path):
    fgvc("evaluate", run)
    shutil.rmtree(tmp_path / "insects")
    result = fgvc("report", run)
    assert result.exit_code == 3, result.stderr
    assert "warning: The images are not to be had" in result.stderr
    text = words(run / "report.html")
    assert "The images are not to be had" in text and "60.0 % are classified rightly" in text and "Confusion" in text
    assert "Most confident mistakes" not in text
    again = fgvc("report", run, "--split", "val")
    assert again.exit_code != 0 and "insects" in again.stderr, "of that split nothing was kept"


def test_where_nothing_was_kept_either_the_summary_speaks(fgvc, run, tmp_path):
    fgvc("evaluate", run)
    kept = json.loads((run / "evaluation/test/summary.json").read_text())
    shutil.rmtree(run / "evaluation")
    shutil.rmtree(tmp_path / "insects")
    assert fgvc("report", run).exit_code == 3
    assert "No split of this run was scored" in words(run / "report.html")
    names = (
        "images", "failed", "classes", "classes_present", "top1", "top5", "macro", "weighted", "calibration_error",
        "per_class",
    )  # fmt: skip
    finish(run, test={name: kept[name] for name in names})
    assert fgvc("report", run).exit_code == 3
    text = words(run / "report.html")
    assert "60.0 % are classified rightly" in text and "Accuracy by class" in text and "no confusion matrix" in text


def test_images_that_are_gone_or_broken_are_left_out(fgvc, run, tmp_path):
    fgvc("evaluate", run)
    (tmp_path / "insects/test/ant/0.png").unlink()
    (tmp_path / "insects/test/ant/1.png").write_bytes(b"broken")
    result = fgvc("report", run, *RANDOM)
    assert result.exit_code == 3
    text = words(run / "report.html")
    assert "Images were left out: ant/0.png and 1 more" in text and text.count("Taken for bee") == 2


def test_where_the_model_cannot_be_loaded_its_figures_still_can(fgvc, run, monkeypatch):
    from fgvc_cli.errors import FgvcError
    from fgvc_cli.report import artifacts

    fgvc("evaluate", run)

    def missing(model_file: Path, computing: Any) -> None:
        raise FgvcError("needs head 'gone' of fgvc-gone 1.0, which is not to be had here.")

    monkeypatch.setattr(artifacts, "load", missing)
    assert fgvc("report", run).exit_code == 3
    text = words(run / "report.html")
    assert "The classifier cannot be loaded (needs head" in text and "60.0 %" in text and "Taken for" not in text


def test_an_explainer_that_cannot_is_refused_if_it_was_asked_for(fgvc, run, monkeypatch):
    from fgvc_cli.errors import UsageError
    from fgvc_explainers.cam import GradCam

    def refuse(self: Any, classifier: Any) -> None:
        raise UsageError("gradcam explains no such head: use another.")

    monkeypatch.setattr(GradCam, "check", refuse)
    refused = fgvc("report", run, "--explainer", "gradcam")
    assert refused.exit_code == 2 and "explains no such head" in refused.stderr
    result = fgvc("report", run)
    assert result.exit_code == 3 and "There are no heat maps" in words(run / "report.html")
    unknown = fgvc("report", run, "--explainer", "gradcan")
    assert unknown.exit_code == 2 and "Did you mean 'gradcam'" in unknown.stderr


@pytest.mark.parametrize("name", ["gradcam", "native", "sliding_window"])
def test_explainers_that_know_the_model_work(fgvc, run, name):
    result = fgvc("report", run, "--explainer", name, "--images", 1)
    if name == "native":  # a linear head has no attention of its own, which is the explainer's to say
        assert result.exit_code == 2 and "native" in result.stderr
    else:
        assert result.exit_code == 0, result.stderr


def test_what_cannot_be_reported_of_is_said_in_one_line(fgvc, run, tmp_path):
    (tmp_path / "empty").mkdir()
    for path, said in ((tmp_path / "nowhere", "does not exist"), (tmp_path / "empty", "is not a finished run")):
        result = fgvc("report", path)
        assert result.exit_code == 1 and said in result.stderr and len(result.stderr.splitlines()) == 1
    (run / "summary.json").unlink()
    unfinished = fgvc("report", run)
    assert unfinished.exit_code == 1 and "not finished" in unfinished.stderr
    assert f"fgvc train --resume {run}" in unfinished.stderr
    finish(run)
    (run / "summary.json").write_text("{}")
    damaged = fgvc("report", run)
    assert damaged.exit_code == 1 and "summary.json is damaged: it has no 'run'" in damaged.stderr
    unknown = fgvc("report", run, "--split", "tets")
    assert unknown.exit_code != 0
    finish(run)
    unknown = fgvc("report", run, "--split", "tets")
    assert unknown.exit_code == 2 and "Did you mean 'test'" in unknown.stderr
    assert not (run / "report.html").exists()


def test_a_damaged_evaluation_is_named(fgvc, run):
    fgvc("evaluate", run)
    predictions = run / "evaluation/test/predictions.csv"
    predictions.write_text(predictions.read_text().replace("bee", "wasp"))
    result = fgvc("report", run)
    assert result.exit_code == 1 and "predictions.csv does not belong" in result.stderr and "wasp" in result.stderr
    predictions.unlink()
    assert fgvc("report", run, *RANDOM).exit_code == 0, "what is not there is made again"


def test_the_newest_finished_run_is_taken(fgvc, run):
    runs = Path(os.environ["FGVC_RUNS"])
    shutil.copytree(run, runs / "newest")
    result = fgvc("report", "--images", 0)
    assert result.exit_code == 0 and (runs / "newest/report.html").is_file()
    assert f"run        {runs / 'newest'}" in result.stderr


def test_a_folder_that_cannot_be_written_is_found_out_before_the_work(fgvc, run, tmp_path):
    (tmp_path / "file").write_text("no folder")
    result = fgvc("report", run, "--out", tmp_path / "file" / "page.html")
    assert result.exit_code == 1 and "The page cannot be written to" in result.stderr
    assert not (run / "evaluation").exists()


def test_a_full_disk_leaves_the_page_of_before(fgvc, run, monkeypatch):
    assert fgvc("report", run, "--images", 0).exit_code == 0
    before = (run / "report.html").read_bytes()

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    result = fgvc("report", run, "--images", 0)
    assert result.exit_code == 1 and "No space left to write" in result.stderr
    assert (run / "report.html").read_bytes() == before and not list(run.glob(".*.part"))


def test_ctrl_c_leaves_no_page(fgvc, run, monkeypatch):
    from fgvc_cli.report import run_report

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_report, "show_examples", interrupted)
    result = fgvc("report", run)
    assert result.exit_code == 130 and "interrupted: no page was written" in result.stderr
    assert not list(run.glob("report.html")) and (run / "evaluation/test/summary.json").is_file()


def test_a_page_of_before_does_not_keep_a_run_from_being_replaced(run):
    from fgvc_cli.runs.folder import check_out

    (run / "report.html").write_text("page")
    check_out(run, force=True)
