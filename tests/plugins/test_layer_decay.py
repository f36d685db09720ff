"""`train.layer_decay`: the learning rate of each layer, with every optimizer, and what is refused."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay

from fgvc_cli.config.run_config import Choice, resolve
from fgvc_cli.contracts import Backbone, Optimizer
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.registry import get_registry
from fgvc_cli.training.setup import build_optimizer


def choice(name: str, **options) -> Choice:
    layer = {"optimizer": {"name": name, "lr": 0.5, "head_lr": 3.0, **options}}
    return resolve([layer], "scratch", {}, get_registry()).optimizer


def rates_by_parameter(optimizer: Optimizer) -> dict[torch.Tensor, float]:
    base = getattr(optimizer, "base", optimizer)
    return {p: group["lr"] for group in base.optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("name", ["sgd", "adamw", "sam"])
@pytest.mark.parametrize("model", ["test_resnet", "test_efficientnet", "test_vit"])
def test_rates_are_timms(classifier_of, name, model):
    classifier = classifier_of(f"timm/{model}", "linear", 64, 5)
    optimizer = build_optimizer(choice(name), classifier, 0.7)
    optimizer.set_rate(0.1)
    found = rates_by_parameter(optimizer)
    whole = timm.create_model(model, num_classes=0)
    names = {parameter: name for name, parameter in whole.named_parameters()}
    expected = {
        names[parameter]: group["lr_scale"]
        for group in param_groups_layer_decay(whole, layer_decay=0.7)
        for parameter in group["params"]
    }
    last_norm = ("norm", "head")  # a layer of its own for timm, part of the last block here
    deepest = max(scale for name, scale in expected.items() if not name.startswith(last_norm))
    for name, parameter in classifier.backbone.model.named_parameters():
        scale = 1 if name.startswith(last_norm) else expected[name] / deepest
        assert found[parameter] == pytest.approx(0.1 * 0.5 * scale), name
    for parameter in classifier.head.parameters():
        assert found[parameter] == pytest.approx(0.1 * 3.0)
    assert optimizer.rates() == pytest.approx({"backbone": 0.05, "head": 0.3})


def test_without_decay_there_are_two_groups(classifier_of):
    optimizer = build_optimizer(choice("sgd"), classifier_of("timm/test_resnet", "linear", 64, 5))
    assert len(optimizer.optimizer.param_groups) == 2


def test_what_cannot_decay_by_layer_is_refused_in_one_line(classifier_of, monkeypatch):
    classifier = classifier_of("timm/test_resnet", "linear", 64, 5)
    monkeypatch.setattr("fgvc_cli.contracts.TorchOptimizer.scales_rates", False)
    for name in ("sgd", "sam"):
        with pytest.raises(UsageError, match=rf"layer_decay=0.5.*{name}"):
            build_optimizer(choice(name), classifier, 0.5)
    monkeypatch.setattr(type(classifier.backbone), "layer_depths", Backbone.layer_depths)
    with pytest.raises(FgvcError, match=r"layer_decay=0.5.*test_resnet"):
        build_optimizer(choice("sgd"), classifier, 0.5)
