"""Exported classifiers compute what their runs compute: every head, every named backbone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import fgvc_cli as fgvc
from fgvc_cli.contracts import ExportJob
from fgvc_cli.evaluation.export import Scores
from fgvc_cli.options import build
from fgvc_cli.registry import get_registry
from fgvc_cli.testing.models import classifier_of, spread_scores
from fgvc_cli.testing.tiny import CLASSES, TinyConvolutional
from fgvc_exporters.onnx_file import OnnxExporter
from fgvc_exporters.options import OnnxOptions

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

HEADS = [component.name for component in get_registry().components("head") if component.builtin]
BACKBONES = [component.name for component in get_registry().components("backbone") if component.builtin]
SMALL: dict[str, dict[str, Any]] = {
    "pim": {"fpn_size": 16, "num_selects": 4, "joints_divisor": 4},
    "cmal": {"expert_width": 8, "map_channels": 16, "hidden_width": 8},
}
"""Options that make heads small."""


def blobs(count: int, size: int) -> torch.Tensor:
    """Images of a few blurred spots, which differ more than noise does."""
    return F.interpolate(3 * torch.randn(count, 3, 4, 4), (size, size), mode="bilinear")


QUICK = ("linear",)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in HEADS])
def test_head(name, tmp_path):
    """The second look of `cmal` and the selection of `pim` are in the graph, for any number of images."""
    torch.manual_seed(0)
    head = get_registry().find("head", name)
    options: Any = build(head.options_type(), SMALL.get(name, {}), "head")
    classifier = classifier_of(
        TinyConvolutional(), lambda info: head.make(backbone=info, classes=CLASSES, options=options)
    )
    network, size = Scores(spread_scores(classifier)).eval(), TinyConvolutional().info.image_size
    exporter = OnnxExporter(OnnxOptions(opset=20))
    exporter.export(ExportJob(network, blobs(2, size), False, tmp_path / "m.onnx", "fp32", {}))
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == 20
    exported = exporter.open(tmp_path / "m.onnx")
    for count in (1, 5):
        images = blobs(count, size)
        with torch.no_grad():
            expected = network(images)
        torch.testing.assert_close(exported.scores(images), expected, rtol=1e-4, atol=1e-5)
    assert expected.std(dim=0).max() > 1e-3  # the scores depend on the images


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", ["linear", "pim", "cmal"])
def test_named_backbone(backbone, head, model_of, tmp_path):
    model = model_of(head, backbone, 224 if "vit" in backbone else 64)
    assert fgvc.export(model, out=tmp_path / "model.onnx", images=2).check.largest_difference < 1e-3
