"""Runs of heads that are fitted to features: what they write, what is refused, and that an interrupted one resumes."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fgvc_cli as fgvc
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.runs.folder import Run
from fgvc_cli.scoring import features
from fgvc_cli.training.state import Interrupted

HEADS: dict[str, dict[str, Any]] = {"probe": {}, "prototypes": {}, "knn": {"head.k": 5}}


def fit(photos: Path, out: Path, head: str = "probe", **options: Any) -> Run:
    settings = {**HEADS[head], **options.pop("settings", {})}
    return fgvc.train(
        data=photos, out=out, head=head, backbone="timm/test_resnet", image_size=64, device="cpu", settings=settings,
        **{"weights": "none", **options},
    )  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_a_fitted_head_gives_an_ordinary_run(photos: Path, tmp_path: Path, head: str) -> None:
    run = fit(photos, tmp_path / "run", head)
    summary = run.summary
    assert (summary.epochs, summary.train.images, summary.val.images, summary.test.images) == (1, 27, 6, 12)
    assert summary.test.top1 >= 0.9 and len(run.metrics) == 1 and run.metrics[0].rates == {}
    assert summary.parameters["trained"] == summary.parameters["head"]
    assert run.config["recipe"] == "probe" and run.config["train"]["epochs"] == 1
    assert fgvc.evaluate(run, "val").top1 == summary.val.top1
    assert fgvc.evaluate(run, "val").loss == pytest.approx(summary.val.loss, abs=1e-4)
    image = photos / "test" / "red" / "0.png"
    assert fgvc.load(run).predict(image).classes[0][0] == "red"
    assert fgvc.explain(run, image).heat_map.shape == (64, 64)
    with pytest.raises(FgvcError, match="finished"):
        fgvc.train(resume=run)


def test_an_interrupted_fit_resumes_with_the_features_it_has(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, calls = features.FrozenBackbone.__call__, []

    def interrupted(self: Any, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return compute(self, *arguments)

    monkeypatch.setattr(features.FrozenBackbone, "__call__", interrupted)
    with pytest.raises(Interrupted):
        fit(photos, tmp_path / "run", batch_size=4)
    run = fgvc.train(resume=tmp_path / "run")
    assert len(calls) == 9  # 27 and 6 images: none twice
    whole = fit(photos, tmp_path / "whole", batch_size=4)
    state, expected = fgvc.load(run).state_dict(), fgvc.load(whole).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in state.items())


def test_random_weights_are_warned_of_and_impossible_options_refused(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "fgvc_cli"), pytest.raises(UsageError, match=r"k=28.*27"):
        fit(photos, tmp_path / "run", "knn", settings={"head.k": 28})
    assert "random weights" in caplog.text and "does not use" not in caplog.text
    with caplog.at_level(logging.INFO, "fgvc_cli"):
        fit(photos, tmp_path / "unused", epochs=5, settings={"train.ema": 0.9, "augment.flip": 0.5})
    assert "does not use `train.epochs=5`, `train.ema=0.9`, `augment.flip=0.5`" in caplog.text


def test_the_metrics_of_a_fit_are_those_of_an_evaluation(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 40, 40, 3), np.uint8)
    for split, images in zip(("train", "val"), pixels, strict=True):
        for name, image in zip("abcdefgh", images, strict=True):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            Image.fromarray(image).save(tmp_path / "data" / split / name / "0.png")
    run = fit(tmp_path / "data", tmp_path / "run", "knn", settings={"head.k": 1})
    metrics = fgvc.evaluate(run, "val")  # seven classes without a vote tie
    assert (run.summary.val.top1, run.summary.val.top5) == (metrics.top1, metrics.top5)
    assert metrics.top5 < 1


def test_a_file_of_a_fitted_head_gives_its_images_too(photos: Path, tmp_path: Path) -> None:
    run = fit(photos, tmp_path / "run", "knn")
    again = fit(photos, tmp_path / "again", "knn", weights=run, epochs=0)
    assert again.summary.test == run.summary.test
    ours, theirs = fgvc.load(again).state_dict(), fgvc.load(run).state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_finished_fit_is_not_made_longer(photos: Path, tmp_path: Path) -> None:
    run = fit(photos, tmp_path / "run", "prototypes")
    with pytest.raises(FgvcError, match="is finished") as refused:
        fgvc.train(resume=run)
    assert "epochs" not in str(refused.value)


@pytest.mark.parametrize("head", [*HEADS, "linear"])
def test_features_that_are_not_finite_are_named(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    compute = features.FrozenBackbone.__call__

    def broken(self: Any, *arguments: Any) -> Any:
        found = compute(self, *arguments)
        with torch.inference_mode():
            found.embedding[0, 0] = float("nan")
        return found

    monkeypatch.setattr(features.FrozenBackbone, "__call__", broken)
    probe = {"settings": {"train.head_init": "probe"}, "epochs": 1} if head == "linear" else {}
    monkeypatch.setitem(HEADS, "linear", {})
    with pytest.raises(FgvcError, match=r"features of \d+ of 27 images in train are NaN or infinite, such as those of"):
        fit(photos, tmp_path / "run", head, **probe)


def test_a_fitted_head_takes_batches_of_one_image(photos: Path, tmp_path: Path) -> None:
    assert fit(photos, tmp_path / "run", batch_size=1).summary.test.top1 >= 0.9
