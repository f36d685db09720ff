"""`fgvc sweep` and `fgvc compare` from the command line: output and bad input."""

from __future__ import annotations

import json
import multiprocessing
import shutil

import pytest
import torch

from fgvc_launchers import local

TINY = [
    "--backbone", "timm/test_resnet", "--image-size", 32, "--batch-size", 8, "--epochs", 1, "--weights", "none",
    "--device", "cpu", "--workers", 0,
]  # fmt: skip
CELLS = """
seeds = 2
[[cells]]
name = "plain"
head = "linear"
[[cells]]
name = "diverging"
head = "linear"
optimizer = { name = "sgd", lr = 1e30 }
train = { clip_norm = 0.0 }
"""


def test_a_study_with_a_failing_cell(fgvc, bee_run, tmp_path, monkeypatch):
    if not torch.cuda.is_available():  # a fork imports nothing
        monkeypatch.setattr(local, "child_context", lambda _: multiprocessing.get_context("fork"))
    (tmp_path / "cells.toml").write_text(CELLS)
    study = tmp_path / "study"
    result = fgvc("sweep", "--config", tmp_path / "cells.toml", "--data", tmp_path / "insects", *TINY, "--out", study)
    assert result.exit_code == 3, result.stderr
    for text in (" val + 10 test images", "4: 2 combinations, seeds 0, 1", "run 4/4", "not finite"):
        assert text in result.stderr, text
    assert result.stderr.endswith(f"fgvc sweep --resume {study} --retry-failed\n")
    for text in ("test of", "2 seeds", " ± ", f"{study}/comparison/", "fgvc report", "failed: timm/test_resnet"):
        assert text in result.stdout, text

    listed = json.loads(fgvc("sweep", "--resume", study, "--dry-run", "--json").stdout)
    states = {(record["run"], record["state"]) for record in listed}
    assert {("plain-seed1", "finished"), ("diverging-seed0", "failed")} < states
    again = fgvc("sweep", "--resume", study, "--json")
    assert again.exit_code == 3 and "4 of 4 runs" in again.stderr
    document = json.loads(again.stdout)
    assert document == json.loads((study / "comparison/comparison.json").read_text())
    (row,) = document["sections"][0]["rows"]
    assert row["seeds"] == [0, 1] and len(document["failed"]) == 2
    assert all("val_seed = 0\n" in (study / f"runs/plain-seed{seed}/config.toml").read_text() for seed in (0, 1))

    shutil.rmtree(study / "runs/plain-seed1/evaluation")
    compared = fgvc("compare", study, "--device", "cpu", "--json")
    assert compared.exit_code == 0, compared.stderr
    assert json.loads(compared.stdout)["sections"][0]["rows"] == [row], "the missing evaluation is computed"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--head", "pimm"], 2, "'pim'"),
        (["--head", "pim", "--set", "head.fpn_sze=3"], 2, "fpn_size"),
        (["--set", "haed.fpn_size=3"], 2, "head"),
        (["--epochs", -1], 2, "epochs"),
        (["--seeds", 0], 2, "--seeds"),
        (["--study", "report-aircaft"], 2, "'report-aircraft'"),
        (["--study", "report-aircraft", "--config", "file.txt"], 2, "--config file.txt"),
        (["--config", "none.toml"], 1, "none.toml"),
        (["--config", "file.txt"], 2, "[[cells]]"),
        (["--data", "none"], 1, "none"),
        (["--device", "gpu"], 2, "cuda"),
        (["--jobs", 0], 2, "--jobs"),
        (["--out", "full"], 2, "--out full exists"),
        (["--resume", "empty"], 1, "empty has no study.toml"),
        (["--resume", "none"], 1, "none does not exist"),
        (["--retry-failed"], 2, "--resume STUDY"),
        (["--resume", "empty", "--epochs", 3, "--head", "pim"], 2, "leave out --head, --epochs"),
    ],
)
def test_bad_input_is_refused_in_one_line(fgvc, tmp_path, monkeypatch, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    for file in ("file.txt", "full/x"):
        (tmp_path / file).write_text("seeds = 1")
    result = fgvc("sweep", "--offline", *arguments)
    assert (result.exit_code, result.stdout) == (code, ""), result.stderr
    assert said in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "runs").exists()


def test_torchrun_is_refused(fgvc, monkeypatch):
    numbers = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in numbers.items():
        monkeypatch.setenv(name, value)
    result = fgvc("sweep", "--dry-run")
    assert result.exit_code == 2 and result.stdout == "" and "torchrun" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["none"], 1, "none"),
        (["empty"], 1, "empty"),
        (["bee-run"], 1, "not finished"),
        (["empty", "--sort", "accuracy"], 2, "--sort accuracy"),
        (["empty", "--group", "size"], 2, "--group size"),
        ([], 2, "Missing argument"),
    ],
)
def test_what_cannot_be_compared(fgvc, bee_run, tmp_path, monkeypatch, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    result = fgvc("compare", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr and "Traceback" not in result.stderr
