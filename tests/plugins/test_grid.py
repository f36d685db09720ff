"""Every built-in backbone, head and optimizer trains a step, saves, loads and predicts in every combination."""

from __future__ import annotations

import shutil
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fgvc_cli
from fgvc_cli.registry import get_registry
from fgvc_cli.runs import model_file
from fgvc_cli.training.callbacks import Callback
from fgvc_cli.training.run import train

SIZE = 64
NAMES = {k: [c.name for c in get_registry().components(k) if c.builtin] for k in ("backbone", "head", "optimizer")}
NAMES["head"] = [name for name in NAMES["head"] if not get_registry().find("head", name).spec.fitted]
SMALL = {"pim": {"fpn_size": 64}, "cmal": {"expert_width": 32, "map_channels": 64, "hidden_width": 32}}
QUICK = [
    ("timm/test_resnet", "linear", "adamw"),
    ("timm/test_resnet", "cmal", "sam"),
    ("timm/test_vit", "pim", "sam"),
    ("timm/test_vit", "cmal", "sgd"),
]


class Notes(Callback):
    """Keeps the notes before training."""

    def on_train_start(self, run, job) -> None:
        self.notes = list(job.notes)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Four images of two classes to train on, and two for each of validation and test."""
    folder = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        for label, name in enumerate(("finch", "wren")):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.random.default_rng([label, i]).integers(0, 256, (SIZE, SIZE + 8, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return folder


def check(backbone: str, head: dict[str, Any], optimizer: str, photos, out) -> list[str]:
    """Train one update, compare the loaded run with the trained model, and return the notes before training."""
    callback = Notes()
    settings = {
        "backbone": {"name": backbone},
        "head": head,
        "optimizer": {"name": optimizer, "lr": 0.01},
        "dataset": {"data": str(photos)},
        "train": {"weights": "none", "epochs": 1, "batch_size": 4, "image_size": SIZE, "device": "cpu", "workers": 0},
    }
    outcome = train([settings], None, out, True, get_registry(), [callback])
    assert outcome.job.config.optimizer.component.spec.name == optimizer
    assert np.isfinite(outcome.summary.train.loss)
    saved, _ = model_file.load(out / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in saved.values() if value.is_floating_point())
    pixels = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    probabilities = fgvc_cli.load(out).probabilities(pixels)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(2))
    torch.testing.assert_close(probabilities, outcome.job.classifier.eval().probabilities(pixels))
    return callback.notes


@pytest.mark.parametrize(("backbone", "head", "optimizer"), QUICK)
def test_representative_combinations(backbone, head, optimizer, photos, tmp_path):
    notes = check(backbone, {"name": head, **SMALL.get(head, {})}, optimizer, photos, tmp_path / "run")
    if (backbone, head) == ("timm/test_vit", "cmal"):
        assert any("stride" in note for note in notes)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("backbone", NAMES["backbone"])
def test_the_grid(backbone, photos, tmp_path):
    for head, optimizer in product(NAMES["head"], NAMES["optimizer"]):
        check(backbone, {"name": head}, optimizer, photos, tmp_path / "run")
        shutil.rmtree(tmp_path / "run")  # nine runs would fill a small disk
