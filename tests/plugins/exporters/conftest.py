"""Runs of every head on a tiny backbone, which predict by what they know of random images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SMALL: dict[str, dict[str, Any]] = {
    "pim": {"fpn_size": 16, "num_selects": 4, "joints_divisor": 4},
    "cmal": {"expert_width": 16, "map_channels": 32, "hidden_width": 16},
}
"""Options that make heads small."""

CLASSES = ("ant", "bee", "cat", "dog", "emu")


@pytest.fixture(scope="session")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that writes the model file of a head on a backbone, whose scores differ between images."""
    from fgvc_cli.contracts import Classifier, Preprocessing
    from fgvc_cli.options import build
    from fgvc_cli.registry import get_registry
    from fgvc_cli.runs import model_file
    from fgvc_cli.testing.models import spread_scores

    def make(head: str = "linear", backbone: str = "timm/test_resnet", size: int = 64, **document: Any) -> Path:
        torch.manual_seed(0)
        registry = get_registry()
        found = {"backbone": registry.find("backbone", backbone), "head": registry.find("head", head)}
        options = {k: build(c.options_type(), SMALL.get(c.name, {}), k) for k, c in found.items()}
        network = model_file.build_backbone(found["backbone"], options["backbone"], size)
        built = model_file.build_head(found["head"], options["head"], network, len(CLASSES))
        preprocessing = Preprocessing(size, size + 9, network.info.mean, network.info.std)
        classifier = spread_scores(Classifier(network, built, CLASSES, preprocessing)).eval()
        components = {k: model_file.describe_component(c, options[k]) for k, c in found.items()}
        described = {"components": components, **model_file.describe_classifier(classifier), **document}
        path = tmp_path_factory.mktemp("run") / "model.safetensors"
        model_file.save_classifier(path, classifier, described)
        return path

    return make
