"""Finished runs that nobody trained: what a comparison reads of a run, and nothing more."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from fgvc_cli.experiments.compared_run import ComparedRun, read_run
from fgvc_cli.runs.folder import Run

CLASSES = ("ant", "bee")


def make_run(folder: Path, correct: Sequence[bool], split: str = "test", keys: Sequence[str] = (), **facts: Any) -> Run:
    """Make the folder of a finished run that has these images right.

    Facts: backbone, head, optimizer, base, seed, epochs, dataset, minutes, device, failures, head_options,
    pace (of the metrics), size (of images), data (folder that they were scored from).
    """
    run = Run(folder)
    names = {kind: facts.get(kind, usual) for kind, usual in (("backbone", "b"), ("head", "h"), ("optimizer", "sgd"))}
    components: dict[str, Any] = {kind: {"name": name, "distribution": "fgvc-cli"} for kind, name in names.items()}
    if "base" in facts:
        components["optimizer"]["base"] = {"name": facts["base"]}
    seed, top1 = facts.get("seed", 0), sum(correct) / len(correct)
    config = {
        "backbone": {"name": names["backbone"]},
        "head": {"name": names["head"], **facts.get("head_options", {})},
        "optimizer": {"name": names["optimizer"]},
        "dataset": {"name": facts.get("dataset", "birds"), "data": str(folder)},
        "train": {"epochs": facts.get("epochs", 2), "seed": seed, "device": "cpu"},
        "augment": {"flip": 0.5},
    }
    folder.mkdir(parents=True)
    run.config_file.write_text(tomli_w.dumps(config))
    run.model_file.write_bytes(b"")
    pace = facts.get("pace", 1.0)
    lines = [
        {
            "epoch": epoch,
            "train": {"loss": 2 / epoch / pace, "top1": 0.1 * epoch * pace, "images": 8},
            "val": {"loss": 3 / epoch / pace, "top1": 0.08 * epoch * pace, "images": 4},
        }
        for epoch in range(1, facts.get("epochs", 2) + 1)
    ]
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = {
        "run": folder.name, "classes": 2, "chance": 0.5, "dataset": {}, "splits": {}, "recipe": "scratch",
        "weights": "", "epochs": 2, "best_epoch": 2, "stopped_early": False, "train": None, "val": None,
        "unreadable": {}, "processes": 1, "precision": "fp32", "components": components,
        "seed": seed, "seconds": 60 * facts.get("minutes", 1.0), "images_per_second": 100.0,
        "parameters": {"backbone": 1_000_000, "head": 2_000, "total": 1_002_000},
        "device": facts.get("device", "cpu (1 thread)"), "versions": {"fgvc-cli": "1"},
        "test": {"images": len(correct), "top1": top1} if split == "test" else None,
    }  # fmt: skip
    run.summary_file.write_text(json.dumps(summary))
    evaluation = {
        "run": str(folder), "dataset": {"name": facts.get("dataset", "birds"), "data": facts.get("data")},
        "split": split,
        "origin": "official", "notes": [], "images": len(correct), "classes": 2, "top1": top1,
        "macro": {"f1": top1 / 2}, "precision": "fp32", "preprocessing": {"image_size": facts.get("size", 64)},
        "per_class": [{"class": name, "images": 1} for name in CLASSES],
        "failures": [{"key": key, "reason": "broken"} for key in facts.get("failures", ())],
    }  # fmt: skip
    place = run.evaluation(split)
    place.mkdir(parents=True)
    (place / "summary.json").write_text(json.dumps(evaluation))
    with (place / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("key", "true", "predicted", "correct"))
        named = keys or [f"{i}.png" for i in range(len(correct))]
        writer.writerows(
            (key, "ant", "ant" if right else "bee", int(right)) for key, right in zip(named, correct, strict=True)
        )
    return run


@pytest.fixture
def made_run():
    """`make_run`."""
    return make_run


@pytest.fixture
def run_of(tmp_path):
    """A function that makes and reads a run; its folder is numbered."""
    made: list[Run] = []

    def read(correct: Sequence[bool], split: str = "test", **facts: Any) -> ComparedRun:
        run = make_run(tmp_path / f"run{len(made)}", correct, split, **facts)
        made.append(run)
        return read_run(run, run.evaluation(split))

    return read
