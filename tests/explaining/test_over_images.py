"""Explaining images in batches, on a classifier that sees one patch alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fgvc_cli.contracts import Classifier, Explainer
from fgvc_cli.errors import UsageError
from fgvc_cli.explaining.explainers import NamedExplainer, make_explainers
from fgvc_cli.explaining.explanation import Subject
from fgvc_cli.explaining.images import ExplainingImages
from fgvc_cli.explaining.masking import Cover
from fgvc_cli.scoring.model import ReadyClassifier


def lit(pixels: int) -> np.ndarray:
    """A dark image with so many of its first 16 pixels (the corner) lit red."""
    image = np.zeros((8, 8, 3), np.uint8)
    for i in range(pixels):
        image[i // 4, i % 4, 0] = 255
    return image


@pytest.fixture
def subjects(tmp_path: Path) -> list[Subject]:
    """Five images, of which the fourth is broken: lit, dark, lit, broken, dark; the first two with a true class."""
    made = []
    for i, pixels in enumerate((16, 0, 12, 16, 0)):
        path = tmp_path / f"{i}.png"
        Image.fromarray(lit(pixels)).save(path)
        made.append(Subject(str(path), path, ("lit", "lit")[i] if i < 2 else None))
    (tmp_path / "3.png").write_text("broken")
    return made


@pytest.fixture
def explain(registry, ready) -> Callable[..., ExplainingImages]:
    def make(subjects: Sequence[Subject], names: Sequence[str] = ("knowing",), **more: Any) -> ExplainingImages:
        runs = more.pop("runs", None) or [ready(batch_size=2)]
        return ExplainingImages(runs, make_explainers(names, {}, registry), subjects, **more)

    return make


def everything(explaining: ExplainingImages) -> list[Any]:
    return [image for batch in explaining for image in batch]


def test_images_come_in_order_in_batches_and_a_bad_one_is_named(explain, subjects):
    explaining = explain(subjects)
    batches = list(explaining)
    assert [[Path(image.subject.name).stem for image in batch] for batch in batches] == [["0", "1"], ["2"], ["4"]]
    assert list(explaining.failures) == [subjects[3].name]
    predicted = [image.explanations[0].sights[0].predicted for batch in batches for image in batch]
    assert predicted == ["lit", "dark", "lit", "dark"]


def test_a_sight_says_what_the_classifier_does(explain, subjects):
    (image, dark) = next(iter(explain(subjects)))
    (explanation,) = image.explanations
    (sight,) = explanation.sights
    assert (sight.predicted, sight.explained, sight.covered) == ("lit", "lit", 0.0)
    assert sight.probability == pytest.approx(1, abs=1e-3) and sight.true_probability == sight.probability
    assert (sight.map == (lit(16)[:, :, 0] > 0)).all() and not sight.mask.any()
    assert dark.explanations[0].sights[0].true_probability == pytest.approx(0, abs=1e-3)
    assert explanation.survived is None


def test_covering_what_decides_changes_the_decision(explain, subjects):
    images = everything(explain(subjects, ("knowing", "inverted"), cover=Cover("gray", 0.25), steps=1))
    knowing, inverted = images[0].explanations
    assert (knowing.explainer, inverted.explainer) == ("knowing", "inverted")
    assert [s.predicted for s in knowing.sights] == ["lit", "dark"] and knowing.survived is False
    assert [s.predicted for s in inverted.sights] == ["lit", "lit"] and inverted.survived is True
    assert knowing.sights[1].covered == 0.25 and (knowing.sights[1].mask == (lit(16)[:, :, 0] > 0)).all()
    assert knowing.sights[1].explained == "dark"  # the class predicted in that very look
    assert (knowing.fill == 128).all() and knowing.fill.shape == (8, 8, 3)


def test_the_target_is_the_class_that_is_asked_for(explain, subjects):
    def explained(explaining: ExplainingImages) -> list[str]:
        return [image.explanations[0].sights[0].explained for image in everything(explaining)]

    assert explained(explain(subjects, target="unseen")) == ["unseen"] * 4
    explaining = explain(subjects, target="true")
    assert explained(explaining) == ["lit", "lit"]
    assert "true class is not known" in explaining.failures[subjects[4].name] and len(explaining.failures) == 3
    with pytest.raises(UsageError, match=r"--target litt: .*Did you mean 'lit'\?"):
        explain(subjects, target="litt")


def test_an_explainer_that_cannot_explain_a_run_is_refused_before_any_image_is_read(explain, subjects):
    with pytest.raises(UsageError, match="refusing explains no classifier"):
        explain(subjects, ("knowing", "refusing"))


def test_two_runs_see_the_same_images_even_if_one_cannot_read_some(explain, subjects, ready, monkeypatch, capsys):
    first = ready(batch_size=2)
    second = ready(batch_size=2, patch=(slice(4, 8), slice(4, 8)), class_names=("a", "b", "lit"))
    load = ReadyClassifier.loader

    class OneLess:
        """The loader of a run that cannot read the last batch's only image, nor the first batch's second one."""

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
    images = everything(explain(subjects, runs=[first, second]))
    assert [Path(image.subject.name).stem for image in images] == ["0", "4"]
    ours, theirs = images[0].explanations
    assert (ours.sights[0].predicted, theirs.sights[0].predicted) == ("lit", "a")
    assert theirs.sights[0].true_probability == pytest.approx(0, abs=1e-6)  # "lit" is the third class of that run
    assert capsys.readouterr().err.count("3.png") == 1  # one warning, not one a run


def test_what_is_not_finite_is_left_out_and_named(explain, subjects, ready, capsys):
    broken = ready(batch_size=2)
    with torch.no_grad():
        broken.classifier.backbone.weight.fill_(float("nan"))
    explaining = explain(subjects, runs=[broken])
    assert everything(explaining) == []
    assert explaining.failures[subjects[0].name] == "the classifier's scores are not finite"
    assert f"left out: {subjects[0].name}: the classifier's scores are not finite" in capsys.readouterr().err


def test_a_batch_is_explained_at_once(subjects, ready):
    class Counting(Explainer):
        calls: list[int] = []  # noqa: RUF012

        def __init__(self, options: Any) -> None: ...

        def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
            self.calls.append(len(images))
            return images[:, 0].clamp(0, 1)

    explainer = NamedExplainer("counting", Counting(None), {})
    assert len(everything(ExplainingImages([ready(batch_size=3)], [explainer], subjects, cover=Cover(), steps=2))) == 4
    assert Counting.calls == [3, 3, 3, 1, 1, 1]
