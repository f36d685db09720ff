"""ONNX files: what they say of themselves, precision, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import fgvc_cli as fgvc
from fgvc_cli.contracts import ExportJob
from fgvc_exporters.onnx_file import OnnxExporter
from fgvc_exporters.options import OnnxOptions

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

CLASSES = ("ant", "bee", "cat", "dog", "emu")
CALIBRATION = {"temperature": 1.5, "images": 9, "dataset": {"name": "folder", "data": "/home/me/x"}, "split": "val"}
TAXONOMY = {"levels": ["class", "order"], "ancestors": {name: ["animal"] for name in CLASSES}}


class Eigenvalues(nn.Module):
    def forward(self, images):
        return torch.linalg.eigvals(images[:, 0, :4, :4]).real


class Branching(nn.Module):
    def forward(self, images):
        return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))


class Network(nn.Module):
    """A network with a layer under a name; weights either in convolutions or in linear layers."""

    def __init__(self, odd: nn.Module, stem: nn.Module | None = None) -> None:
        super().__init__()
        self.stem, self.odd = stem or nn.Conv2d(3, 4, 3), odd

    def forward(self, images):
        return self.odd(self.stem(images))


def job(network: nn.Module, path, precision: str = "fp32", representative: bool = True) -> ExportJob:
    return ExportJob(network.eval(), torch.randn(8, 3, 16, 16), representative, path, precision, {"classes": ["ant"]})  # type: ignore[arg-type]


def operators(path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize(("odd", "kind"), [(Eigenvalues(), "Eigenvalues"), (Branching(), "Branching")])
def test_layer_that_cannot_be_exported_is_named(odd, kind, tmp_path, capfd):
    with pytest.raises(fgvc.FgvcError) as raised:
        OnnxExporter(OnnxOptions()).export(job(Network(odd), tmp_path / "m.onnx"))
    assert f"odd ({kind})" in str(raised.value) and "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "") and not (tmp_path / "m.onnx").exists()


def test_unknown_opset_is_refused(tmp_path):
    network = Network(nn.Flatten(), nn.Conv2d(3, 4, 16))
    with pytest.raises(fgvc.UsageError, match="exporter.opset=99"):
        OnnxExporter(OnnxOptions(opset=99)).export(job(network, tmp_path / "m.onnx"))


def test_quantization_by_the_kind_of_network(tmp_path):
    convolutional = Network(nn.Flatten(), nn.Conv2d(3, 4, 16))
    linear = Network(nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), nn.Identity())
    exporter = OnnxExporter(OnnxOptions())
    (note,) = exporter.export(job(convolutional, tmp_path / "c.onnx", "int8"))
    assert "measured on 8 images" in note and "QuantizeLinear" in operators(tmp_path / "c.onnx")
    exporter.export(job(linear, tmp_path / "l.onnx", "int8", representative=False))
    assert "DynamicQuantizeLinear" in operators(tmp_path / "l.onnx")
    with pytest.raises(fgvc.UsageError, match="photographs of the classes, and there are none; name some with `data`"):
        exporter.export(job(convolutional, tmp_path / "c.onnx", "int8", representative=False))


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(fgvc.FgvcError, match=r'onnxruntime\): pip install "fgvc-cli\[export\]"'):
        OnnxExporter(OnnxOptions())


@pytest.fixture(scope="module")
def exported(model_of, tmp_path_factory) -> Path:
    """An exported run with a calibration and a taxonomy."""
    pytest.importorskip("onnxscript")
    file = tmp_path_factory.mktemp("exported") / "m.onnx"
    described = {"calibration": CALIBRATION, "taxonomy": TAXONOMY, "data": {"classes": []}, "weights": "from scratch"}
    fgvc.export(model_of(**described), out=file, images=2)
    return file


def test_description(exported):
    (entry,) = [entry for entry in onnx.load(exported).metadata_props if entry.key == "fgvc"]
    document = json.loads(entry.value)
    assert document["classes"] == list(CLASSES) and document["taxonomy"] == TAXONOMY
    assert document["preprocessing"]["image_size"] == 64 and document["weights"] == "from scratch"
    assert document["export"]["precision"] == "fp32" and document["export"]["opset"] == 18
    assert document["calibration"]["temperature"] == 1.5
    assert "/home/me" not in entry.value and "data" not in document  # where the training images are stays behind


def predict(file: Path) -> None:
    classifier = fgvc.load(file)
    size = classifier.preprocessing.image_size
    classifier.probabilities(torch.zeros(1, 3, size, size, dtype=torch.uint8))


def test_damaged_foreign_and_mismatched_files(exported, tmp_path):
    whole = exported.read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(fgvc.FgvcError, match=r"half.onnx cannot be opened by ONNX Runtime"):
        fgvc.load(tmp_path / "half.onnx")
    model = onnx.load(exported)
    document = json.loads(model.metadata_props[-1].value)
    steps = document["preprocessing"]
    changes = {
        "was not exported by fgvc": None,
        "metadata is not JSON": "{",
        "invalid at preprocessing.image_size": {**document, "preprocessing": {**steps, "image_size": -1}},
        "metadata lacks 'preprocessing'": {k: v for k, v in document.items() if k != "preprocessing"},
        "another version": {**document, "format": 9},
        "invalid at taxonomy": {**document, "taxonomy": {}},
        "returns scores of shape": {name: document[name] for name in document if name != "taxonomy"}
        | {"classes": ["ant"]},
        "cannot be run": {**document, "preprocessing": {**steps, "image_size": 32}},
    }
    for message, changed in changes.items():
        del model.metadata_props[:]
        if changed is not None:
            onnx.helper.set_model_props(model, {"fgvc": changed if isinstance(changed, str) else json.dumps(changed)})
        onnx.save_model(model, tmp_path / "changed.onnx")
        with pytest.raises(fgvc.FgvcError, match=message) as raised:
            predict(tmp_path / "changed.onnx")
        assert "\n" not in str(raised.value)
