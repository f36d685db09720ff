"""A head that starts from a logistic regression on the embedding of the initial backbone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fgvc_cli.contracts import Reads
from fgvc_cli.contracts.regression import fit_linear
from fgvc_cli.data.images import read_image
from fgvc_cli.errors import UsageError
from fgvc_cli.runs.model_file import load_classifier
from fgvc_cli.training.callbacks import Callback
from fgvc_cli.training.state import Interrupted


class Start(Callback):
    """Keeps the weights of the head and the embeddings of both splits from before the first update."""

    def on_train_start(self, run, job) -> None:
        classifier = job.classifier.eval()
        self.layer = (
            classifier.head.classifier.weight.detach().clone(),
            classifier.head.classifier.bias.detach().clone(),
        )
        self.embeddings = {}
        for split in (job.splits.train, job.splits.val):
            pixels = torch.stack([classifier.preprocessing(read_image(image)) for image in split.images])
            with torch.no_grad():
                features = classifier.backbone(classifier.normalize(pixels), Reads(embedding=True))
            self.embeddings[split.name] = features.embedding, torch.from_numpy(np.asarray(split.labels))
        self.notes = job.notes


@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_the_linear_head_starts_from_the_regression_and_resumes(
    train, resume, interrupt_at, assert_same, tmp_path, optimizer
) -> None:
    options, start = {"head_init": "probe", "optimizer": optimizer, "ema": 0.9}, Start()
    whole = train(tmp_path / "whole", start, **options).run
    expected = fit_linear(*start.embeddings["train"], 3, *start.embeddings["val"])
    for features, labels in start.embeddings.values():
        ours, theirs = (F.linear(features, *layer) for layer in (start.layer, (expected.weight, expected.bias)))
        assert ours.softmax(1) == pytest.approx(theirs.softmax(1), abs=1e-3)
        assert (ours.argmax(1) == labels).all()
    assert "logistic regression" in whole.summary.weights and any("regression" in note for note in start.notes)
    with pytest.raises(Interrupted):
        train(tmp_path / "run", interrupt_at(3), **options)
    assert_same(resume(tmp_path / "run"), whole)


def test_the_model_is_the_probe_if_no_epoch_is_better(train, resume, interrupt_at, assert_same, tmp_path) -> None:
    options, start = {"head_init": "probe", "warmup_steps": 10**6, "clip_norm": 1e-6, "batch_norm": "fixed"}, Start()
    whole = train(tmp_path / "whole", start, **options).run
    assert whole.summary.best_epoch == 0 and whole.summary.start == whole.summary.val
    assert torch.equal(load_classifier(whole.path).head.classifier.weight, start.layer[0])
    with pytest.raises(Interrupted):
        train(tmp_path / "run", interrupt_at(2), **options)
    assert_same(resume(tmp_path / "run"), whole)


def test_an_interruption_before_the_first_update_starts_again(
    train, resume, assert_same, tmp_path, monkeypatch
) -> None:
    whole = train(tmp_path / "whole", head_init="probe", epochs=1).run
    with monkeypatch.context() as patch:
        patch.setattr("fgvc_cli.training.run.with_probe", lambda job, check: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run", head_init="probe", epochs=1)
    assert_same(resume(tmp_path / "run"), whole)


def test_a_head_from_a_file_is_kept(train, tmp_path) -> None:
    source, start = train(tmp_path / "source", epochs=1).run, Start()
    again = train(tmp_path / "again", start, weights=source.path, head_init="probe", epochs=1).run
    expected = load_classifier(source.path)
    assert torch.equal(start.layer[0], expected.head.classifier.weight) and "regression" not in again.summary.weights
    imported = train(tmp_path / "imported", recipe="finetune", weights=source.path, epochs=0).run
    ours, theirs = load_classifier(imported.path).state_dict(), expected.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert imported.summary.parameters["trained"] == 0


@pytest.mark.parametrize("head", ["pim", "cmal"])
def test_heads_without_a_layer_on_the_embedding_are_refused(train, tmp_path, head) -> None:
    with pytest.raises(UsageError, match=f"head_init=probe.*{head}"):
        train(tmp_path / "run", head=head, head_init="probe")
