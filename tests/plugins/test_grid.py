"""Every built-in backbone with every head and every optimizer: builds, trains a step, saves, loads and predicts."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

import fgvc_cli
from fgvc_cli.registry import get_registry
from fgvc_cli.runs import tensors
from fgvc_cli.training.callbacks import Callback
from fgvc_cli.training.run import train

SIZE = 64
BACKBONES = ("resnet50", "resnext50", "efficientnet_b5", "vit_b16", "swin_t")
HEADS = ("linear", "pim", "cmal")
OPTIMIZERS = ("sgd", "adamw", "sam")
QUICK = [
    ("timm/test_resnet", "linear", "sgd"),
    ("timm/test_resnet", "pim", "adamw"),
    ("timm/test_resnet", "cmal", "sam"),
    ("timm/test_vit", "pim", "sam"),
    ("timm/test_vit", "cmal", "sgd"),
]


class Silent(Callback):
    """A view that shows nothing and keeps what a person would be told before training."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_train_start(self, run, job) -> None:
        self.notes = list(job.notes)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Four photographs of two classes to train on, and two of each for validation and test."""
    folder = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        for label, name in enumerate(("finch", "wren")):
            for i in range(count):
                pixels = np.random.default_rng([label, i]).integers(0, 256, (SIZE, SIZE + 8, 3), np.uint8)
                (folder / split / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return folder


def one_step(backbone, head, optimizer, photos, out):
    """Train one update, and return the run and the notes before it."""
    view = Silent()
    settings = {
        "backbone": {"name": backbone},
        "head": {"name": head},
        "optimizer": {"name": optimizer, "lr": 0.01},
        "dataset": {"data": str(photos)},
        "train": {"weights": "none", "epochs": 1, "batch_size": 4, "image_size": SIZE, "device": "cpu", "workers": 0},
    }
    return train([settings], None, out, True, get_registry(), [view]), view.notes


def check(backbone, head, optimizer, photos, out) -> list[str]:
    outcome, notes = one_step(backbone, head, optimizer, photos, out)
    trained = outcome.job.classifier.eval()
    assert outcome.job.config.optimizer.component.spec.name == optimizer
    assert np.isfinite(outcome.summary.train.loss)

    saved, _ = tensors.load(out / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in saved.values() if value.is_floating_point())
    pixels = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    loaded = fgvc_cli.load(out)
    probabilities = loaded.probabilities(pixels)
    assert probabilities.shape == (2, 2)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(2))
    torch.testing.assert_close(probabilities, trained.probabilities(pixels))
    return notes


@pytest.mark.parametrize(("backbone", "head", "optimizer"), QUICK)
def test_the_grid_in_small(backbone, head, optimizer, photos, tmp_path):
    notes = check(backbone, head, optimizer, photos, tmp_path / "run")
    if (backbone, head) == ("timm/test_vit", "cmal"):
        assert any("stride" in note for note in notes), "what is adapted is said before training"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_grid(backbone, photos, tmp_path):
    for head, optimizer in product(HEADS, OPTIMIZERS):
        run = tmp_path / "run"
        check(backbone, head, optimizer, photos, run)
        for file in sorted(run.rglob("*"), reverse=True):  # nine of them would fill a small disk
            file.rmdir() if file.is_dir() else file.unlink()
        run.rmdir()
