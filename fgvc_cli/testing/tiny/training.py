"""A training that never was, as trackers and listeners hear of one."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fgvc_cli.contracts import RunStart

CONFIG: dict[str, Any] = {
    "fgvc": "0.1.0",
    "recipe": "scratch",
    "backbone": {"name": "fgvc-cli:timm/test_resnet", "maps": "stages"},
    "head": {"name": "fgvc-cli:linear", "dropout": 0.0},
    "optimizer": {"name": "fgvc-cli:sgd", "lr": 0.003, "head_lr": "none"},
    "dataset": {"name": "fgvc-cli:folder", "data": "photos"},
    "train": {"epochs": 2, "batch_size": 16, "seed": 0, "mean": "none"},
    "augment": {"flip": True, "erase": 0.0},
}
"""Settings as `config.toml` has them."""


def metrics_of(epoch: int) -> dict[str, Any]:
    """Return a line as `metrics.jsonl` has it."""
    return {
        "epoch": epoch,
        "train": {"objective": 1.2 / epoch, "objective.parts": 0.2, "loss": 1.1 / epoch, "top1": 0.5, "images": 48},
        "val": {"loss": 0.9, "top1": 0.6, "images": 12},
        "rates": {"backbone": 0.003, "head": 0.003},
        "processes": 1,
        "images_per_second": 123.4,
        "seconds": 2.5,
    }


def summary_of() -> dict[str, Any]:
    """Return the end of a training as `summary.json` has it, the figures that a tracker may want."""
    figures = {"images": 12, "failed": 0, "classes": 3, "top1": 0.6, "top5": None, "loss": 0.8, "macro": {"f1": 0.58}}
    return {
        "run": "run",
        "classes": 3,
        "chance": 1 / 3,
        "components": {kind: {"name": CONFIG[kind]["name"]} for kind in ("backbone", "head", "optimizer", "dataset")},
        "epochs": 2,
        "best_epoch": 2,
        "stopped_early": False,
        "train": metrics_of(2)["train"],
        "val": metrics_of(2)["val"],
        "test": figures,
        "parameters": {"backbone": 1000, "head": 10, "total": 1010},
        "seconds": 5.0,
        "images_per_second": 123.4,
        "unreadable": {},
        "device": "cpu",
        "precision": "fp32",
        "seed": 0,
    }


@contextmanager
def training_about_to_start() -> Iterator[RunStart]:
    """Give a training that is about to start, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="fgvc-check-") as folder:
        run = Path(folder) / "run"
        run.mkdir()
        (run / "config.toml").write_text("recipe = 'scratch'\n", "utf-8")
        yield RunStart(run, copy.deepcopy(CONFIG), ("ant", "bee", "cat"), resumed=False)
