"""Averages of the weights: their formulas, what a run saves, and that a resumed run has the same ones."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from fgvc_cli.runs.results import EpochAverage, ValMetrics
from fgvc_cli.training import run as training
from fgvc_cli.training import trainer as trainer_module
from fgvc_cli.training.averaging import AverageOfEpochs, EmaOfWeights, estimate_statistics
from fgvc_cli.training.setup import Job
from fgvc_cli.training.state import Interrupted
from fgvc_cli.training.trainer import Trainer


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))


def train_a_step(net: nn.Module) -> None:
    net(torch.randn(4, 3, 8, 8)).square().mean().backward()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter -= 0.5 * parameter.grad
    net.zero_grad()


@pytest.mark.parametrize("decay", [0.8, 0.9999])
def test_ema_is_timms(decay):
    net = network()
    ours, timms = EmaOfWeights(net, decay), ModelEmaV3(net, decay=decay, use_warmup=True)
    for step in range(1, 30):
        train_a_step(net)
        ours.update()
        timms.update(net, step)
    own = copy.deepcopy(net.state_dict())
    with ours.applied():
        averaged = copy.deepcopy(net.state_dict())
    assert averaged["1.num_batches_tracked"] == 29
    for name, value in timms.module.state_dict().items():
        torch.testing.assert_close(averaged[name], value, rtol=0, atol=0)
        assert torch.equal(net.state_dict()[name], own[name])
    assert not torch.equal(averaged["1.running_mean"], own["1.running_mean"])


def test_an_error_while_the_average_is_applied_restores_the_weights():
    net = network()
    average = EmaOfWeights(net, 0.9)
    train_a_step(net)
    own = copy.deepcopy(net.state_dict())
    with pytest.raises(ZeroDivisionError), average.applied():
        raise ZeroDivisionError
    assert all(torch.equal(value, own[name]) for name, value in net.state_dict().items())


def test_the_average_is_validated_and_saved(train, tmp_path):
    run = train(tmp_path / "run", ema=0.9, epochs=1).run
    plain = train(tmp_path / "plain", epochs=1).run
    state, saved = load_file(run.state_file), load_file(run.model_file)
    own, alone = load_file(plain.state_file), load_file(plain.model_file)
    for name in saved:
        assert torch.equal(state[f"model.{name}"], own[f"model.{name}"])  # the average does not disturb the training
        if saved[name].is_floating_point() and saved[name].ndim:
            assert not torch.equal(saved[name], alone[name])
    assert run.metrics[0].train == plain.metrics[0].train and run.metrics[0].val.loss != plain.metrics[0].val.loss


@pytest.mark.parametrize(
    "options",
    [
        {"head": "linear", "optimizer": "muon", "grad_accum_steps": 2},
        pytest.param({"head": "pim", "optimizer": "sam", "layer_decay": 0.7}, marks=pytest.mark.slow),
        pytest.param({"head": "cmal", "average_epochs": 2, "logit_adjustment": 1.0}, marks=pytest.mark.slow),
    ],
    ids=lambda options: options["head"],
)
def test_a_run_with_averages_resumes_bit_for_bit(train, resume, interrupt_at, assert_same, tmp_path, options):
    whole = train(tmp_path / "whole", ema=0.9, **options).run
    with pytest.raises(Interrupted):
        train(tmp_path / "run", interrupt_at(10 // options.get("grad_accum_steps", 1)), ema=0.9, **options)
    assert_same(resume(tmp_path / "run"), whole)


def test_the_average_of_epochs_is_torchs():
    net = network()
    ours, torchs = AverageOfEpochs(net), AveragedModel(net)
    for _ in range(5):
        train_a_step(net)
        ours.include()
        torchs.update_parameters(net)
    images = torch.randn(10, 3, 8, 8)
    batches = [images[:4], images[4:8], images[8:]]
    update_bn(batches, torchs.module)
    with ours.applied():
        estimate_statistics(net.train(), [*batches, images[:1]], net)
        for name, value in torchs.module.state_dict().items():
            torch.testing.assert_close(net.state_dict()[name], value)
    assert net[1].momentum == 0.1


def test_statistics_of_frozen_layers_are_kept():
    net = network()
    net[1].eval()
    estimate_statistics(net, [torch.randn(4, 3, 8, 8)], net)
    assert net[1].running_mean.eq(0).all()


@pytest.mark.parametrize("better", [False, True])
def test_the_average_is_saved_if_it_is_better(train, tmp_path, monkeypatch, better):
    """All epochs score alike, and the average better or worse."""
    scores = iter([0.5, 0.5, 0.5, 0.6 if better else 0.4])
    monkeypatch.setattr(Trainer, "_validate", lambda trainer: (ValMetrics(6, 1.0, next(scores)), 0))
    saved = []
    monkeypatch.setattr(Job, "save_model", lambda job, path, document: saved.append(document))
    monkeypatch.setattr(training, "finish", lambda trainer: training._summary(trainer, None, 0))
    summary = train(tmp_path / "run", average_epochs=2, epochs=3).summary
    assert summary.average == EpochAverage(2, ValMetrics(6, 1.0, 0.6 if better else 0.4), better)
    assert saved[-1].get("average_epochs") == (2 if better else None)
    assert (summary.best_epoch, summary.val.top1) == ((3, 0.6) if better else (1, 0.5))


def killed(*arguments):
    raise KeyboardInterrupt


def test_a_run_on_kept_features_that_is_killed_at_its_end_averages_again(
    train, resume, assert_same, tmp_path, monkeypatch
):
    options = {"average_epochs": 2, "head": "pim", "freeze": "all", "augment": {"crop": "center", "flip": 0.0}}
    whole = train(tmp_path / "whole", **options).run
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_try_average", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run", **options)
    again = resume(tmp_path / "run")
    assert_same(again, whole)
    assert again.summary.average == whole.summary.average


def test_a_run_killed_at_its_end_averages_again(train, resume, assert_same, tmp_path, monkeypatch):
    options = {"average_epochs": 2, "epochs": 2, "ema": 0.9, "train_on": "train+val"}
    whole = train(tmp_path / "whole", **options).run
    assert whole.summary.average.saved and whole.summary.val is None
    state, saved = load_file(whole.state_file), load_file(whole.model_file)
    assert any(not torch.equal(state[f"model.{name}"], saved[name]) for name in saved)

    monkeypatch.setattr(trainer_module, "estimate_statistics", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", **options)
    monkeypatch.undo()
    assert_same(resume(tmp_path / "run"), whole)
