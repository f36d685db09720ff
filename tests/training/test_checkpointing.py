"""Activation checkpointing gives the same training with less memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fgvc_cli.benchmarking.memory import PeakMemory
from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.errors import UsageError
from fgvc_cli.testing.models import classifier_of, update_of
from fgvc_cli.testing.tiny import CLASSES, IMAGE_SIZE, TinyHead, TinyTransformer, images_of, labels_of
from fgvc_cli.training.checkpointing import checkpoint_activations
from fgvc_cli.training.state import Interrupted

ON = TrainOptions(checkpoint_activations=True)


@pytest.mark.parametrize(
    ("head", "optimizer", "settings"),
    [
        ("pim", "sam", {"epochs": 1}),
        pytest.param("cmal", "sam", {"grad_accum_steps": 2}, marks=pytest.mark.slow),
        pytest.param("linear", "adamw", {"freeze": "half", "ema": 0.9, "precision": "bf16"}, marks=pytest.mark.slow),
        pytest.param("linear", "sgd", {"lora_rank": 2, "lora_layers": "linear+conv"}, marks=pytest.mark.slow),
        pytest.param("pim", "muon", {"batch_norm": "fixed", "progressive_size": 32}, marks=pytest.mark.slow),
    ],
)
def test_a_run_is_the_same_bit_for_bit(train, assert_same, tmp_path, head, optimizer, settings):
    if "lora_rank" in settings:
        pytest.importorskip("peft")
    choice = {"head": head, "optimizer": optimizer, **settings}
    runs = [train(tmp_path / str(on), checkpoint_activations=on, **choice).run for on in (False, True)]
    assert_same(*runs)


@pytest.mark.slow
def test_an_interrupted_run_resumes_bit_for_bit(train, resume, interrupt_at, assert_same, tmp_path):
    whole = train(tmp_path / "whole", checkpoint_activations=True).run
    with pytest.raises(Interrupted):
        train(tmp_path / "run", interrupt_at(3), checkpoint_activations=True)
    assert_same(whole, resume(tmp_path / "run"))


class Block(nn.Module):
    """A block that keeps much, with what must not happen twice: dropout and statistics."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Dropout(0.3), nn.Sigmoid())
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.layers(self.layers(x)) + x


class Blocks(TinyTransformer):
    def __init__(self):
        super().__init__()
        self.more = nn.Sequential(Block(), Block(), Block())

    def forward(self, images, reads):
        return super().forward(self.more(images), reads)

    def layer_depths(self, unit):
        names = (name for name, _ in self.named_parameters())
        return {name: 1 + int(name.split(".")[1]) if name.startswith("more") else 0 for name in names}


def tiny(backbone_type):
    torch.manual_seed(0)
    return classifier_of(backbone_type(), lambda info: TinyHead(info, CLASSES))


def blocks(options):
    classifier = tiny(Blocks)
    checkpoint_activations(classifier, options)
    for block in classifier.backbone.more:
        block.calls = 0
    return classifier


def test_gradients_statistics_and_random_numbers_are_the_same_in_less_memory():
    images, targets = images_of(8, IMAGE_SIZE), F.one_hot(labels_of(8), CLASSES).float()
    found = []
    for options in (TrainOptions(), ON):
        classifier = blocks(options)
        update = update_of(classifier)
        torch.manual_seed(1)
        with PeakMemory(torch.device("cpu"), classifier.parameters()) as memory:
            update([(images, targets)])
        calls = [block.calls for block in classifier.backbone.more]
        found.append((classifier.state_dict(), torch.get_rng_state(), memory.peak, calls))
    (plain, draws, peak, _), (checkpointed, same_draws, lower, calls) = found
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)
    assert torch.equal(draws, same_draws)
    assert calls == [2, 2, 2] and lower < 0.7 * peak


def test_evaluation_runs_blocks_once():
    classifier = blocks(ON).eval()
    classifier(images_of(1, IMAGE_SIZE)).sum().backward()
    assert [block.calls for block in classifier.backbone.more] == [1, 1, 1]


def test_what_cannot_be_checkpointed_is_refused():
    for options, classifier in (
        (ON, tiny(TinyTransformer)),
        (TrainOptions(checkpoint_activations=True, compile=True), blocks(TrainOptions())),
    ):
        with pytest.raises(UsageError, match="checkpoint_activations=true"):
            checkpoint_activations(classifier, options)
