"""Calibrated runs of every head: what the model file keeps, and how predictions and evaluations use it."""

from __future__ import annotations

import csv
import logging
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

import fgvc_cli as fgvc
from fgvc_cli.runs import model_file
from fgvc_cli.scoring.calibration.stored import Calibration
from fgvc_cli.scoring.calibration.temperature import softmax
from fgvc_cli.scoring.model import InferenceSettings, load
from fgvc_cli.scoring.results import EvaluationSummary

HEADS = {
    "linear": {},
    "pim": {"fpn_size": 16, "num_selects": 8},
    "cmal": {"expert_width": 16, "map_channels": 32, "hidden_width": 16},
    "probe": {},
    "knn": {"k": 5},
    "prototypes": {},
}
COLORS = {"blue": (30, 60, 200), "green": (40, 190, 60), "red": (210, 50, 40)}
TEST_IMAGES = 60


def write_images(folder, names, count, seed):
    """Write images of flat colors that are mixed with those of another class, so that some are ambiguous."""
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            other = COLORS[rng.choice([each for each in COLORS if each != name])]
            share = 0.6 * rng.random()
            color = (1 - share) * np.array(COLORS.get(name, (250, 240, 30))) + share * np.array(other)
            pixels = np.clip(color + rng.integers(-60, 60, (36, 36, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("mixed")
    for seed, (split, count) in enumerate({"train": 10, "val": 14, "test": TEST_IMAGES // 3}.items()):
        write_images(root / "data" / split, COLORS, count, seed)
    write_images(root / "strangers", ["yellow"], 12, 7)
    return root


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A function that returns a run of a head, trained once and calibrated with the score "cosine"."""
    runs = {}

    def train(head):
        if head not in runs:
            fitted = head in ("probe", "knn", "prototypes")
            settings = {f"head.{name}": value for name, value in HEADS[head].items()}
            run = fgvc.train(
                backbone="timm/test_resnet", head=head, optimizer=None if fitted else "adamw", data=data / "data",
                weights="none", epochs=None if fitted else 8, batch_size=10, image_size=32, workers=0, device="cpu",
                lr=None if fitted else 3e-3, settings=settings, out=tmp_path_factory.mktemp(head) / "run",
            )  # fmt: skip
            fgvc.calibrate(run, precision=0.6, confidence=0.8, workers=0, device="cpu")
            runs[head] = run
        return runs[head]

    return train


SLOW = ("pim", "cmal")


@pytest.mark.parametrize("head", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in HEADS])
def test_every_head(trained, data, head, tmp_path) -> None:
    run = trained(head)
    found = Calibration.read(run.model_file)
    assert found.novelty.score == "cosine" and found.means.means.shape[0] == 3 and found.images == 42
    assert ("energy" in found.novelty.thresholds) == (head != "knn")  # the scores of knn are log-probabilities
    copied = shutil.copy(run.model_file, tmp_path / "copy.safetensors")
    images = sorted((data / "data/test").rglob("*.png"))
    predictions = fgvc.load(copied).predict(images)
    raw = fgvc.load(run).predict(images, calibrated=False)
    summary = fgvc.evaluate(run, unknown=data / "strangers", workers=0, device="cpu", out=tmp_path / "out")
    metrics = summary.calibrated
    for before, after in zip(raw, predictions, strict=True):
        assert before.answer is None and before.set is None
        assert after.answer == ("unknown" if after.reason else before.classes[0][0])
        logs = np.log([p for _, p in sorted(before.classes)])
        assert dict(after.classes)["blue"] == pytest.approx(softmax(logs[None] / found.temperature)[0, 0], abs=1e-4)
        assert after.set[0][0] == after.classes[0][0]
    answered = [p for p in predictions if not p.reason]
    assert metrics.answered == pytest.approx(len(answered) / TEST_IMAGES)
    right = sum(p.answer in p.image.split("/") for p in answered)
    assert metrics.precision == pytest.approx(right / len(answered))
    covered = sum(any(name in p.image.split("/") for name, _ in p.set) for p in predictions)
    assert metrics.coverage == pytest.approx(covered / TEST_IMAGES)
    assert metrics.set_size == pytest.approx(np.mean([len(p.set) for p in predictions]))
    assert binomtest(covered, TEST_IMAGES, 0.9, alternative="less").pvalue > 0.01
    assert binomtest(right, len(answered), 0.6, alternative="less").pvalue > 0.01
    assert summary.unknown.images == 12 and 0 <= summary.unknown.detection["cosine"].auroc <= 1
    read = EvaluationSummary.read(tmp_path / "out/summary.json")
    assert (read.calibrated, read.unknown) == (summary.calibrated, summary.unknown)
    with (tmp_path / "out/answers.csv").open() as file:
        rows = {row["key"]: row for row in csv.DictReader(file)}
    keyed = {"/".join(p.image.split("/")[-2:]): p for p in predictions}
    assert {key: row["answer"] for key, row in rows.items()} == {key: p.answer for key, p in keyed.items()}
    assert {key: row["set"] for key, row in rows.items()} == {
        key: "|".join(name for name, _ in p.set) for key, p in keyed.items()
    }
    ignored = fgvc.evaluate(run, calibrated=False, workers=0, device="cpu", out=tmp_path / "out", force=True)
    assert ignored.calibrated is None and ignored.top1 == summary.top1 and ignored.loss == summary.loss
    assert not (tmp_path / "out/answers.csv").exists() and not (tmp_path / "out/unknown.csv").exists()


def test_class_means_are_of_the_features_that_the_head_reads(trained, data) -> None:
    run = trained("linear")
    ready = load(run.model_file, InferenceSettings("cpu", "fp32", workers=0))
    images = sorted((data / "data/train").rglob("*.png"))
    embedded = fgvc.embed(images, run=run, device="cpu")
    names = [path.split("/")[-2] for path in embedded.images]
    unit = embedded.values - embedded.values.mean(0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    means = np.stack([unit[[name == each for name in names]].mean(0) for each in ready.classifier.class_names])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert Calibration.read(run.model_file).means.means.numpy() == pytest.approx(means, abs=1e-4)


def test_another_test_time_augmentation_is_not_calibrated(trained, data, caplog, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained("linear"), run)
    image = next((data / "data/test").rglob("*.png"))
    with caplog.at_level(logging.WARNING):
        assert fgvc.load(run).predict(image, tta="flip").answer is None
    assert "tta=flip" in caplog.text
    fgvc.calibrate(run, tta="flip", workers=0, device="cpu")
    assert fgvc.load(run).predict(image, tta="flip").answer is not None
    assert fgvc.load(run).predict(image).answer is None
    assert "energy" not in Calibration.read(run / "model.safetensors").novelty.thresholds
    with pytest.raises(fgvc.UsageError, match="energy"):
        fgvc.calibrate(run, tta="flip", score="energy", workers=0, device="cpu")


def test_images_that_were_trained_on_are_refused(trained, data, caplog, tmp_path) -> None:
    """By file, and by names and sizes where neither the files nor the run folder are those of the training."""
    run = trained("probe")
    copied = shutil.copytree(data / "data", tmp_path / "data")
    file = shutil.copy(run.model_file, tmp_path)
    for model, given in ((run, data / "data/train"), (run, copied / "train"), (file, copied / "train")):
        before = model_file.read_metadata(model if model is file else model.model_file)
        with pytest.raises(fgvc.UsageError, match="trained on 30 of these 30"):
            fgvc.calibrate(model, data=given, workers=0, device="cpu")
        assert model_file.read_metadata(model if model is file else model.model_file) == before
    with caplog.at_level(logging.INFO):
        assert fgvc.calibrate(file, data=copied / "val", workers=0, device="cpu").calibration.images == 42
    assert "Unknown whether the run was trained on these images" in caplog.text


def test_added_classes_lose_the_calibration(trained, data, caplog, tmp_path) -> None:
    with caplog.at_level(logging.WARNING):
        grown = fgvc.add_classes(trained("prototypes"), [data / "strangers/yellow"], out=tmp_path / "run", device="cpu")
    assert "calibrat" in caplog.text and Calibration.read(grown.model_file) is None
    assert fgvc.load(grown).predict(next((data / "strangers").rglob("*.png"))).answer is None


def test_weights_of_a_calibrated_run_are_those_of_the_run(trained, data, tmp_path) -> None:
    run = trained("linear")
    again = fgvc.train(
        backbone="timm/test_resnet", head="linear", data=data / "data", weights=run.model_file, epochs=0,
        image_size=32, workers=0, device="cpu", out=tmp_path / "run",
    )  # fmt: skip
    mine, _ = model_file.load(run.model_file)
    theirs, _ = model_file.load(again.model_file)
    assert theirs.keys() == {name for name in mine if not name.startswith("calibration.")}
    assert all(torch.equal(mine[name], value) for name, value in theirs.items())


def test_unknown_images_must_exist_and_be_unknown(trained, data, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for where, error in (
        (tmp_path / "empty", fgvc.FgvcError),
        (tmp_path / "gone", fgvc.UsageError),
        (data / "data/test", fgvc.UsageError),
    ):
        with pytest.raises(error, match="unknown="):
            fgvc.evaluate(trained("linear"), unknown=where, workers=0, device="cpu", out=tmp_path / "out")


def test_calibrated_on_the_images_that_are_evaluated(trained, tmp_path) -> None:
    summary = fgvc.evaluate(trained("linear"), "val", workers=0, device="cpu", out=tmp_path / "out")
    assert any("calibrated on these images" in note for note in summary.notes)
    assert summary.calibrated.coverage >= 0.9
