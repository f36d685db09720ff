"""The scripts in `benchmarks/`: the shared harness, and that the scripts run and check themselves."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from fgvc_cli.benchmarking.combinations import BenchRequest, plan
from fgvc_cli.registry import get_registry

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def harness() -> ModuleType:
    spec = importlib.util.spec_from_file_location("harness", BENCHMARKS / "harness.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_variants_take_turns_after_a_warm_up_round(harness):
    calls = []
    variants = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = harness.medians(variants, 2, torch.device("cpu"))
    assert calls == ["a", "b"] * 3
    assert list(seconds) == ["a", "b"] and all(median >= 0 for median in seconds.values())


def test_relative_distance(harness):
    ours, theirs = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    start = {"weight": torch.tensor([[1.0, 1.0]])}
    ours.weight.data, theirs.weight.data = torch.tensor([[3.0, 1.0]]), torch.tensor([[3.0, 0.5]])
    assert harness.relative_distance(ours, theirs, start) == 0.25


def test_results_are_saved_with_machine_and_options(harness, tmp_path, capsys):
    file = tmp_path / "new" / "figures.json"
    harness.report(argparse.Namespace(json=file, rounds=3), torch.device("cpu"), {"ratio": 2.0})
    document = json.loads(file.read_text())
    assert document["figures"] == {"ratio": 2.0} and document["options"]["rounds"] == 3
    assert document["machine"]["torch"] in capsys.readouterr().out


class TensorOperations(TorchDispatchMode):
    """Counts operations on more than scalars, with the sizes of their inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[tuple] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        leaves = pytree.tree_leaves((args, kwargs, result))
        sizes = [leaf.numel() for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.numel() > 1]
        aliases = [returned.alias_info for returned in func._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in aliases)
        if sizes and not is_view:
            self.seen[func, *sizes] += 1
        return result


def test_an_update_has_the_operations_of_a_bare_loop(monkeypatch):
    """Except on scalars, so it can be as fast on any device. (The order may differ.)"""
    monkeypatch.syspath_prepend(BENCHMARKS)
    bare_loop = importlib.import_module("bare_loop")
    request = BenchRequest(("timm/test_resnet",), ("linear",), ("sgd",), image_size=32, batch_size=4, device="cpu")
    config = plan(request, get_registry()).combinations[0].config
    seen = []
    for make in (bare_loop.bare_update, bare_loop.our_update):
        classifier = bare_loop.RandomClassifier(config, 7, torch.device("cpu"))
        update = make(classifier, config, *classifier.batches(config, 4)[0])
        update()  # creates the optimizer's state
        with TensorOperations() as operations:
            update()
        seen.append(operations.seen)
    assert seen[0] == seen[1] and sum(seen[0].values()) > 50


def figures_of(script: str, tmp_path: Path, *options: str) -> dict:
    command = [sys.executable, str(BENCHMARKS / script), "--json", str(tmp_path / "x.json"), "--device", "cpu"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((tmp_path / "x.json").read_text())["figures"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_pim_per_sample(tmp_path, precision):
    maps = ["--points", "49", "16", "--keeps", "30", "2", "--width", "16", "--classes", "7"]
    options = ["--batch-size", "3", "--rounds", "1", "--precision", precision]
    figures = figures_of("pim_per_sample.py", tmp_path, *maps, *options)
    assert figures["gradient_difference"] < 1e-12
    counts = figures["counts"]
    assert counts["ours, without layers"]["operations"] < counts["image by image, without layers"]["operations"]


@pytest.mark.slow
def test_bare_loop(tmp_path):
    figures = figures_of("bare_loop.py", tmp_path, "--backbone", "timm/test_resnet", "--rounds", "1")
    assert figures["timm/test_resnet"]["relative_distance"] < 1e-5
    assert figures["timm/test_resnet"]["ratio"] > 0


@pytest.mark.slow
def test_predict_folder(tmp_path):
    options = ["--backbone", "timm/test_resnet", "--image-size", "32", "--images", "24", "--rounds", "1"]
    assert figures_of("predict_folder.py", tmp_path, *options)["ratio"] > 0


@pytest.mark.slow
def test_serve_clients(tmp_path):
    pytest.importorskip("uvicorn")
    options = ["--backbone", "timm/test_resnet", "--image-size", "32", "--images", "16", "--rounds", "1"]
    assert figures_of("serve_clients.py", tmp_path, *options)["ratio"] > 0


@pytest.mark.slow
def test_predict_and_explain_keep_no_images(tmp_path):
    peak = figures_of("predict_folder.py", tmp_path, "--memory", "20", "600")["peak_bytes"]
    assert set(peak) == {"predict", "explain"}
    assert all(found["600"] < 1.1 * found["20"] for found in peak.values())


@pytest.mark.slow
def test_pointing_game(tmp_path):
    figures = figures_of("pointing_game.py", tmp_path, "--seeds", "1", "--steps", "2", "--images", "20")
    assert {"swin", "vit", "vit, averaged", "resnet", "resnet, cmal"} <= set(figures)
    for (row,) in figures.values():
        assert all(0 <= each["pointing"] <= 1 for each in row["explainers"].values())
        assert {"gradcam", "sliding_window", "random"} <= set(row["explainers"])
    assert "native" in figures["resnet, cmal"][0]["explainers"]


@pytest.mark.slow
def test_backbone_table(tmp_path):
    kept, page = tmp_path / "rows.json", tmp_path / "page.md"
    page.write_text("Text\n\n")
    options = ["--models", "test_resnet", "test_vit", "--json", kept, "--table", page]
    subprocess.run([sys.executable, str(BENCHMARKS / "backbone_table.py"), *options], check=True)
    rows = json.loads(kept.read_text())
    assert rows["test_resnet"]["between"] == "nothing" and rows["test_vit"]["between"] == "a norm"
    assert rows["test_vit"]["gradients"] == "zero at 36 of 37"  # the classifier reads the class token alone
    assert all(set(row["steps"].values()) == {"yes"} for row in rows.values())
    lines = page.read_text().splitlines()
    assert lines[0] == "Text" and len(lines) == 6


@pytest.mark.slow
def test_sam_package(tmp_path):
    pytest.importorskip("pytorch_optimizer")
    options = ["--backbone", "timm/test_resnet", "--batch-size", "4", "--rounds", "1"]
    assert figures_of("sam_package.py", tmp_path, *options)["relative_distance"] < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("head", ["linear", "pim", "cmal"])
def test_kept_features(tmp_path, head):
    options = ["--backbone", "timm/test_resnet", "--head", head, "--image-size", "64", "--batches", "2"]
    seconds = figures_of("kept_features.py", tmp_path, *options, "--batch-size", "4", "--rounds", "1")["seconds"]
    assert set(seconds) == {"whole network", "frozen backbone", "kept features"}


@pytest.fixture
def best_of_scores(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("best_of_scores")


def test_the_best_of_equally_good_scores_gains_what_order_statistics_say(best_of_scores):
    of_ten_normals = 1.5388
    gain = best_of_scores.gain_on_noise(2000, 0.5, 10, 0.0, 60)
    assert gain == pytest.approx(100 * of_ten_normals * (0.25 / 2000) ** 0.5, rel=0.15)
    assert best_of_scores.gain_on_noise(2000, 0.5, 1, 0.0, 3) == pytest.approx(0, abs=1e-6)
    assert best_of_scores.gain_on_noise(2000, 0.5, 10, 1.0, 3) == pytest.approx(0, abs=1e-6)
    assert best_of_scores.latent_correlation(1 / 3, 0.5) == pytest.approx(0.5, abs=1e-3)  # 2/pi * asin(r)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_best_of_scores(tmp_path):
    figures = figures_of("best_of_scores.py", tmp_path, "--seeds", "0", "--epochs", "2", "--trials", "1")
    for (row,) in figures["rules"].values():
        assert row["by validation"] <= row["best of all"] <= 100


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_machine_spread(tmp_path):
    options = ["--variants", "again", "bf16", "instructions default", "2 threads", "--seeds", "2", "--repeats", "1"]
    compared = figures_of("machine_spread.py", tmp_path, *options, "--epochs", "2")["compared"]
    assert compared["again"]["max"] == compared["again"]["changed"] == 0 < compared["another seed"]["changed"]
    assert set(compared) == {"another seed", "again", "bf16", "instructions default", "2 threads"}
