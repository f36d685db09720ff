"""The Python API does what the commands do, returns objects, and prints nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import fgvc_cli as fgvc
from fgvc_cli.report.predictions import augmented_scores

TINY = {"dataset.train": 4, "dataset.val": 2, "dataset.test": 2, "dataset.size": 32}


class Recorder(fgvc.Callback):
    """Records the epochs of a training."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def on_epoch_end(self, metrics, is_best) -> None:
        self.epochs.append(metrics.epoch)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recorder = Recorder()
    run = fgvc.train(
        backbone="timm/test_resnet", head="linear", weights="none", epochs=2, batch_size=16, image_size=32,
        workers=0, device="cpu", settings=TINY, out=tmp_path_factory.mktemp("api") / "run", callbacks=[recorder],
    )  # fmt: skip
    assert recorder.epochs == [1, 2]
    return run


def test_a_run_has_its_metrics_and_summary(run, capfd):
    assert [line.epoch for line in run.metrics] == [1, 2]
    assert run.summary.test.images == 24
    assert str(run.summary.test.top1)[:4] in str(run.summary.as_json()["test"]["top1"])
    assert "top-1" in run._repr_html_() and run.name in run._repr_html_()
    assert capfd.readouterr() == ("", "")


def test_a_run_is_named_by_text_too(run):
    assert fgvc.Run(str(run.path)) == run


def test_paths_pictures_and_arrays_are_predicted_alike(run, tmp_path, capfd):
    array = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    classifier = fgvc.load(run)
    assert isinstance(classifier, torch.nn.Module) and not classifier.training
    found = classifier.predict([tmp_path / "a.png", Image.fromarray(array), array], top_k=3)
    assert found[0].classes == found[1].classes == found[2].classes == classifier.predict(array, 3).classes
    names, probabilities = zip(*found[0].classes, strict=True)
    assert set(names) < set(classifier.class_names) and sum(probabilities) < 1 and len(names) == 3
    assert list(probabilities) == sorted(probabilities, reverse=True)
    assert capfd.readouterr() == ("", "")


def test_evaluation_gives_the_metrics_of_the_run_and_keeps_them(run, capfd):
    found = fgvc.evaluate(run, split="test", device="cpu", workers=0)
    assert found.top1 == run.summary.test.top1 and found.images == 24
    assert json.loads((run.evaluation("test") / "summary.json").read_text())["top1"] == found.top1
    assert "top-1" in found._repr_html_()
    assert capfd.readouterr() == ("", "")


def test_test_time_augmentation_is_kept_apart_and_reported(run):
    plain = fgvc.evaluate(run, split="test", device="cpu", workers=0)
    found = fgvc.evaluate(run, split="test", device="cpu", workers=0, tta="flip,crops")
    stored = json.loads((run.evaluation("test-flip-crops") / "summary.json").read_text())
    assert stored["tta"] == list(found.tta) == ["flip", "crops"] and stored["loss"] == found.loss != plain.loss
    assert "10 views" in found.notes[-1]
    assert "tta" not in json.loads((run.evaluation("test") / "summary.json").read_text())
    assert [summary.tta for summary in augmented_scores(run.evaluation("test"))] == [["flip", "crops"]]
    sample = next((run.path / "samples").glob("*.png"))
    classifier = fgvc.load(run)
    pixels = classifier.preprocessing(Image.open(sample))
    both = classifier.probabilities(torch.stack([pixels, pixels.flip(2)])).mean(0).tolist()
    expected = dict(zip(classifier.class_names, both, strict=True))
    assert dict(classifier.predict(sample, 12, tta="flip").classes) == pytest.approx(expected, abs=1e-6)


def test_an_explanation_has_map_steps_and_panel(run, capfd):
    sample = next((run.path / "samples").glob("*.png"))
    explanation = fgvc.explain(run, sample, occlude=True, cover_area=0.3, steps=2, device="cpu")
    assert explanation.heat_map.shape == (32, 32) and explanation.heat_map.max() <= 1
    assert [round(step.masked, 1) for step in explanation.steps] == [0, 0.3, 0.3]
    assert explanation.survived in (True, False)
    assert explanation.figure().size[0] > 100
    assert explanation._repr_png_().startswith(b"\x89PNG")
    several = fgvc.explain(run, [sample, np.asarray(Image.open(sample))], device="cpu")
    assert np.array_equal(several[0].heat_map, several[1].heat_map) and several[0].survived is None
    assert capfd.readouterr() == ("", "")


def test_components_are_those_of_list_plugins():
    heads = fgvc.components("head")
    assert {"linear", "pim", "cmal"} <= {component.name for component in heads}
    assert len(fgvc.components()) > len(heads) and "pim" in heads._repr_html_()


@pytest.mark.parametrize(
    ("call", "facts"),
    [
        (lambda run, image: fgvc.train(head="pin"), ("pin", "pim")),
        (lambda run, image: fgvc.train(settings={"head.fpn_sizes": 3}), ("fpn_sizes", "fpn_size")),
        (lambda run, image: fgvc.train(resume=run, epochs=3), ("resume", "epochs")),
        (lambda run, image: fgvc.evaluate(run, split="tset"), ("tset", "test")),
        (lambda run, image: fgvc.explain(run, image, occlude=True, cover_area=2.0), ("cover_area", "2")),
        (lambda run, image: fgvc.explain(run, image, cover_area=0.1, cover_threshold=0.5), ("cover_threshold",)),
        (lambda run, image: fgvc.load(run).predict(np.zeros((4, 4, 3))), ("float64", "uint8")),
        (lambda run, image: fgvc.load(run).predict(image, top_k=0), ("top_k", "0")),
        (lambda run, image: fgvc.load(run).predict(None), ("None", "uint8")),
        (lambda run, image: fgvc.load(run, "tpu7"), ("device", "tpu7", "auto")),
        (lambda run, image: fgvc.evaluate(run, device="cpu", workers=-5), ("workers", "-5")),
        (lambda run, image: fgvc.explain(run, image, occlude=True, steps=0), ("steps", "0")),
        (lambda run, image: fgvc.explain(run, image, explainer="occlusion"), ("occlusion", "sliding_window")),
        (lambda run, image: fgvc.train(settings={"train.accumulate": 2}), ("accumulate", "'grad_accum_steps'")),
        (lambda run, image: fgvc.train(settings={"train.sampling": "root"}), ("root", "'sqrt'")),
        (lambda run, image: fgvc.components("hed"), ("hed", "head")),
    ],
)
def test_wrong_arguments_are_value_errors_in_python_names(run, call, facts):
    image = next((run.path / "samples").glob("*.png"))
    with pytest.raises(ValueError) as raised:
        call(run, image)
    assert all(fact in str(raised.value) for fact in facts)
    assert "--" not in str(raised.value)


@pytest.mark.parametrize("call", [fgvc.load, fgvc.evaluate, lambda run: fgvc.explain(run, "a.png")])
def test_a_missing_run_is_named(call, tmp_path):
    with pytest.raises(fgvc.FgvcError, match="nowhere"):
        call(tmp_path / "nowhere")


def test_images_that_cannot_be_read_are_named(run, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(fgvc.FgvcError, match=r"bad\.png"):
        fgvc.load(run).predict(tmp_path / "bad.png")
    with pytest.raises(fgvc.FgvcError, match=r"bad\.png"):
        fgvc.explain(run, tmp_path / "bad.png")
