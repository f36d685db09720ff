"""`fgvc sweep` and `fgvc compare` from the command line: what they print, and what they say of bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

TINY = [
    "--backbone", "timm/test_resnet", "--image-size", 32, "--batch-size", 8, "--epochs", 1, "--weights", "none",
    "--device", "cpu", "--workers", 0,
]  # fmt: skip


@pytest.fixture
def insects(bee_run, tmp_path):
    """A folder with train and test; test lacks a class."""
    return tmp_path / "insects"


def test_a_study_is_trained_compared_and_told(fgvc, insects, tmp_path):
    study = tmp_path / "study"
    given = ["--data", insects, *TINY, "--seeds", 2, "--optimizer", "sgd", "--set", "optimizer.lr=0.01"]
    result = fgvc("sweep", *given, "--out", study)
    assert result.exit_code == 0, result.stderr
    for said in (
        "10 train + 2 val + 10 test images",
        "runs       2: 1 combination, seeds 0, 1; study folder",
        "run 2/2   timm/test_resnet",
    ):
        assert said in result.stderr, said
    assert "test of" in result.stdout and "2 seeds" in result.stdout and " ± " in result.stdout
    assert f"written: {study}/comparison/" in result.stdout and "next: fgvc report" in result.stdout
    listed = json.loads(fgvc("sweep", "--resume", study, "--dry-run", "--json").stdout)
    assert [(line["seed"], line["state"]) for line in listed] == [(0, "finished"), (1, "finished")]
    again = fgvc("sweep", "--resume", study, "--json")
    assert again.exit_code == 0 and "2 of 2 runs are done already" in again.stderr
    document = json.loads(again.stdout)
    assert document == json.loads((study / "comparison/comparison.json").read_text())
    assert document["sections"][0]["rows"][0]["seeds"] == [0, 1]
    held_out = {
        (study / f"runs/timm-test_resnet-linear-sgd-seed{s}/config.toml").read_text().count("val_seed = 0")
        for s in (0, 1)
    }
    assert held_out == {1}

    shutil.rmtree(study / "runs/timm-test_resnet-linear-sgd-seed1/evaluation")
    compared = fgvc("compare", study, "--device", "cpu", "--json")
    assert compared.exit_code == 0, compared.stderr
    rows = json.loads(compared.stdout)["sections"][0]["rows"]
    assert rows == document["sections"][0]["rows"], "what is missing is evaluated"


def test_a_run_that_fails_is_told_and_the_exit_code_says_it(fgvc, insects, tmp_path):
    cells = "[[cells]]\nhead = 'linear'\n[[cells]]\nhead = 'linear'\noptimizer = { name = 'sgd', lr = 1e30 }\n"
    (tmp_path / "study.toml").write_text(cells)
    given = ["--config", tmp_path / "study.toml", "--data", insects, *TINY, "--set", "train.clip_norm=0"]
    result = fgvc("sweep", *given, "--out", tmp_path / "study")
    assert result.exit_code == 3, result.stderr
    assert "seed 0 failed: The loss or its gradient is not finite" in result.stderr
    assert "failed: timm/test_resnet + linear + sgd, seed 0: The loss" in result.stdout
    assert result.stderr.endswith(
        f"To try what failed again: fgvc sweep --resume {tmp_path / 'study'} --retry-failed\n"
    )
    hopeless = tmp_path / "hopeless.toml"
    hopeless.write_text("[[cells]]" + cells.split("[[cells]]")[2])
    result = fgvc("sweep", "--config", hopeless, *given[2:], "--out", tmp_path / "hopeless")
    assert result.exit_code == 1 and "error: No run of the study could be trained." in result.stderr
    assert "Traceback" not in result.stderr


def wrong_lines(folder: Path = Path()) -> dict[str, tuple[list[object], int, str]]:
    """Wrong command lines, in a folder with "empty" and "file.txt": arguments, exit code, what must be said."""
    return {
        "head": (["--head", "pimm"], 2, "Did you mean 'pim'"),
        "option": (["--head", "pim", "--set", "head.fpn_sze=3"], 2, "fpn_size"),
        "section": (["--set", "haed.fpn_size=3"], 2, "head"),
        "value": (["--epochs", -1], 2, "swin_t + linear + sgd: train.epochs=-1: must be at least 0"),
        "seeds": (["--seeds", 0], 2, "--seeds"),
        "study": (["--study", "report-aircaft"], 2, "Did you mean 'report-aircraft'"),
        "config": (["--config", folder / "none.toml"], 1, "docs/studies.md shows one"),
        "no study": (["--config", folder / "file.txt"], 2, "has its combinations under [[cells]]"),
        "data": (["--data", folder / "none"], 1, "none"),
        "device": (["--device", "gpu"], 2, "auto, cpu, cuda"),
        "jobs": (["--jobs", 0], 2, "--jobs"),
        "out": (["--out", folder / "full"], 2, "exists: choose another folder"),
        "resume": (["--resume", folder / "empty"], 1, "has no study.toml"),
        "retry": (["--retry-failed"], 2, "goes beside --resume STUDY"),
        "resume and": (["--resume", folder / "empty", "--epochs", 3], 2, "leave out --epochs"),
        "resume nothing": (["--resume", folder / "none"], 1, "there is no such folder"),
    }


@pytest.mark.parametrize("case", wrong_lines())
def test_a_wrong_command_line_gets_one_line(fgvc, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    for file in ("file.txt", "full/x"):
        (tmp_path / file).write_text("seeds = 1")
    arguments, code, said = wrong_lines(tmp_path)[case]
    result = fgvc("sweep", "--offline", *arguments)
    assert (result.exit_code, result.stdout) == (code, ""), result.stderr
    assert said in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "runs").exists(), "nothing was begun"


def test_a_study_is_not_for_torchrun(fgvc, monkeypatch):
    numbers = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in numbers.items():
        monkeypatch.setenv(name, value)
    result = fgvc("sweep", "--dry-run")
    assert result.exit_code == 2 and result.stdout == "" and "leave torchrun out" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["none"], 1, "run none does not exist"),
        (["empty"], 1, "empty is not a finished run"),
        (["bee-run"], 1, "is not finished"),
        (["empty", "--sort", "accuracy"], 2, "Orders: top1, f1"),
        (["empty", "--group", "size"], 2, "Groups: none"),
        ([], 2, "Missing argument"),
    ],
)
def test_what_cannot_be_compared(fgvc, bee_run, tmp_path, monkeypatch, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    result = fgvc("compare", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr and "Traceback" not in result.stderr
