"""Training on kept features is training with the frozen backbone, to half precision, and the backbone runs once."""

from __future__ import annotations

import logging
from collections import Counter

import pytest
import torch
from torch.nn import functional as F

from fgvc_cli import load
from fgvc_cli.contracts import Features
from fgvc_cli.errors import FgvcError
from fgvc_cli.scoring import features as scoring_features
from fgvc_cli.testing.models import classifier_of
from fgvc_cli.testing.tiny import CLASSES, IMAGE_SIZE, TinyConvolutional, TinyHead, images_of
from fgvc_cli.training import trainer as trainer_module
from fgvc_cli.training.callbacks import Callback
from fgvc_cli.training.kept_features import FeatureModel
from fgvc_cli.training.state import Interrupted

PLAIN = {"crop": "center", "flip": 0.0}
IMAGES = {"train": 27, "val": 6}


class Passes(Callback):
    """Counts images through the backbone by epoch (0: before the first one), and keeps what a run starts from."""

    def __init__(self):
        self.images, self.epoch = Counter(), 0

    def on_train_start(self, run, job):
        self.notes, self.classifier = job.notes, job.classifier
        self.start = {name: value.clone() for name, value in job.classifier.state_dict().items()}
        job.classifier.backbone.register_forward_pre_hook(self.count)

    def count(self, _module, given):
        self.images[self.epoch] += len(given[0])

    def on_epoch_start(self, epoch, images, remaining):
        self.epoch = epoch

    def on_test_start(self, images):
        self.epoch = -1


class HalfMaps(Callback):
    """Rounds all feature maps to half precision, those of crops too, as maps are kept."""

    def on_train_start(self, run, job):
        job.classifier.backbone.register_forward_hook(self.rounded)

    @staticmethod
    def rounded(_module, _given, features):
        return features._replace(maps={index: value.half().float() for index, value in features.maps.items()})


@pytest.mark.parametrize(
    ("head", "optimizer", "more"),
    [
        ("linear", "sgd", {"grad_accum_steps": 2, "label_smoothing": 0.1, "ema": 0.9}),
        ("linear", "adamw", {"sampling": "class"}),
        pytest.param("pim", "sam", {}, marks=pytest.mark.slow),
        pytest.param("cmal", "sgd", {}, marks=pytest.mark.slow),
        pytest.param("cmal", "sam", {}, marks=pytest.mark.slow),
    ],
)
def test_it_is_training_with_the_frozen_backbone(train, tmp_path, monkeypatch, head, optimizer, more):
    options = {"head": head, "optimizer": optimizer, "augment": PLAIN, "freeze": "all", **more}
    passes = Passes()
    kept = train(tmp_path / "kept", passes, HalfMaps(), **options).run
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "obstacle", lambda job: "for this test")
        computed = train(tmp_path / "computed", HalfMaps(), **options).run
    for ours, theirs in zip(kept.metrics, computed.metrics, strict=True):
        assert ours.train.objectives == pytest.approx(theirs.train.objectives, rel=1e-4)
        assert ours.val.loss == pytest.approx(theirs.val.loss, rel=1e-4)
    ours, theirs = load(kept.path).state_dict(), load(computed.path).state_dict()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-4, msg=name)
    if head == "cmal":  # the whole training images once, then crops alone, and validation as ever
        once = IMAGES["train"]
        whole_of_crops = 3 if optimizer == "sgd" else 6  # of each image at most, as some of these passes are on it
        assert passes.images[0] == once
        assert max(passes.images[1], passes.images[2]) <= whole_of_crops * once + 2 * IMAGES["val"]
    else:
        assert passes.images[0] == sum(IMAGES.values()) and not passes.images[1] and not passes.images[2]


def test_it_is_the_textbook_loop_on_embeddings(train, tmp_path):
    passes = Passes()
    done = train(
        tmp_path / "run", passes, augment=PLAIN, freeze="all", schedule="constant", batch_size=27, epochs=3
    )  # one batch of all images: their order does not matter
    classifier, split = passes.classifier, done.job.splits.train
    classifier.load_state_dict(passes.start)
    loader = trainer_module.EvaluationLoader(split, classifier.preprocessing, 27, 0, False)
    (batch,) = loader
    with torch.no_grad():
        embedding = classifier.eval().backbone(classifier.normalize(batch.pixels), classifier.head.reads()).embedding
    layer = classifier.head.classifier
    sgd = torch.optim.SGD(layer.parameters(), 0.02, momentum=0.9, nesterov=True, weight_decay=0.0005)
    losses = []
    for _ in range(3):
        loss = F.cross_entropy(layer(embedding), batch.labels)
        losses.append(loss.item())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    assert [m.train.objectives["objective"] for m in done.run.metrics] == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize(
    ("head", "optimizer", "batch"),
    [("linear", "adamw", 3), ("pim", "sgd", 8), pytest.param("cmal", "sgd", 16, marks=pytest.mark.slow)],
)
def test_a_run_resumes_bit_for_bit_on_kept_features_and_after_them(
    train, resume, interrupt_at, assert_same, tmp_path, head, optimizer, batch
):
    options = {"head": head, "optimizer": optimizer, "augment": PLAIN, "freeze": "all", "freeze_epochs": 2, "epochs": 3}
    passes = Passes()
    whole = train(tmp_path / "whole", passes, **options).run
    with pytest.raises(Interrupted):
        train(tmp_path / "run", interrupt_at(batch), **options)
    assert_same(resume(tmp_path / "run"), whole)
    assert passes.images[3] >= sum(IMAGES.values())


def test_an_interruption_while_features_are_computed_loses_nothing(train, resume, assert_same, tmp_path, monkeypatch):
    options = {"augment": PLAIN, "freeze": "all"}
    whole = train(tmp_path / "whole", cache="off", **options).run
    real = trainer_module.keep_features

    def interrupted(job, model, loaders, on_batch):
        trainer = on_batch.__self__
        trainer.interrupt.number = 2
        return real(job, model, loaders, on_batch)

    monkeypatch.setattr(trainer_module, "keep_features", interrupted)
    with pytest.raises(Interrupted):
        train(tmp_path / "run", cache="off", **options)
    monkeypatch.setattr(trainer_module, "keep_features", real)
    assert_same(resume(tmp_path / "run"), whole)


@pytest.mark.parametrize(
    ("augment", "options", "says"),
    [
        ({}, {"freeze": "all"}, "`augment.flip=0.5`"),
        (PLAIN | {"mixup": 0.2}, {"freeze": "all"}, "`augment.mixup=0.2`"),
        (PLAIN, {"freeze": 1}, ""),
        (PLAIN, {}, ""),
    ],
)
def test_otherwise_the_backbone_runs_in_every_epoch_and_a_note_says_why(train, tmp_path, augment, options, says):
    passes = Passes()
    train(tmp_path / "run", passes, augment=augment, epochs=1, **options)
    assert passes.images[1] == sum(IMAGES.values())
    lines = [note for note in passes.notes if "frozen backbone runs" in note]
    assert says in lines[0] if says else not lines


def test_features_that_cannot_be_kept_are_computed_in_every_epoch(train, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(scoring_features, "MEMORY_LIMIT", 0)
    passes = Passes()
    with caplog.at_level(logging.INFO, "fgvc_cli"):
        train(tmp_path / "run", passes, augment=PLAIN, freeze="all", cache="off", epochs=1)
    assert passes.images[1] == sum(IMAGES.values())
    (line,) = [message for message in caplog.messages if "in every epoch" in message]
    assert "`train.cache=off`" in line and "\n" not in line


def test_unreadable_images_are_left_out(train, photos, tmp_path):
    data = tmp_path / "photos"
    (data / "train" / "red").mkdir(parents=True)
    for path in photos.rglob("*.png"):
        copy = data / path.relative_to(photos)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (data / "train/red/3.png").write_bytes(b"no image")
    (data / "val/green/1.png").write_bytes(b"no image")
    summary = train(tmp_path / "run", data=data, augment=PLAIN, freeze="all").summary
    assert set(summary.unreadable) == {"train/red/3.png", "val/green/1.png"}
    assert (summary.train.images, summary.val.images) == (26, 5)


def test_a_head_that_changes_images_after_all_is_refused():
    model = FeatureModel(classifier_of(TinyConvolutional(), lambda info: TinyHead(info, CLASSES)))
    images = images_of(2, IMAGE_SIZE)
    nothing = torch.full((), torch.nan).expand(images.shape)
    features = Features(model.classifier.backbone(images, model.classifier.head.reads()).maps, None)
    with model.knowing([(nothing, features)]):
        assert model(nothing).shape == (2, CLASSES)
        with pytest.raises(FgvcError, match="unchanged_images"):
            model(nothing.flip(3))
    assert torch.equal(model.classifier.eval()(images), model(images))
