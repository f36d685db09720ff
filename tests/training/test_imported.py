"""Trainings that begin from a public checkpoint, or make a run of one without training."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fgvc_cli import load
from fgvc_cli.data.images import read_image
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.training.state import Interrupted

PUBLIC_NAMES = (
    (r"^backbone\.model\.", "backbone."),
    (r"^head\.pyramid\.projections\.(\d)\.", "fpn.Proj_layer{}."),
    (r"^head\.selectors\.(\d)\.hidden\.", "fpn_classifier_layer{}.0."),
    (r"^head\.selectors\.(\d)\.norm\.", "fpn_classifier_layer{}.1."),
    (r"^head\.selectors\.(\d)\.classifier\.", "fpn_classifier_layer{}.3."),
    (r"^head\.combiner\.pool_points\.", "combiner.param_pool0."),
    (r"^head\.combiner\.pool_joints\.", "combiner.param_pool1."),
    (r"^head\.combiner\.adjacency$", "combiner.adj1"),
    (r"^head\.combiner\.alpha$", "combiner.alpha1"),
    (r"^head\.combiner\.query\.", "combiner.conv_q1."),
    (r"^head\.combiner\.key\.", "combiner.conv_k1."),
    (r"^head\.combiner\.conv\.", "combiner.conv1."),
    (r"^head\.combiner\.norm\.", "combiner.batch_norm1."),
    (r"^head\.combiner\.classifier\.", "combiner.classifier."),
)
"""Names in our model file, and in PIM's public checkpoints (whose maps count from 1)."""


PIM = {"head": "pim", "recipe": "finetune"}


def as_public(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a run's tensors, and lay them out, as the public code has them."""
    public = {}
    for name, value in state.items():
        pattern, theirs = next(pair for pair in PUBLIC_NAMES if re.match(pair[0], name))
        found = re.match(pattern, name)
        prefix = theirs.format(*(int(number) + 1 for number in found.groups()))
        public[prefix + name[found.end() :]] = value
    for name, value in public.items():
        if name.endswith("weight") and value.ndim == 2 and name.startswith("fpn"):
            public[name] = value[..., None, None] if "Proj" in name else value[..., None]
    return public


@pytest.fixture(scope="module")
def source(train, tmp_path_factory):
    """A trained run."""
    return train(tmp_path_factory.mktemp("source") / "run", epochs=1, **PIM).run


@pytest.fixture(scope="module")
def public(source, tmp_path_factory) -> Path:
    """Its classifier as PIM's public code would have saved it."""
    file = tmp_path_factory.mktemp("public") / "best.pt"
    torch.save({"model": as_public(load_file(source.model_file)), "optimizer": {"state": {}}, "epoch": 4}, file)
    return file


def test_no_epochs_make_a_run_of_the_file(train, resume, interrupt_at, photos, tmp_path, monkeypatch, source, public):
    monkeypatch.chdir(public.parent)
    outcome = train(tmp_path / "run", weights="best.pt", epochs=0, **PIM)
    run, summary = outcome.run, outcome.summary
    ours, theirs = load_file(run.model_file), load_file(source.model_file)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    for figure in ("top1", "loss"):
        assert getattr(summary.test, figure) == pytest.approx(getattr(source.summary.test, figure))
    assert (summary.epochs, summary.train, summary.val, summary.images_per_second) == (0, None, None, None)
    assert "head pim: 71 of 71 entries from the file. backbone timm/test_resnet: " in summary.weights
    assert tomllib.loads(run.config_file.read_text())["train"]["weights"] == str(public)
    pixels = torch.stack(
        [load(run.path).preprocessing(read_image(p)) for p in sorted((photos / "test").rglob("*.png"))]
    )
    assert torch.equal(load(run.path).probabilities(pixels), load(source.path).probabilities(pixels))
    with pytest.raises(FgvcError, match="the run is finished"):
        resume(run.path)


def test_such_a_run_is_evaluated_and_predicts(train, resume, interrupt_at, photos, tmp_path, public):
    from typer.testing import CliRunner

    from fgvc_cli.cli.app import build_app

    def fgvc(*arguments):
        return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])

    given = ["--set", "head.fpn_size=16", "--set", "head.num_selects=8", "--image-size", 32, "--device", "cpu"]
    made = fgvc(
        "train", "--backbone", "timm/test_resnet", "--head", "pim", *given, "--data", photos, "--weights", public,
        "--epochs", 0, "--out", tmp_path / "run",
    )  # fmt: skip
    assert made.exit_code == 0, made.stderr
    assert "head pim: 71 of 71 entries from the file" in made.stderr
    assert "rate never falls" not in made.stderr and "(not trained here)" in made.stdout
    evaluated = fgvc("evaluate", tmp_path / "run", "--device", "cpu", "--json")
    assert evaluated.exit_code == 0, evaluated.stderr
    assert (
        json.loads(evaluated.stdout)["top1"] == json.loads((tmp_path / "run/summary.json").read_text())["test"]["top1"]
    )
    sample = next((photos / "test").rglob("*.png"))
    assert fgvc("predict", sample, "--run", tmp_path / "run", "--device", "cpu").exit_code == 0


def test_no_epochs_without_a_file_make_nothing(train, tmp_path):
    with pytest.raises(UsageError, match="`epochs=0`"):
        train(tmp_path / "run", weights="none", epochs=0)
    assert not (tmp_path / "run").exists()


def test_a_training_begins_from_the_file_and_resume_does_not_load_it_again(
    train, resume, interrupt_at, photos, tmp_path, source, public
):
    moved = tmp_path / "best.pt"
    moved.write_bytes(public.read_bytes())
    with pytest.raises(Interrupted):
        train(tmp_path / "run", interrupt_at(1), weights=moved, epochs=1, **PIM)
    state = load_file(tmp_path / "run/last/state.safetensors")
    begun = load_file(source.model_file)
    entry = "head.combiner.conv.weight"  # one small update away from the file, and far from random
    assert (state[f"model.{entry}"] - begun[entry]).abs().max() < 0.1 * begun[entry].std()
    moved.unlink()
    run = resume(tmp_path / "run")
    assert run.summary.epochs == 1 and "71 of 71 entries" in run.summary.weights


def test_with_another_head_the_backbone_alone_is_loaded(train, resume, interrupt_at, photos, tmp_path, source, public):
    run = train(tmp_path / "run", weights=public, epochs=0).run
    ours, theirs = load_file(run.model_file), load_file(source.model_file)
    shared = [name for name in ours if name.startswith("backbone.")]
    assert shared and all(torch.equal(ours[name], theirs[name]) for name in shared)
    said = run.summary.weights
    assert "71 entries of the file do not belong to head linear and are not used" in said
    assert "head linear has random weights and is not trained" in said
    assert "random weights" not in train(tmp_path / "own", weights=source.path, epochs=0, **PIM).run.summary.weights
