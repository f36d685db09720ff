"""`fgvc weights`: fill the weights folder and say what is in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch

from fgvc_cli.cli.weights import EXAMPLES


@pytest.mark.parametrize("command", EXAMPLES)
def test_help_shows_the_example(fgvc, command: str) -> None:
    result = fgvc("weights", command, "--help")
    assert result.exit_code == 0 and EXAMPLES[command].split()[2] in result.stdout


def test_import_list_and_show(fgvc, tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "mine.pth")
    root = ["--weights-root", str(tmp_path / "weights")]
    made = fgvc("weights", "import", str(tmp_path / "mine.pth"), "--backbone", "timm/test_resnet", "--json", *root)
    assert made.exit_code == 0, made.stderr
    (stored,) = json.loads(made.stdout)["weights"]
    assert stored["name"] == "test_resnet.r160_in1k" and len(stored["sha256"]) == 64
    listed = fgvc("weights", "list", "--verify", *root)
    assert listed.exit_code == 0 and "test_resnet.r160_in1k" in listed.stdout
    shown = json.loads(fgvc("weights", "show", "timm/test_resnet", "--offline", "--json", *root).stdout)
    assert shown["stored"] == stored and shown["published"]["license"] == "apache-2.0"
    (tmp_path / "weights" / "stray.bin").touch()
    listed = fgvc("weights", "list", *root)
    assert listed.exit_code == 3 and "stray.bin" in listed.stderr


def test_fetch_without_network_is_one_line(fgvc, tmp_path: Path) -> None:
    failed = fgvc("weights", "fetch", "timm/test_resnet", "--offline", "--weights-root", str(tmp_path))
    assert failed.exit_code == 1 and "--offline forbids the download" in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1


def test_errors_advise_nothing_for_training(fgvc, tmp_path: Path) -> None:
    partial = dict(list(timm.create_model("test_resnet").state_dict().items())[:40])
    torch.save(partial, tmp_path / "partial.pth")
    tries = (
        ("import", tmp_path / "gone.pth"),
        ("import", tmp_path),
        ("import", tmp_path / "partial.pth"),
        ("fetch", None),
    )
    for command, file in tries:
        arguments = ("timm/test_resnet", "--offline") if file is None else (file, "--backbone", "timm/test_resnet")
        failed = fgvc("weights", command, *arguments, "--weights-root", tmp_path / "root")
        assert failed.exit_code == 1 and len(failed.stderr.strip().splitlines()) == 1
        assert not any(word in failed.stderr for word in ("--weights ", "--set", "train.", "from scratch")), (
            failed.stderr
        )
