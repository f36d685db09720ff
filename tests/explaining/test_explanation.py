"""Explanations of images in batches, with a classifier that sees a single patch."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fgvc_cli.contracts import Classifier, Explainer, Preprocessing
from fgvc_cli.errors import UsageError
from fgvc_cli.evaluation.predict import Predictions
from fgvc_cli.explaining.explainers import NamedExplainer, make_explainers
from fgvc_cli.explaining.explanation import (
    Explanation,
    ImageExplanations,
    InputImage,
    OcclusionStep,
    decision_sentence,
    true_class,
)
from fgvc_cli.explaining.masking import Masking
from fgvc_cli.scoring.model import ReadyClassifier

LIT = np.zeros((8, 8), bool)
LIT[:4, :4] = True


@pytest.fixture
def images(tmp_path: Path, lamp: Callable[..., Tensor]) -> list[InputImage]:
    """Five images: lit, dark, lit, broken, dark; the first two are labeled lit."""
    made = []
    for i, pixels in enumerate((16, 0, 12, 16, 0)):
        path = tmp_path / f"{i}.png"
        Image.fromarray(lamp(pixels)[0].permute(1, 2, 0).numpy()).save(path)
        made.append(InputImage(str(path), path, "lit" if i < 2 else None))
    (tmp_path / "3.png").write_text("broken")
    return made


@pytest.fixture
def explain(registry, ready) -> Callable[..., ImageExplanations]:
    def make(images: Sequence[InputImage], names: Sequence[str] = ("perfect",), **more: Any) -> ImageExplanations:
        runs = more.pop("runs", None) or [ready(batch_size=2)]
        return ImageExplanations(runs, make_explainers(names, {}, registry), images, **more)

    return make


def everything(explanations: ImageExplanations) -> list[Any]:
    return [image for batch in explanations for image in batch]


def test_batches_are_in_order_without_unreadable_images(explain, images):
    explanations = explain(images)
    batches = list(explanations)
    assert [[Path(image.input.name).stem for image in batch] for batch in batches] == [["0", "1"], ["2"], ["4"]]
    assert list(explanations.failures) == [images[3].name]
    predicted = [image.explanations[0].steps[0].predicted for batch in batches for image in batch]
    assert predicted == ["lit", "dark", "lit", "dark"]


def test_an_explanation_has_prediction_and_map(explain, images):
    image, dark = next(iter(explain(images)))
    (explanation,) = image.explanations
    (step,) = explanation.steps
    assert (step.predicted, step.target, step.masked) == ("lit", "lit", 0.0)
    assert step.probability == pytest.approx(1, abs=1e-3) and step.true_probability == step.probability
    assert (explanation.saliency == LIT).all() and not step.mask.any()
    assert dark.explanations[0].steps[0].true_probability == pytest.approx(0, abs=1e-3)
    assert explanation.survived is None


def test_masking_what_decides_changes_the_prediction(explain, images):
    images = everything(explain(images, ("perfect", "inverted"), masking=Masking("gray", 0.25), steps=1))
    perfect, inverted = images[0].explanations
    assert (perfect.explainer, inverted.explainer) == ("perfect", "inverted")
    assert [s.predicted for s in perfect.steps] == ["lit", "dark"] and perfect.survived is False
    assert [s.predicted for s in inverted.steps] == ["lit", "lit"] and inverted.survived is True
    assert perfect.steps[1].masked == 0.25 and (perfect.steps[1].mask == LIT).all()
    assert perfect.steps[1].target == "dark"  # the class predicted at that step
    assert (perfect.fill == 128).all() and perfect.fill.shape == (8, 8, 3)


def test_the_target_is_the_requested_class(explain, images):
    def targets(explanations: ImageExplanations) -> list[str]:
        return [image.explanations[0].steps[0].target for image in everything(explanations)]

    assert targets(explain(images, target="unseen")) == ["unseen"] * 4
    explanations = explain(images, target="true")
    assert targets(explanations) == ["lit", "lit"]
    assert "true class is unknown" in explanations.failures[images[4].name] and len(explanations.failures) == 3
    with pytest.raises(UsageError, match=r"target=litt.*Did you mean 'lit'\?"):
        explain(images, target="litt")


def test_an_explainer_that_cannot_explain_a_run_is_refused_at_once(explain, images):
    with pytest.raises(UsageError, match="refusing explains no classifier"):
        explain(images, ("perfect", "refusing"))


def test_two_runs_explain_the_same_images_even_if_one_cannot_read_some(explain, images, ready, monkeypatch, caplog):
    first = ready(batch_size=2)
    second = ready(batch_size=2, patch=(slice(4, 8), slice(4, 8)), class_names=("a", "b", "lit"))
    load = ReadyClassifier.loader

    class OneLess:
        """A loader that cannot read the last batch's only image, nor the first batch's second one."""

        def __init__(self, inner):
            self.inner, self.failures, self.batch_size = inner, inner.failures, inner.batch_size

        def __iter__(self):
            for batch in self.inner:
                keep = [k for k, i in enumerate(batch.indices.tolist()) if i not in (1, 2)]
                if keep:
                    yield type(batch)(*(tensor[keep] for tensor in batch[:3]))

    def loader(self, split):
        return OneLess(load(self, split)) if self is second else load(self, split)

    monkeypatch.setattr(ReadyClassifier, "loader", loader)
    images = everything(explain(images, runs=[first, second]))
    assert [Path(image.input.name).stem for image in images] == ["0", "4"]
    ours, theirs = images[0].explanations
    assert (ours.steps[0].predicted, theirs.steps[0].predicted) == ("lit", "a")
    assert theirs.steps[0].true_probability == pytest.approx(0, abs=1e-6)  # "lit" is the third class of that run
    assert caplog.text.count("3.png:") == 1  # one warning, not one per run


def test_images_with_non_finite_scores_are_skipped(explain, images, ready, caplog):
    broken = ready(batch_size=2)
    with torch.no_grad():
        broken.classifier.backbone.weight.fill_(float("nan"))
    explanations = explain(images, runs=[broken])
    assert everything(explanations) == []
    assert "not finite" in explanations.failures[images[0].name] and images[0].name in caplog.text


def test_a_batch_is_explained_in_one_call(images, ready):
    class Counting(Explainer):
        calls: list[int] = []  # noqa: RUF012

        def __init__(self, options: Any) -> None: ...

        def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
            self.calls.append(len(images))
            return images[:, 0].clamp(0, 1)

    explainer = NamedExplainer("counting", Counting(None), {})
    explanations = ImageExplanations([ready(batch_size=3)], [explainer], images, masking=Masking(), steps=2)
    assert len(everything(explanations)) == 4
    assert Counting.calls == [3, 3, 3, 1, 1, 1]


NOTHING = np.zeros((2, 2), np.float32)


@pytest.mark.parametrize(
    ("predicted", "true", "words"),
    [
        (["ant", "ant"], None, "survived: with the most salient 20.0 % masked it is still ant (60.0 %, before 90.0 %)"),
        (["ant", "ant"], "bee", "wrong in both cases"),
        (["ant", "bee"], "ant", "right and is now wrong"),
        (["ant", "ant", "bee"], None, "changed at step 2: with the most salient 40.0 % masked it is bee (30.0 %)"),
        (["ant", "bee", "ant"], None, "changed at step 1: with the most salient 20.0 % masked it is bee (60.0 %)"),
    ],
)
def test_the_sentence_says_whether_the_prediction_survived(predicted, true, words):
    steps = [
        OcclusionStep(0.2 * step, name, 0.9 - 0.3 * step, name, 0.25, 0.125, NOTHING, NOTHING > 0)
        for step, name in enumerate(predicted)
    ]
    explanation = Explanation("runs/a", "gradcam", Preprocessing(2, 2, (0.0,) * 3, (1.0,) * 3), NOTHING, steps)
    assert words in decision_sentence(explanation, true)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("photos/bee/1.jpg", "bee"),
        ("photos/bee/2019/1.jpg", "bee"),
        ("photos/bee/ant/1.jpg", "ant"),  # the innermost
        ("photos/bees/1.jpg", None),
        ("photos/bee.jpg", None),
        ("1.jpg", None),
    ],
)
def test_the_true_class_is_the_innermost_folder_named_after_a_class(tmp_path, monkeypatch, path, expected):
    monkeypatch.chdir(tmp_path)
    assert true_class(Path(path), ("ant", "bee", "cat")) == expected


def test_of_folders_not_in_the_path_only_that_of_the_file_counts(tmp_path, monkeypatch):
    (tmp_path / "cat/home/bee").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cat/home")
    assert true_class(Path("1.jpg"), ("bee", "cat")) is None
    monkeypatch.chdir(tmp_path / "cat/home/bee")
    assert true_class(Path("1.jpg"), ("bee", "cat")) == "bee"


def test_a_sample_of_a_run_is_named_after_its_class(tmp_path):
    sample = tmp_path / "run/samples/bee-0012.png"
    assert true_class(sample, ("bee",)) is None  # not a run folder
    (tmp_path / "run").mkdir()
    (tmp_path / "run/model.safetensors").touch()
    assert true_class(sample, ("bee",)) == "bee"
    assert true_class(sample.with_name("bee-x.png"), ("bee",)) is None
    assert true_class(sample.with_name("owl-0012.png"), ("bee",)) is None


@pytest.mark.parametrize("kind", ["explain", "predict"])
def test_nothing_of_earlier_batches_is_kept(kind, explain, ready, lamp):
    """So memory does not grow with the number of photographs in a folder."""
    array, chosen = lamp(16)[0].permute(1, 2, 0).numpy(), ready(batch_size=2)
    if kind == "explain":
        batches = iter(explain([InputImage(f"image {i}", array) for i in range(40)], runs=[chosen]))
    else:
        batches = iter(Predictions(chosen, [array] * 40))
    alive: list[weakref.ref[Any]] = []
    counts = []
    for batch in batches:
        alive += [weakref.ref(result) for result in batch]
        counts.append(sum(reference() is not None for reference in alive))
    assert len(counts) == 20 and max(counts) <= 4
