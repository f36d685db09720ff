"""A run folder whose classifier always says "bee", with known probabilities, and images for it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

CLASSES = ("ant", "bee", "cat")
PROBABILITIES = {"ant": 0.3, "bee": 0.6, "cat": 0.1}
ANT = {"cat": 0.1, "ant": 0.8, "bee": 0.1}
"""Always says ant, and has its classes in another order than the run that always says bee."""


def write_image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="session")
def bee_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model file, made once: a small network with random weights and a head that ignores it."""
    import torch

    from fgvc_cli.contracts import Classifier, Preprocessing
    from fgvc_cli.options import build
    from fgvc_cli.registry import get_registry
    from fgvc_cli.runs.model_file import (
        build_backbone,
        build_head,
        describe_classifier,
        describe_component,
        save_classifier,
    )

    registry = get_registry()
    names = {"backbone": "timm/test_resnet.r160_in1k", "head": "linear", "optimizer": "sgd", "dataset": "folder"}
    found = {kind: registry.find(kind, name) for kind, name in names.items()}  # type: ignore[arg-type]
    options = {kind: build(component.options_type(), {}, kind) for kind, component in found.items()}
    backbone = build_backbone(found["backbone"], options["backbone"], 32)
    head: Any = build_head(found["head"], options["head"], backbone, len(CLASSES))
    with torch.no_grad():
        head.classifier.weight.zero_()
        head.classifier.bias.copy_(torch.tensor([math.log(PROBABILITIES[name]) for name in CLASSES]))
    preprocessing = Preprocessing(32, 36, backbone.info.mean, backbone.info.std)
    classifier = Classifier(backbone, head, CLASSES, preprocessing)
    components = {kind: describe_component(component, options[kind]) for kind, component in found.items()}
    path = tmp_path_factory.mktemp("bee") / "model.safetensors"
    save_classifier(path, classifier, {"components": components, **describe_classifier(classifier)})
    return path


@pytest.fixture
def bee_run(bee_model: Path, tmp_path: Path) -> Path:
    """A run folder with that model; its dataset has 4 test images of ant, 6 of bee and none of cat."""
    data = tmp_path / "insects"
    for split, counts in (("train", (4, 4, 4)), ("test", (4, 6, 0))):
        for name, count in zip(CLASSES, counts, strict=True):
            for i in range(count):
                write_image(data / split / name / f"{i}.png", i)
    run = tmp_path / "bee-run"
    run.mkdir()
    (run / "model.safetensors").write_bytes(bee_model.read_bytes())
    (run / "config.toml").write_text(
        f"recipe = 'scratch'\n[dataset]\nname = 'folder'\ndata = '{data}'\n[train]\nseed = 0\nvalidation_share = 0.25\n"
    )
    return run


@pytest.fixture
def another_run(bee_run: Path) -> Callable[..., Path]:
    """A function that makes a run on the same data whose classifier always gives these probabilities."""
    import torch

    from fgvc_cli.runs import model_file

    def make(name: str, probabilities: dict[str, float] = ANT) -> Path:
        run = Path(shutil.copytree(bee_run, bee_run.parent / name))
        state, document = model_file.load(run / "model.safetensors")
        state["head.classifier.bias"] = torch.tensor([math.log(share) for share in probabilities.values()])
        state["head.classifier.weight"] = torch.zeros(len(probabilities), state["head.classifier.weight"].shape[1])
        model_file.save(run / "model.safetensors", state, {**document, "classes": list(probabilities)})
        return run

    return make


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the current one."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def fgvc() -> Callable[..., Any]:
    """A function that runs the command line and returns its exit code, standard output and standard error."""
    from fgvc_cli.cli.app import build_app

    return lambda *arguments: CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
