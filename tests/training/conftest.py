"""A dataset of flat colors, small enough to train on in a test and easy to learn, and tiny trainings on it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fgvc_cli.registry import get_registry
from fgvc_cli.runs.folder import Run
from fgvc_cli.training import run as training
from fgvc_cli.training.callbacks import Callback
from fgvc_cli.training.run import TrainingResult

HEADS = {
    "linear": {},
    "pim": {"fpn_size": 16, "num_selects": 8, "lambda_s": 0.5},
    "cmal": {"expert_width": 16, "map_channels": 32, "hidden_width": 16},
}

COLORS = {"blue": (30, 60, 200), "green": (40, 190, 60), "red": (210, 50, 40)}


def write_images(folder: Path, counts: dict[str, int], seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            noise = rng.integers(-40, 40, (40, 48, 3))
            pixels = np.clip(np.array(COLORS[name]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Class folders in train, val and test; val lacks a class."""
    root = tmp_path_factory.mktemp("photos")
    write_images(root / "train", dict.fromkeys(COLORS, 9), 1)
    write_images(root / "val", {"red": 3, "green": 3}, 2)
    write_images(root / "test", dict.fromkeys(COLORS, 4), 3)
    return root


class At(Callback):
    """Does something after a number of batches."""

    def __init__(self, batch: int, do: Callable[[], object]) -> None:
        self.batch, self.do = batch, do

    def on_batch_end(self, images, metrics) -> None:
        self.batch -= 1
        if self.batch == 0:
            self.do()


@pytest.fixture(scope="session")
def at() -> type[At]:
    """A callback `at(batch, do)`."""
    return At


@pytest.fixture(scope="session")
def interrupt_at() -> Callable[[int], At]:
    """Make a callback that sends SIGINT after a number of batches."""
    return lambda batch: At(batch, lambda: signal.raise_signal(signal.SIGINT))


@pytest.fixture(scope="session")
def train(photos: Path) -> Callable[..., TrainingResult]:
    """Train a tiny network into a folder; keyword arguments are settings of `[train]`, unless named below."""

    def run(
        out,
        *callbacks,
        head="linear",
        optimizer="sgd",
        augment=None,
        data=photos,
        recipe="scratch",
        force=False,
        lr=0.02,
        head_lr="none",
        **train,
    ):
        common = {"weights": "none", "image_size": 32, "batch_size": 4, "epochs": 2, "device": "cpu", "workers": 0}
        layer = {
            "backbone": {"name": "timm/test_resnet"},
            "head": {"name": head, **HEADS[head]},
            "optimizer": {"name": optimizer, "lr": lr, "head_lr": head_lr},
            "dataset": {"data": str(data)},
            "train": common | {name: str(v) if isinstance(v, Path) else v for name, v in train.items()},
            "augment": augment or {},
        }
        return training.train([layer], recipe, out, True, get_registry(), callbacks, force)

    return run


@pytest.fixture(scope="session")
def resume() -> Callable[..., Run]:
    """Resume the run in a folder, and return it."""
    return lambda path, *callbacks: training.resume(path, get_registry(), callbacks).run


@pytest.fixture(scope="session")
def assert_same() -> Callable[[Run, Run], None]:
    """Compare two runs: metrics except times, weights and state bit for bit, test metrics."""

    def compare(run: Run, other: Run) -> None:
        timeless = [[replace(m, seconds=0, images_per_second=0) for m in r.metrics] for r in (run, other)]
        assert timeless[0] == timeless[1]
        for file in ("model.safetensors", "last/state.safetensors"):
            ours, theirs = load_file(run.path / file), load_file(other.path / file)
            assert ours.keys() == theirs.keys()
            for name in ours:
                assert torch.equal(ours[name], theirs[name]), f"{file}: {name}"
        assert run.summary.test == other.summary.test and run.summary.weights == other.summary.weights

    return compare
