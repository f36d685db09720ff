"""Updates, predictions and explanations of one small classifier, measured."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fgvc_cli.benchmarking import measuring
from fgvc_cli.benchmarking.combinations import BenchRequest, plan
from fgvc_cli.benchmarking.measuring import (
    RandomClassifier,
    fitting_batch,
    measure_explainer,
    measure_prediction,
    measure_update,
    same_classifier,
)
from fgvc_cli.benchmarking.results import Timing, Work
from fgvc_cli.benchmarking.timing import Meter
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.explaining.explainers import make_explainer
from fgvc_cli.registry import get_registry
from fgvc_cli.training import precision

CPU = torch.device("cpu")
METER = Meter(CPU, 0.0, 1e11)
CLASSES = 7
SMALL_CMAL = ("head.expert_width=16", "head.map_channels=32", "head.hidden_width=16")


def config_of(head="linear", optimizer="sgd", *settings, **request):
    request = {"image_size": 32, "batch_size": 4, "device": "cpu", **request}
    request = BenchRequest(("timm/test_resnet",), (head,), (optimizer,), settings=settings, **request)
    return plan(request, get_registry()).combinations[-1].config


def classifier_of(config):
    return RandomClassifier(config, CLASSES, CPU)


def update_of(head="linear", optimizer="sgd", *settings, **request):
    config = config_of(head, optimizer, *settings, **request)
    return measure_update(classifier_of(config), config, config.train.batch_size, METER)


@pytest.fixture(scope="module")
def plain() -> Work:
    """An update with the linear head and SGD."""
    return update_of()


def test_an_update_has_time_macs_and_memory(plain):
    assert plain.images == 4 and plain.timing.rounds == 1
    assert plain.macs > 1e6 and plain.peak_memory > 0
    assert plain.matrix_share == pytest.approx(4 * plain.macs / (plain.timing.median / 1000) / 1e11, rel=1e-6)


def test_macs_are_of_everything_that_runs(plain):
    """SAM's two passes; micro-batches; CMAL's five objectives, which stop at the map that they need."""
    assert update_of(optimizer="sam").macs == 2 * plain.macs
    accumulated = update_of("linear", "sgd", "train.grad_accum_steps=2")
    assert (accumulated.macs, accumulated.images) == (plain.macs, 8)
    full = update_of("cmal", "sgd", *SMALL_CMAL, "head.full_passes=true").macs
    assert 4 * plain.macs < update_of("cmal", "sgd", *SMALL_CMAL).macs < full


def test_peak_memory_includes_the_optimizer_state(plain):
    """AdamW keeps two numbers per weight, SGD with momentum one, and without momentum none."""
    weights = 4 * sum(classifier_of(config_of()).parameters.values())
    none = update_of("linear", "sgd", "optimizer.momentum=0", "optimizer.nesterov=false").peak_memory
    two = update_of("linear", "adamw").peak_memory
    assert plain.peak_memory - none == pytest.approx(weights, rel=0.02)
    assert two - plain.peak_memory == pytest.approx(weights, rel=0.02)
    assert none > 2 * weights  # weights and gradients


def test_updates_run_as_in_training_and_leave_the_classifier_unchanged(monkeypatch):
    """In training mode, with clipping, and almost without moving the weights."""
    seen = []

    class Watched(precision.Update):
        def __call__(self, batches):
            seen.append((self.model.training, self.clip_norm))
            return super().__call__(batches)

    monkeypatch.setattr(precision, "Update", Watched)
    config = config_of("linear", "sgd", "train.clip_norm=0.5")
    classifier = classifier_of(config)
    model = classifier.model.eval()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    first = measure_update(classifier, config, 4, METER)
    assert set(seen) == {(True, 0.5)}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert 0 < max((p - b).abs().max() for p, b in zip(model.parameters(), before, strict=True)) < 0.01
    assert measure_update(classifier, config, 4, METER).macs == first.macs


def test_a_prediction_includes_all_passes_of_the_head(monkeypatch, plain):
    """It costs a third of an update, except that the first layer's input has no gradient."""
    classifier = classifier_of(config_of())
    model = classifier.model.train()
    scores = model.scores

    def watched(images):
        assert not model.training and torch.is_inference_mode_enabled()
        return scores(images)

    monkeypatch.setattr(model, "scores", watched)
    work = measure_prediction(classifier, 4, METER)
    assert model.training
    assert plain.macs / 3 < work.macs < plain.macs / 2.5
    assert work.peak_memory < plain.peak_memory
    cmal = classifier_of(config_of("cmal", "sgd", *SMALL_CMAL))
    assert measure_prediction(cmal, 4, METER).macs > 1.9 * work.macs  # images, and their regions


def test_explainers_explain_the_predicted_class(monkeypatch):
    classifier, registry = classifier_of(config_of()), get_registry()
    seen = []
    named = make_explainer("gradcam", {}, registry)
    explain = named.explainer.explain

    def watched(model, images, targets):
        assert not model.training and not torch.is_inference_mode_enabled() and not targets.is_inference()
        seen.append((images, targets))
        return explain(model, images, targets)

    monkeypatch.setattr(named.explainer, "explain", watched)
    work = measure_explainer(classifier, named, 4, METER)
    images, targets = seen[0]
    with torch.no_grad():
        assert torch.equal(classifier.model.scores(images).argmax(dim=1), targets)
    predicted = measure_prediction(classifier, 4, METER)
    assert predicted.macs < work.macs < 2 * predicted.macs  # backward to the target layer only
    assert measure_explainer(classifier, make_explainer("random", {}, registry), 4, METER).macs == 0
    with pytest.raises(UsageError):
        measure_explainer(classifier, make_explainer("native", {}, registry), 4, METER)


def test_images_and_targets_are_as_in_training():
    config = config_of("linear", "sgd", "train.label_smoothing=0.1", channels_last="on")
    classifier = classifier_of(config)
    ((images, targets),) = classifier.batches(config, 4)
    assert images.shape == (4, 3, 32, 32) and images.is_contiguous(memory_format=torch.channels_last)
    assert any(not p.is_contiguous() for p in classifier.model.parameters())
    assert targets.shape == (4, CLASSES) and torch.allclose(targets.sum(dim=1), torch.ones(4))
    assert targets[1, 1] == pytest.approx(0.9 + 0.1 / CLASSES)
    hard = config_of("linear", "sgd", "train.label_smoothing=0")
    assert classifier.batches(hard, 9)[0][1].tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1]


def test_bf16_is_measured_under_autocast():
    config = config_of(precision="bf16")
    classifier, seen = classifier_of(config), []
    gradcam = make_explainer("gradcam", {}, get_registry())
    classifier.model.backbone.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    full = measure_prediction(classifier_of(config_of()), 4, METER)
    for measure in (
        lambda: measure_update(classifier, config, 4, METER),
        lambda: measure_explainer(classifier, gradcam, 4, METER),
        lambda: measure_prediction(classifier, 4, METER),
    ):
        seen.clear()
        work = measure()
        assert seen and all(seen)
    assert work.macs == full.macs


def test_configurations_that_share_a_classifier():
    config = config_of()
    one, other = (classifier_of(config).model.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert same_classifier(config, config_of(optimizer="sam"))
    assert same_classifier(config, config_of("linear", "sgd", "train.label_smoothing=0"))
    assert not same_classifier(config, config_of("pim"))
    assert not same_classifier(config, config_of("linear", "sgd", "head.dropout=0.5"))
    assert not same_classifier(config, config_of(image_size=64))
    assert not same_classifier(config, config_of(precision="bf16"))


def test_comparison_with_a_baseline():
    baseline = Work(Timing(100.0, 90.0, 110.0, 5), 8, macs=1000)
    twice = Work(Timing(200.0, 90.0, 110.0, 5), 8, macs=1600).compared_with(baseline)
    assert (twice.ratio, twice.time_vs_mac_bound) == (0.5, pytest.approx(200 / (100 * 1.6)))
    larger_batch = Work(Timing(200.0, 90.0, 110.0, 5), 16, macs=1600).compared_with(baseline)
    assert (larger_batch.ratio, larger_batch.time_vs_mac_bound) == (1.0, pytest.approx(1 / 1.6))
    assert Work(baseline.timing, 8, macs=0).compared_with(baseline).time_vs_mac_bound is None


class Cramped:
    """An update that fails with more images than there is room for; `state` images' worth is taken by the first."""

    def __init__(self, room, error, state=0):
        self.room, self.error, self.state = room, error, state

    def __call__(self, *_):
        self.taken = 0
        return self.update

    def update(self, batches):
        if sum(len(images) for images, _ in batches) > self.room - self.taken:
            raise self.error
        self.taken = self.state


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory.")
NO_ENGINE = RuntimeError("GET was unable to find an engine to execute this computation")


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        (Cramped(45, OUT_OF_MEMORY), 40),
        (Cramped(49, OUT_OF_MEMORY, state=10), 32),
        (Cramped(7, OUT_OF_MEMORY), FgvcError),
        (Cramped(45, NO_ENGINE), 40),
        (Cramped(7, NO_ENGINE), RuntimeError),  # not for lack of memory
        (Cramped(45, RuntimeError("shapes differ")), RuntimeError),
    ],
)
def test_the_largest_batch_whose_updates_fit(monkeypatch, update, expected):
    monkeypatch.setattr(measuring, "gc", SimpleNamespace(collect=lambda: None))  # 0.1 s each, a dozen times
    monkeypatch.setattr(precision, "Update", update)
    config = config_of()
    classifier = classifier_of(config)
    if isinstance(expected, int):
        assert fitting_batch(classifier, config) == expected
    else:
        with pytest.raises(expected):
            fitting_batch(classifier, config)


@pytest.mark.slow
def test_a_compiled_model_is_counted_uncompiled_and_timed_compiled(plain):
    config = config_of(compile=True)
    classifier = classifier_of(config)
    work = measure_update(classifier, config, 4, METER)
    assert work.macs == plain.macs and work.timing.warm_up > 0
    assert measure_prediction(classifier, 4, METER).timing.rounds >= 1


@pytest.mark.gpu
def test_cuda_memory_and_largest_batch(monkeypatch):
    device = torch.device("cuda")
    config = config_of(device="cuda")
    classifier = RandomClassifier(config, CLASSES, device)
    work = measure_update(classifier, config, 64, Meter(device, 0.1, 1e12))
    assert work.peak_memory > 3 * 4 * sum(classifier.parameters.values())
    monkeypatch.setattr(measuring, "largest_batch", lambda fits: [n for n in (8, 64, 2**22) if fits(n)][-1])
    assert fitting_batch(classifier, config) == 64
