"""`fgvc export`, and the other commands on an exported file."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run on photographs of two classes, exported."""
    from typer.testing import CliRunner

    from fgvc_cli.cli.app import build_app

    root, rng = tmp_path_factory.mktemp("exported"), np.random.default_rng(0)
    for split, count in {"train": 4, "val": 3, "test": 3}.items():
        for label, color in {"ophrys": (200, 40, 60), "orchis": (60, 180, 50)}.items():
            for i in range(count):
                file = root / "photos" / split / label / f"{i}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.kron(rng.integers(-60, 60, (9, 7, 3)), np.ones((41, 43, 1)))
                Image.fromarray(np.clip(np.array(color) + pixels, 0, 255).astype(np.uint8)).save(file)
    given = ["--backbone", "timm/test_resnet", "--weights", "none", "--image-size", 32, "--epochs", 2, "--lr", 0.02]
    given += ["--data", root / "photos", "--device", "cpu", "--workers", 0, "--batch-size", 4, "--out", root / "run"]
    for command in (["train", *given], ["export", root / "run", "--images", 4]):
        result = CliRunner().invoke(build_app(), [str(word) for word in command])
        assert result.exit_code == 0, result.stderr
    return root / "run"


def predicted(fgvc, model: Path, photos: Path) -> list[dict[str, str]]:
    result = fgvc("predict", photos, "--run", model, "--csv")
    assert result.exit_code == 0, result.stderr
    return list(csv.DictReader(io.StringIO(result.stdout)))


def test_predict_evaluate_and_the_script_agree_with_the_run(run, fgvc):
    """JPEGs of 301 x 369 px, which decoders reduce; the script runs without fgvc."""
    model, photos = run / "export" / "model.onnx", run.parent / "photos" / "test"
    expected = predicted(fgvc, run, photos)
    assert {row["class_1"] for row in expected} == {"ophrys", "orchis"}
    files = [row["image"] for row in expected]
    script = [sys.executable, "-c", WITHOUT_FGVC, run / "export" / "predict_model_onnx.py", *files]
    printed = subprocess.run(script, capture_output=True, text=True, check=True).stdout.splitlines()
    lines = iter(line.split("\t") for line in printed)
    for row, found in zip(expected, predicted(fgvc, model, photos), strict=True):
        best, other = next(lines), next(lines)
        assert [found["class_1"], best[1]] == [row["class_1"]] * 2 and best[0] == row["image"] != other[1]
        for probability in (found["probability_1"], best[2]):
            assert float(probability) == pytest.approx(float(row["probability_1"]), abs=1e-4)
    summaries = [json.loads(fgvc("evaluate", of, "--json").stdout) for of in (run, model)]
    for name in ("images", "top1", "split", "preprocessing", "most_confused"):
        assert summaries[0][name] == summaries[1][name], name
    assert (run / "export" / "evaluation" / "model.onnx" / "test" / "predictions.csv").is_file()


WITHOUT_FGVC = """
import runpy, sys
for name in ("fgvc_cli", "torch", "torchvision", "timm"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Run a script where fgvc and torch cannot be imported."""


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (["explain", "PHOTOS", "--run", "MODEL"], 2, "is an exported model, which computes scores and nothing else"),
        (["embed", "PHOTOS", "--run", "MODEL", "--out", "e.npz"], 2, "is an exported model"),
        (["evaluate", "MODEL", "--sharpness"], 2, "is an exported model"),
        (["predict", "PHOTOS", "--run", "MODEL", "--tta", "sizes"], 2, "is exported for images of 32 px"),
        (["predict", "PHOTOS", "--run", "MODEL", "--precision", "bf16"], 2, "precision was chosen by"),
        (["export", "RUN"], 2, "model.onnx already exists; choose another file with --out, or replace it with --force"),
        (["export", "RUN", "--precision", "int4"], 2, "--precision int4: exporter onnx writes fp32, fp16, int8"),
        (["export", "RUN", "--format", "torch", "--precision", "int8"], 2, "exporter torch writes fp32"),
        (["export", "RUN", "--format", "onix"], 2, "Did you mean 'onnx'"),
        (["export", "RUN", "--out", "m.foo"], 2, "no exporter writes .foo files; known are .onnx (onnx)"),
        (["export", "RUN", "--out", "m.onnx", "--set", "exporter.opst=9"], 2, "Did you mean 'opset'"),
        (["export", "RUN", "--out", "m.onnx", "--data", "nowhere"], 1, "nowhere"),
        (["export", "MODEL", "--out", "m.onnx"], 2, "is an exported model"),
    ],
)
def test_refusals(command, code, message, run, fgvc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = {"RUN": run, "MODEL": run / "export" / "model.onnx", "PHOTOS": run.parent / "photos" / "test"}
    result = fgvc(*(words.get(word, word) for word in command))
    (line,) = [line for line in result.stderr.splitlines() if "error" in line]
    assert (result.exit_code, message in line) == (code, True), result.stderr
    assert list(tmp_path.iterdir()) == []


def test_file_that_computes_something_else_is_not_left_behind(run, fgvc, tmp_path, monkeypatch):
    from fgvc_exporters.torch_program import TorchExporter

    opened = TorchExporter.open

    def shifted(self, path):
        model = opened(self, path)
        return type(model)(model.document, lambda images: model.scores(images).flip(1))

    monkeypatch.setattr(TorchExporter, "open", shifted)
    shutil.copytree(run.parent / "run", tmp_path / "alone", ignore=shutil.ignore_patterns("config.toml"))
    result = fgvc("export", tmp_path / "alone", "--out", tmp_path / "m.pt2", "--images", 4)
    assert result.exit_code == 1 and "m.pt2 is not written" in result.stderr and "random noise" in result.stderr
    assert "checking with random images" in result.stderr
    assert not list(tmp_path.glob("*.p*"))


def test_check_sees_what_saturated_probabilities_hide():
    """Halved scores of a network that is always sure have the same probabilities."""
    from types import SimpleNamespace

    import torch

    from fgvc_cli.contracts import ExportedModel
    from fgvc_cli.evaluation.export import TOLERANCES, CheckImages, compare

    images = torch.randn(5, 3, 2, 2)
    sure = SimpleNamespace(scores=lambda batch: 1e4 * batch.mean(dim=(2, 3)))
    for factor, offset, passed in ((1.0, 3.0, True), (0.5, 0.0, False)):
        model = ExportedModel(None, lambda batch, a=factor, b=offset: a * sure.scores(batch) + b)
        check = compare(sure, model, CheckImages(images, images, "", True), TOLERANCES["fp32"])
        assert check.passed == passed and check.same_class == 1 and check.largest_difference < 1e-6
        assert check.score_error == pytest.approx(1 - factor, abs=1e-6)
