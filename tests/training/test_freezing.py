"""What is frozen keeps its weights, statistics and state; what is not trains as ever; and a run resumes bit for bit."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fgvc_cli import load
from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.contracts import Head, Reads
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.options import build
from fgvc_cli.testing.models import classifier_of, update_of
from fgvc_cli.testing.tiny import CLASSES, IMAGE_SIZE, TinyBackbone, TinyConvolutional, TinyHead, images_of, labels_of
from fgvc_cli.training.callbacks import Callback
from fgvc_cli.training.freezing import Freezing
from fgvc_cli.training.state import Interrupted


def stage_of(name: str) -> int:
    """0 for the stem of a ResNet."""
    return int(name.partition("layer")[2][:1] or 0)


class Kept(Callback):
    """Copies the state of the backbone before the first epoch and after each."""

    def __init__(self):
        self.states = []

    def on_train_start(self, run, job):
        self.backbone = job.classifier.backbone
        self.note()

    def on_epoch_end(self, metrics, is_best):
        self.note()

    def note(self):
        self.states.append({name: value.clone() for name, value in self.backbone.state_dict().items()})

    def changed(self, epoch: int) -> set[int]:
        """Stages of which any parameter or statistic differs after an epoch (from 1) from before it."""
        before, after = self.states[epoch - 1 : epoch + 1]
        return {stage_of(name) for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "sam"])
@pytest.mark.parametrize("head", ["linear", "pim", "cmal"])
def test_a_frozen_backbone_keeps_weights_and_statistics_and_has_no_state(train, tmp_path, head, optimizer):
    kept = Kept()
    run = train(tmp_path / "run", kept, head=head, optimizer=optimizer, freeze="all", epochs=1, grad_accum_steps=2).run
    assert kept.changed(1) == set()
    parameters, summary = dict(load(run.path).head.named_parameters()), run.summary
    assert summary.parameters["trained"] == summary.parameters["head"] == sum(p.numel() for p in parameters.values())
    state = load_file(run.path / "last/state.safetensors")
    averages = [name for name in state if name.endswith(("momentum_buffer", "exp_avg"))]
    assert len(averages) == len(parameters)


@pytest.mark.parametrize("head", ["linear", "pim", pytest.param("cmal", marks=pytest.mark.slow)])
def test_stages_are_frozen_and_unfrozen_deepest_first(train, tmp_path, head):
    kept = Kept()
    options = {"freeze": 3, "freeze_epochs": 1, "unfreeze_epochs": 1, "epochs": 5, "batch_size": 8}
    trained = train(tmp_path / "run", kept, head=head, **options)
    assert [min(kept.changed(epoch)) for epoch in range(1, 6)] == [4, 3, 2, 1, 0]
    assert trained.summary.parameters["trained"] == trained.summary.parameters["total"]


@pytest.mark.parametrize(
    ("head", "optimizer", "batch"),
    [
        ("linear", "adamw", 7),
        pytest.param("pim", "sam", 3, marks=pytest.mark.slow),
        pytest.param("cmal", "sgd", 9, marks=pytest.mark.slow),
    ],
)
def test_a_run_resumes_bit_for_bit_before_at_and_after_unfreezing(
    train, resume, interrupt_at, assert_same, tmp_path, head, optimizer, batch
):
    options = {"head": head, "optimizer": optimizer, "freeze": "all", "freeze_epochs": 1, "epochs": 2}
    whole = train(tmp_path / "whole", **options).run
    with pytest.raises(Interrupted):
        train(tmp_path / "run", interrupt_at(batch), **options)
    assert_same(resume(tmp_path / "run"), whole)


@pytest.mark.parametrize(
    ("settings", "frozen"),
    [
        ({"freeze": "none"}, [0, 0, 0]),
        ({"freeze": "all"}, [1, 1, 1]),  # stages do not matter: the backbone counts as one
        ({"freeze": 1}, [2, 2, 2]),
        ({"freeze": "half"}, [2, 2, 2]),  # of the stem and four stages
        ({"freeze": "all", "freeze_epochs": 2}, [1, 1, 0, 0]),
        ({"freeze": 2, "freeze_epochs": 1}, [3, 0, 0]),
        ({"freeze": "all", "unfreeze_epochs": 1}, [5, 4, 3, 2, 1, 0, 0]),
        ({"freeze": 3, "freeze_epochs": 1, "unfreeze_epochs": 2}, [4, 3, 3, 2, 2, 1, 1, 0]),
    ],
)
def test_the_number_of_frozen_stages_follows_from_the_epoch(settings, frozen):
    freezing = Freezing(TrainOptions(**settings), tiny())
    assert [freezing.frozen_stages(epoch) for epoch in range(len(frozen))] == frozen


def tiny(head=TinyHead, backbone=TinyConvolutional):
    return classifier_of(backbone(), lambda info: head(info, CLASSES))


def test_nothing_is_recorded_for_the_backward_pass_of_frozen_stages():
    classifier = tiny()
    freezing = Freezing(TrainOptions(freeze=2), classifier)
    update = update_of(classifier)
    freezing.apply(0)
    update.take_parameters()
    freezing.train_mode(0)
    outputs = []
    for stage in (classifier.backbone.stem, *classifier.backbone.stages):
        stage.register_forward_hook(lambda _module, _given, output: outputs.append(output))
    update([(images_of(4, IMAGE_SIZE), labels_of(4))])
    assert [output.requires_grad for output in outputs] == [False, False, False, True, True]
    norms = [module for module in classifier.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [norm.training for norm in norms] == [False, False, False, True, True]
    freezing.undo()
    assert all(parameter.requires_grad for parameter in classifier.parameters())


def test_batch_norms_of_the_backbone_keep_their_statistics_and_train_their_weights(train, tmp_path):
    kept = Kept()
    train(tmp_path / "run", kept, head="cmal", batch_norm="fixed", epochs=1)
    changed = {name for name in kept.states[0] if not torch.equal(kept.states[0][name], kept.states[1][name])}
    assert changed == {name for name in kept.states[0] if not name.endswith(("_mean", "_var", "_tracked"))}


def test_half_of_unknown_stages_is_none():
    freezing = Freezing(TrainOptions(freeze="half"), tiny(backbone=Flat))
    assert freezing.frozen_stages(0) == 0 and not freezing.whole(0) and not freezing.apply(0)
    assert "unknown" in freezing.notes()[0]


def test_what_pruning_froze_stays_frozen():
    classifier = tiny()
    next(classifier.backbone.stages[3].parameters()).requires_grad_(False)
    freezing = Freezing(TrainOptions(freeze="all", freeze_epochs=1), classifier)
    assert freezing.apply(0) and freezing.apply(1) and not freezing.apply(2)
    assert [n for n, p in classifier.named_parameters() if not p.requires_grad] == ["backbone.stages.3.0.weight"]


class ReadsStatistics(TinyHead):
    needs_batch_statistics = True


class Untrained(Head):
    def __init__(self, backbone, classes):
        super().__init__(backbone, classes, None)

    def reads(self, part=None):
        return Reads(embedding=True)

    def forward(self, features, part=None):
        return features.embedding

    def objectives(self, images, targets):
        raise NotImplementedError


class Flat(TinyConvolutional):
    layer_depths = TinyBackbone.__base__.layer_depths


@pytest.mark.parametrize(
    ("settings", "classifier", "says"),
    [
        ({"freeze": 5}, {}, "4 stages"),
        ({"freeze": "all"}, {"head": ReadsStatistics}, "ReadsStatistics"),
        ({"freeze": "all"}, {"head": Untrained}, "no parameter would train"),
        ({"freeze": 1}, {"backbone": Flat}, "layer_depths"),
        ({"freeze": "all", "unfreeze_epochs": 1}, {"backbone": Flat}, "layer_depths"),
    ],
)
def test_what_does_not_fit_is_refused(settings, classifier, says):
    with pytest.raises(FgvcError, match=says) as caught:
        Freezing(TrainOptions(**settings), tiny(**classifier))
    assert "\n" not in str(caught.value)


def test_a_backbone_without_depths_can_be_frozen_as_a_whole():
    assert Freezing(TrainOptions(freeze="all", freeze_epochs=1), tiny(backbone=Flat)).whole(0)


@pytest.mark.parametrize(
    "settings", [{"freeze": "some"}, {"freeze": 0}, {"freeze": 1.5}, {"freeze_epochs": 2}, {"unfreeze_epochs": 1}]
)
def test_settings_are_checked(settings):
    with pytest.raises(UsageError, match="freeze"):
        build(TrainOptions, settings, "train")


def test_a_learning_rate_of_zero_does_not_keep_statistics(train, tmp_path):
    def notes(name, **options):
        job = train(tmp_path / name, epochs=1, **options).job
        return [note for note in job.notes if "batch-norm statistics adapt" in note]

    assert notes("moving", lr=0.0, head_lr=0.1)
    assert not notes("fixed", lr=0.0, head_lr=0.1, batch_norm="fixed") and not notes("frozen", lr=0.0, freeze="all")
    assert not notes("usual")


@pytest.mark.parametrize("kept", [{"batch_norm": "fixed"}, {"freeze": "all"}])
def test_batches_of_one_image_need_fixed_statistics(train, tmp_path, kept):
    assert train(tmp_path / "run", batch_size=1, epochs=1, **kept).summary.epochs == 1
    for moving in ({}, {"freeze": "all", "freeze_epochs": 1, "epochs": 2}):
        with pytest.raises(UsageError, match="single image"):
            train(tmp_path / "moving", batch_size=1, **moving)
