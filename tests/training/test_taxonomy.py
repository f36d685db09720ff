"""Trainings on classes with groups: what the model file keeps, and that nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import fgvc_cli as fgvc
from fgvc_cli.errors import FgvcError
from fgvc_cli.runs.folder import Run
from fgvc_cli.runs.model_file import load, read_taxonomy


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    file = tmp_path / "groups.csv"
    file.write_text("class,warmth\nblue,cold\ngreen,cold\nred,warm\n")
    return file


def train(photos: Path, out: Path, *callbacks: Any, **settings: Any) -> Run:
    return fgvc.train(
        data=photos, out=out, head=settings.pop("head", "linear"), backbone="timm/test_resnet", image_size=32,
        weights="none", device="cpu", epochs=2, workers=0, settings=settings, callbacks=callbacks,
    )  # fmt: skip


def test_training_is_the_same_and_the_model_file_has_the_groups(photos: Path, groups: Path, tmp_path: Path) -> None:
    plain = train(photos, tmp_path / "plain")
    grouped = train(photos, tmp_path / "grouped", **{"train.taxonomy": str(groups)})
    assert read_taxonomy(plain.path) is None
    taxonomy = read_taxonomy(grouped.path)
    assert taxonomy is not None and taxonomy.levels == ("class", "warmth") and taxonomy.ancestors["red"] == ("warm",)
    (first, before), (second, after) = load(plain.model_file), load(grouped.model_file)
    assert all(torch.equal(first[name], second[name]) for name in first) and first.keys() == second.keys()
    assert before.keys() | {"taxonomy"} == after.keys()
    summary = json.loads((grouped.evaluation("test") / "summary.json").read_text())
    assert [level["level"] for level in summary["taxonomy"]["levels"]] == ["class", "warmth"]


def test_a_resumed_run_keeps_the_groups(photos: Path, groups: Path, tmp_path: Path) -> None:
    class Stop(fgvc.Callback):
        def on_epoch_end(self, *_: Any) -> None:
            raise RuntimeError("stopped")

    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match="stopped"):
        train(photos, out, Stop(), **{"train.taxonomy": str(groups)})
    resumed = fgvc.train(resume=out)
    assert read_taxonomy(resumed.path) is not None


def test_a_wrong_file_ends_the_training_before_it_starts(photos: Path, groups: Path, tmp_path: Path) -> None:
    groups.write_text("class,warmth\nblue,cold\n")
    with pytest.raises(FgvcError, match="'green'"):
        train(photos, tmp_path / "run", **{"train.taxonomy": str(groups)})


def test_classes_added_without_training_are_in_no_group(photos: Path, groups: Path, tmp_path: Path) -> None:
    run = train(photos, tmp_path / "run", head="prototypes", **{"train.taxonomy": str(groups)})
    (tmp_path / "violet").symlink_to(photos / "train/blue")
    grown = fgvc.add_classes(run, [tmp_path / "violet"], out=tmp_path / "grown")
    taxonomy = read_taxonomy(grown.path)
    assert taxonomy is not None and taxonomy.ancestors["violet"] == ("",) and taxonomy.ancestors["red"] == ("warm",)
    assert fgvc.evaluate(grown, data=photos / "test").taxonomy is not None
