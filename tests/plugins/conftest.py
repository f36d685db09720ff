"""Classifiers made of built-in components."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from fgvc_cli.contracts import Classifier, Preprocessing
from fgvc_cli.options import build
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.model_file import build_backbone, build_head


@pytest.fixture(scope="session")
def classifier_of() -> Callable[..., Classifier]:
    """A function that makes one of a backbone and a head, by name; its weights are the same each time."""

    def make(
        backbone_name: str,
        head_name: str,
        size: int,
        classes: int,
        head_options: Mapping[str, Any] | None = None,
        backbone_options: Mapping[str, Any] | None = None,
    ) -> Classifier:
        torch.manual_seed(0)
        registry = get_registry()
        component = registry.find("backbone", backbone_name)
        backbone = build_backbone(component, build(component.options_type(), backbone_options or {}, "backbone"), size)
        component = registry.find("head", head_name)
        head = build_head(component, build(component.options_type(), head_options or {}, "head"), backbone, classes)
        preprocessing = Preprocessing(size, size, backbone.info.mean, backbone.info.std)
        return Classifier(backbone, head, [str(k) for k in range(classes)], preprocessing)

    return make
