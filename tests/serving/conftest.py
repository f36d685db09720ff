"""A run of random weights with a calibration and groups of classes, photographs, and a client of its application."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

CLASSES = ("ant", "bee", "cat", "dog")
GROUPS = {"ant": ["insect"], "bee": ["insect"], "cat": ["mammal"], "dog": ["mammal"]}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from fgvc_cli.contracts import Classifier, Preprocessing
    from fgvc_cli.options import build
    from fgvc_cli.registry import get_registry
    from fgvc_cli.runs import model_file
    from fgvc_cli.scoring.calibration.stored import Calibration, PrecisionRule, SetRule

    registry = get_registry()
    found = {kind: registry.find(kind, name) for kind, name in (("backbone", "timm/test_resnet"), ("head", "linear"))}
    options: dict[str, Any] = {kind: build(component.options_type(), {}, kind) for kind, component in found.items()}
    torch.manual_seed(0)
    backbone = model_file.build_backbone(found["backbone"], options["backbone"], 32)
    head: Any = model_file.build_head(found["head"], options["head"], backbone, len(CLASSES))
    with torch.no_grad():
        head.classifier.weight.mul_(20)
    classifier = Classifier(backbone, head, CLASSES, Preprocessing(32, 36, backbone.info.mean, backbone.info.std))
    path = tmp_path_factory.mktemp("served") / "insects" / "model.safetensors"
    path.parent.mkdir()
    components = {kind: model_file.describe_component(component, options[kind]) for kind, component in found.items()}
    document = {"components": components, **model_file.describe_classifier(classifier)}
    document["taxonomy"] = {"levels": ["species", "kind"], "ancestors": GROUPS}
    model_file.save_classifier(path, classifier, document)
    calibration = Calibration(
        1.5, 40, {"name": "folder", "data": None}, "val",
        precision=PrecisionRule(0.9, 0.95, 0.4, 0.5), sets=SetRule(0.9, [0.2]),
    )  # fmt: skip
    model_file.save_calibration(path, calibration.as_json(), {})
    return path.parent


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two PNGs and four JPEGs so large that they are decoded at a reduced size, one of them rotated by EXIF."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    files = []
    for number in range(6):
        pixels = np.kron(rng.integers(0, 256, (6, 8, 3)), np.ones((40, 40, 1))).astype(np.uint8)
        file = folder / f"{number}.{'png' if number > 3 else 'jpg'}"
        image = Image.fromarray(pixels)
        exif = image.getexif()
        exif[0x0112] = 6 if number == 1 else 1
        image.save(file, exif=exif)
        files.append(file)
    return files


@pytest.fixture
def client(run: Path) -> Callable[..., Any]:
    """A function that returns a client of an application, with some of its limits changed."""
    from starlette.testclient import TestClient

    from fgvc_cli.scoring.model import InferenceSettings
    from fgvc_cli.serving.app import build_app
    from fgvc_cli.serving.limits import Limits
    from fgvc_cli.serving.model import ServedModel

    def make(**limits: Any) -> Any:
        inference = InferenceSettings("cpu", calibrated=True)
        model = ServedModel(run / "model.safetensors", inference, limits=Limits(**limits))
        return TestClient(build_app(model), base_url="http://localhost")

    return make
