"""Finished runs written as files without training, and tiny studies on the demo dataset."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from fgvc_cli import settings
from fgvc_cli.experiments.compared_run import ComparedRun, read_run
from fgvc_cli.experiments.planning import SweepRequest, plan
from fgvc_cli.experiments.study import Study
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.folder import Run
from fgvc_cli.testing.tracker import summary_of

TINY = {
    "dataset": {"name": "demo", "train": 2, "val": 1, "test": 1, "size": 32},
    "train": {"weights": "none", "image_size": 32, "batch_size": 8, "epochs": 2, "device": "cpu", "workers": 0},
}


@pytest.fixture(scope="session")
def demo_cache(tmp_path_factory) -> Path:
    """A cache folder for the demo images."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture
def cached(demo_cache):
    """The program's settings with that cache, for worker processes too."""
    with settings.override(settings.current().changed("the tests", cache_given=demo_cache)):
        yield demo_cache


@pytest.fixture
def tiny(tmp_path) -> Callable[..., Study]:
    """A function that plans a tiny study from the cells of a study file."""

    def make(cells: str, seeds: int = 1) -> Study:
        file = tmp_path / "cells.toml"
        file.write_text(cells)
        return plan(SweepRequest(options=TINY, seeds=seeds, file=file), get_registry())

    return make


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Run]:
    """A function that writes the folder of a finished run; see `write_run`."""
    return write_run


def write_run(
    folder: Path, correct: Sequence[bool], split: str = "test", keys: Sequence[str] = (), **facts: Any
) -> Run:
    """Write the folder of a finished run that classifies images as given.

    Facts: backbone, head, optimizer, base, seed, epochs, dataset, minutes, device, failures, head_options, speed (of
    learning), size (of images), data (folder of the images).
    """
    run = Run(folder)
    defaults = {"backbone": "b", "head": "h", "optimizer": "sgd"}
    names = {kind: facts.get(kind, default) for kind, default in defaults.items()}
    components: dict[str, Any] = {kind: {"name": name, "distribution": "fgvc-cli"} for kind, name in names.items()}
    if "base" in facts:
        components["optimizer"]["base"] = {"name": facts["base"]}
    seed, top1, epochs = facts.get("seed", 0), sum(correct) / len(correct), facts.get("epochs", 2)
    dataset, speed = facts.get("dataset", "birds"), facts.get("speed", 1.0)
    config = {
        "backbone": {"name": names["backbone"]},
        "head": {"name": names["head"], **facts.get("head_options", {})},
        "optimizer": {"name": names["optimizer"]},
        "dataset": {"name": dataset, "data": str(folder)},
        "train": {"epochs": epochs, "seed": seed, "device": "cpu"},
        "augment": {"flip": 0.5},
    }
    folder.mkdir(parents=True)
    run.config_file.write_text(tomli_w.dumps(config))
    run.model_file.write_bytes(b"")
    lines = [
        {
            "epoch": epoch,
            "train": {"loss": 2 / epoch / speed, "top1": 0.1 * epoch * speed, "images": 8},
            "val": {"loss": 3 / epoch / speed, "top1": 0.08 * epoch * speed, "images": 4},
        }
        for epoch in range(1, epochs + 1)
    ]
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = {
        **summary_of(), "components": components, "seed": seed, "seconds": 60 * facts.get("minutes", 1.0),
        "images_per_second": 100.0,
        "parameters": {"backbone": 1_000_000, "head": 2_000, "total": 1_002_000},
        "device": facts.get("device", "cpu (1 thread)"), "versions": {"fgvc-cli": "1"},
        "test": {"images": len(correct), "top1": top1} if split == "test" else None,
    }  # fmt: skip
    run.summary_file.write_text(json.dumps(summary))
    evaluation = {
        "run": str(folder), "dataset": {"name": dataset, "data": facts.get("data")}, "split": split,
        "origin": "official", "notes": [], "images": len(correct), "classes": 2, "top1": top1,
        "macro": {"f1": top1 / 2}, "precision": "fp32", "preprocessing": {"image_size": facts.get("size", 64)},
        "per_class": [{"class": name, "images": 1} for name in ("ant", "bee")],
        "failures": [{"key": key, "reason": "broken"} for key in facts.get("failures", ())],
    }  # fmt: skip
    evaluated = run.evaluation(split)
    evaluated.mkdir(parents=True)
    (evaluated / "summary.json").write_text(json.dumps(evaluation))
    with (evaluated / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("key", "true", "predicted", "probability", "true_probability"))
        named = keys or [f"{i}.png" for i in range(len(correct))]
        writer.writerows(
            (key, "ant", "ant" if right else "bee", 0.6, 0.6 if right else 0.4)
            for key, right in zip(named, correct, strict=True)
        )
    return run


@pytest.fixture
def run_of(tmp_path) -> Callable[..., ComparedRun]:
    """A function that writes a run and reads it for a comparison."""
    made: list[Run] = []

    def read(correct: Sequence[bool], split: str = "test", **facts: Any) -> ComparedRun:
        run = write_run(tmp_path / f"run{len(made)}", correct, split, **facts)
        made.append(run)
        return read_run(run, run.evaluation(split))

    return read
