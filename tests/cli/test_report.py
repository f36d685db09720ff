"""`fgvc report` from end to end, on a run whose classifier always predicts "bee"."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from fgvc_cli.testing.tracker import metrics_of, summary_of

RANDOM = ["--explainer", "random"]
FAST = [*RANDOM, "--images", 1]


def finish(run: Path, epochs: int = 2, **more: Any) -> None:
    """Write metrics and summary of a finished training; `more` overrides values of the summary."""
    lines = [metrics_of(epoch) for epoch in range(1, epochs + 1)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    kinds = {"backbone": "timm/test_resnet", "head": "linear", "optimizer": "sgd", "dataset": "folder"}
    components = {
        kind: {"name": name, "distribution": "fgvc-cli", "version": "0.1.0", "options": {}}
        for kind, name in kinds.items()
    }
    done = {"components": components, "epochs": epochs, "best_epoch": epochs, "test": None}
    (run / "summary.json").write_text(json.dumps({**summary_of(), "run": run.name, **done, **more}))


@pytest.fixture
def run(bee_run: Path) -> Path:
    """The run, finished."""
    finish(bee_run)
    return bee_run


def words(page: Path) -> str:
    """The text of a page, without its style sheet and pictures."""
    html = re.sub(r"<style>.*?</style>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


@pytest.fixture
def evaluated(fgvc, run) -> Path:
    """The finished run, with its evaluation on the test split."""
    assert fgvc("evaluate", run).exit_code == 0
    return run


def test_a_report_of_a_run(fgvc, run):
    result = fgvc("report", run, *RANDOM)
    assert result.exit_code == 0, result.stderr
    assert (run / "evaluation/test/predictions.csv").is_file()
    assert f"run        {run}" in result.stderr and "images     10, test of" in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "bee-run: test top-1 60.0 % ± 15.5 %, 10 images"
    assert lines[1].startswith(f"page: {run}/report.html (")
    text = words(run / "report.html")
    for expected in (
        "timm/test_resnet + linear on insects", "60.0 % of 10 test images", "chance 33.3 %", "Learning curves",
        "Accuracy by class", "1 ant · 4 ·", "Predicted bee , true class ant", "Occlusion test",
        f"fgvc train --config {run}/config.toml", "validation_share = 0.25", "no images in this split cat",
    ):  # fmt: skip
        assert expected in text, expected
    assert (run / "report.html").stat().st_size < 450_000


def test_the_json_document(fgvc, evaluated):
    summary = evaluated / "evaluation/test/summary.json"
    summary.write_text(summary.read_text().replace('"top1": 0.6', '"top1": 0.7', 1))
    result = fgvc("report", evaluated, *RANDOM, "--images", 2, "--json")
    assert "images     " not in result.stderr, "it is not evaluated again"
    document = json.loads(result.stdout)
    assert document["page"] == str(evaluated / "report.html")
    assert document["bytes"] == (evaluated / "report.html").stat().st_size
    (facts,) = document["runs"]
    assert (facts["run"], facts["split"], facts["images"], facts["top1"]) == (str(evaluated), "test", 10, 0.7)
    assert facts["standard_error"] == pytest.approx((0.7 * 0.3 / 10) ** 0.5)
    assert facts["explainer"] == "random" and facts["missing"] == []
    assert len(facts["mistakes"]) == 2 and all(key.startswith("ant/") for key in facts["mistakes"])
    assert len(facts["occlusion"]) == 2 and all(row["survived"] for row in facts["occlusion"])


def test_printed_commands_work(fgvc, evaluated):
    stdout = fgvc("report", evaluated, *FAST).stdout
    explain, evaluate = (line.removeprefix("next: ").strip() for line in stdout.splitlines()[-2:])
    assert explain.startswith("fgvc explain ")
    assert evaluate == f"fgvc evaluate {evaluated} --split test --per-class"
    page = (evaluated / "report.html").read_text()
    commands = re.findall(r"<code>(fgvc (?:evaluate|report|explain)[^<]*)</code>", page)
    assert [command.split()[1] for command in commands] == ["evaluate", "explain", "report"]
    for command in (*commands, evaluate):
        out = ["--out", evaluated / "pictures"] if command.startswith("fgvc explain") else []
        result = fgvc(*command.split()[1:], *out)
        assert result.exit_code == 0, (command, result.stderr)


def test_files_are_replaced_by_default_but_not_with_out(fgvc, evaluated, tmp_path):
    for images in (1, 2):
        assert fgvc("report", evaluated, *RANDOM, "--images", images).exit_code == 0
        assert words(evaluated / "report.html").count("true class ant") >= images
    out = tmp_path / "pages" / "mine.html"
    assert fgvc("report", evaluated, "--images", 0, "--out", out).exit_code == 0
    assert "Confusion" in words(out) and "Most confident mistakes" not in words(out)
    out.write_text("mine")
    refused = fgvc("report", evaluated, "--images", 0, "--out", out)
    assert refused.exit_code == 2 and "--force" in refused.stderr and out.read_text() == "mine"
    assert fgvc("report", evaluated, "--images", 0, "--out", out, "--force").exit_code == 0
    assert out.stat().st_size > 1000
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        refused = fgvc("report", evaluated, "--out", path, "--force")
        assert refused.exit_code == 2 and str(path) in refused.stderr
    assert (tmp_path / "pipe").is_fifo()


def test_several_runs_are_sections_of_one_page(fgvc, evaluated, tmp_path, monkeypatch):
    other = shutil.copytree(evaluated, tmp_path / "other-run")
    monkeypatch.chdir(tmp_path)
    result = fgvc("report", evaluated, other, evaluated, "--images", 0)
    assert result.exit_code == 0, result.stderr
    (page,) = tmp_path.glob("report-*.html")
    assert re.fullmatch(r"report-\d{8}-\d{6}\.html", page.name) and f"page: {page.name} (" in result.stdout
    text = words(page)
    assert "2 runs on insects" in text and "1. bee-run" in text and "2. other-run" in text
    assert not (evaluated / "report.html").exists()
    fgvc("report", evaluated, other, "--images", 0)
    assert len(list(tmp_path.glob("report-*.html"))) == 2, "none replaces another"


def test_other_splits_and_images(fgvc, run, tmp_path):
    result = fgvc("report", run, "--images", 0, "--split", "val")
    assert result.exit_code == 0 and "val top-1" in result.stdout
    shutil.copytree(tmp_path / "insects/test", tmp_path / "garden")
    result = fgvc("report", run, *FAST, "--data", tmp_path / "garden", "--out", tmp_path / "garden.html")
    assert result.exit_code == 0, result.stderr
    assert f"Split: all of {tmp_path}/garden" in words(tmp_path / "garden.html")
    assert f"fgvc evaluate {run} --data {tmp_path}/garden" in words(tmp_path / "garden.html")


def test_without_test_split_or_training(fgvc, run, tmp_path):
    shutil.rmtree(tmp_path / "insects/test")
    finish(run, epochs=0, images_per_second=None)
    result = fgvc("report", run, "--images", 0)
    assert result.exit_code == 0 and "val top-1" in result.stdout
    assert "No learning curves" in words(run / "report.html")


def test_without_the_dataset_the_stored_evaluation_is_reported(fgvc, evaluated, tmp_path):
    shutil.rmtree(tmp_path / "insects")
    result = fgvc("report", evaluated)
    assert result.exit_code == 3, result.stderr
    text = words(evaluated / "report.html")
    assert "images are not available" in result.stderr and "images are not available" in text
    assert "60.0 %" in text and "Confusion" in text and "Most confident mistakes" not in text
    again = fgvc("report", evaluated, "--split", "val")
    assert again.exit_code != 0 and "insects" in again.stderr, "there is no evaluation of that split"


def test_without_an_evaluation_the_summary_is_reported(fgvc, evaluated, tmp_path):
    stored = json.loads((evaluated / "evaluation/test/summary.json").read_text())
    shutil.rmtree(evaluated / "evaluation")
    shutil.rmtree(tmp_path / "insects")
    assert fgvc("report", evaluated).exit_code == 3
    assert "no evaluation" in words(evaluated / "report.html")
    names = (
        "images", "failed", "classes", "classes_present", "top1", "top5", "macro", "weighted", "calibration_error",
        "per_class",
    )  # fmt: skip
    finish(evaluated, test={name: stored[name] for name in names})
    assert fgvc("report", evaluated).exit_code == 3
    text = words(evaluated / "report.html")
    assert "60.0 %" in text and "Accuracy by class" in text and "no confusion matrix" in text


def test_missing_and_broken_images_are_skipped(fgvc, evaluated, tmp_path):
    (tmp_path / "insects/test/ant/0.png").unlink()
    (tmp_path / "insects/test/ant/1.png").write_bytes(b"broken")
    assert fgvc("report", evaluated, *RANDOM).exit_code == 3
    text = words(evaluated / "report.html")
    assert "ant/0.png and 1 more" in text and text.count("Predicted bee") == 2


def test_without_a_loadable_model_the_stored_evaluation_is_reported(fgvc, evaluated, monkeypatch):
    from fgvc_cli.errors import FgvcError
    from fgvc_cli.report import artifacts

    def missing(model_file: Path, inference: Any) -> None:
        raise FgvcError("needs head 'gone' of fgvc-gone 1.0")

    monkeypatch.setattr(artifacts, "load", missing)
    assert fgvc("report", evaluated).exit_code == 3
    text = words(evaluated / "report.html")
    assert "needs head" in text and "60.0 %" in text and "Predicted" not in text


def test_an_unsupported_explainer_is_refused_only_if_requested(fgvc, evaluated, monkeypatch):
    from fgvc_cli.errors import UsageError
    from fgvc_explainers.cam import GradCam

    def refuse(self: Any, classifier: Any) -> None:
        raise UsageError("gradcam does not support this head")

    monkeypatch.setattr(GradCam, "check", refuse)
    refused = fgvc("report", evaluated, "--explainer", "gradcam")
    assert refused.exit_code == 2 and "does not support this head" in refused.stderr
    result = fgvc("report", evaluated)
    assert result.exit_code == 3 and "does not support this head" in words(evaluated / "report.html")
    unknown = fgvc("report", evaluated, "--explainer", "gradcan")
    assert unknown.exit_code == 2 and "'gradcam'" in unknown.stderr


def test_what_cannot_be_reported_is_refused_in_one_line(fgvc, run, tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nowhere", tmp_path / "empty"):
        result = fgvc("report", path)
        assert result.exit_code == 1 and str(path) in result.stderr and len(result.stderr.splitlines()) == 1
    (run / "summary.json").unlink()
    unfinished = fgvc("report", run)
    assert unfinished.exit_code == 1 and f"--resume {run}" in unfinished.stderr
    (run / "summary.json").write_text("{}")
    damaged = fgvc("report", run)
    assert damaged.exit_code == 1 and "summary.json" in damaged.stderr
    finish(run)
    unknown = fgvc("report", run, "--split", "tets")
    assert unknown.exit_code == 2 and "'test'" in unknown.stderr
    (tmp_path / "file").write_text("no folder")
    unwritable = fgvc("report", run, "--out", tmp_path / "file" / "page.html")
    assert unwritable.exit_code == 1 and str(tmp_path / "file") in unwritable.stderr
    assert not (run / "report.html").exists() and not (run / "evaluation").exists()


def test_a_damaged_evaluation_is_named(fgvc, evaluated):
    predictions = evaluated / "evaluation/test/predictions.csv"
    predictions.write_text(predictions.read_text().replace("bee", "wasp"))
    result = fgvc("report", evaluated)
    assert result.exit_code == 1 and "predictions.csv" in result.stderr and "wasp" in result.stderr
    predictions.unlink()
    assert fgvc("report", evaluated, "--images", 0).exit_code == 0, "a missing one is written again"


def test_a_full_disk_keeps_the_previous_report(fgvc, evaluated, monkeypatch):
    assert fgvc("report", evaluated, "--images", 0).exit_code == 0
    before = (evaluated / "report.html").read_bytes()

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    result = fgvc("report", evaluated, "--images", 0)
    assert result.exit_code == 1 and "o space left" in result.stderr
    assert (evaluated / "report.html").read_bytes() == before and not list(evaluated.glob(".*.part"))


def test_ctrl_c_writes_no_report(fgvc, run, monkeypatch):
    from fgvc_cli.report import artifacts

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(artifacts, "make_examples", interrupted)
    result = fgvc("report", run)
    assert result.exit_code == 130 and "interrupted" in result.stderr
    assert not list(run.glob("report.html")) and (run / "evaluation/test/summary.json").is_file()
