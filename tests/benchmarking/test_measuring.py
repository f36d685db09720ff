"""Updates, predictions and explanations of one small classifier, measured."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from fgvc_cli.benchmarking import measuring
from fgvc_cli.benchmarking import timing as metering
from fgvc_cli.benchmarking.combinations import BenchRequest, plan
from fgvc_cli.benchmarking.measuring import (
    Subject,
    fitting_batch,
    measure_explainer,
    measure_prediction,
    measure_update,
    same_subject,
)
from fgvc_cli.benchmarking.results import Timing, Work
from fgvc_cli.benchmarking.timing import Meter, beside
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.explaining.explainers import make_explainer
from fgvc_cli.registry import get_registry

CPU = torch.device("cpu")
METER = Meter(CPU, 0.01, 1e11)
CLASSES = 7


def config_of(head="linear", optimizer="sgd", *settings, **request):
    asked = {"image_size": 32, "batch_size": 4, "device": "cpu", **request}
    request = BenchRequest(("timm/test_resnet",), (head,), (optimizer,), settings=settings, **asked)
    return plan(request, get_registry()).combinations[-1].config


def subject_of(config):
    return Subject(config, CLASSES, CPU)


def update_of(head="linear", optimizer="sgd", *settings, **request):
    config = config_of(head, optimizer, *settings, **request)
    return measure_update(subject_of(config), config, config.train.batch_size, METER)


def test_an_update_is_timed_counted_and_weighed():
    work = update_of()
    assert work.images == 4
    assert work.timing.rounds >= 1 and 0 < work.timing.low <= work.timing.median <= work.timing.high
    assert work.multiply_adds > 1e6
    assert work.matrix_share == pytest.approx(4 * work.multiply_adds / (work.timing.median / 1000) / 1e11, rel=1e-6)


def test_what_is_executed_is_counted():
    """SAM's two passes; CMAL's five objectives, which stop where nothing more is needed; micro-batches."""
    plain = update_of().multiply_adds
    assert update_of(optimizer="sam").multiply_adds == 2 * plain
    assert update_of("linear", "sgd", "train.grad_accum_steps=2").multiply_adds == plain
    assert update_of("linear", "sgd", "train.grad_accum_steps=2").images == 8
    width = ("head.expert_width=16", "head.map_channels=32", "head.hidden_width=16")
    full = update_of("cmal", "sgd", *width, "head.full_passes=true").multiply_adds
    assert 4 * plain < update_of("cmal", "sgd", *width).multiply_adds < full


def test_the_optimizers_state_is_weighed():
    """AdamW keeps two numbers for each weight, SGD with momentum one, and without none."""
    weights = 4 * sum(subject_of(config_of()).parameters.values())
    none = update_of("linear", "sgd", "optimizer.momentum=0", "optimizer.nesterov=false").peak_memory
    one, two = (update_of("linear", name).peak_memory for name in ("sgd", "adamw"))
    assert one - none == pytest.approx(weights, rel=0.02)
    assert two - one == pytest.approx(weights, rel=0.02)
    assert none > 2 * weights  # weights and gradients


def test_updates_are_those_of_a_training(monkeypatch):
    """In training mode, whatever was measured before, and clipped."""
    seen = []

    class Watched(measuring.Update):
        def __call__(self, batches):
            seen.append((self.model.training, self.clip_norm))
            return super().__call__(batches)

    monkeypatch.setattr(measuring, "Update", Watched)
    config = config_of("linear", "sgd", "train.clip_norm=0.5")
    subject = subject_of(config)
    subject.classifier.eval()
    measure_update(subject, config, 4, METER)
    assert set(seen) == {(True, 0.5)}


def test_an_update_leaves_the_classifier_for_the_next_one():
    config = config_of()
    subject = subject_of(config)
    before = [parameter.detach().clone() for parameter in subject.classifier.parameters()]
    first = measure_update(subject, config, 4, METER)
    assert all(parameter.grad is None for parameter in subject.classifier.parameters())
    moved = max((p - b).abs().max() for p, b in zip(subject.classifier.parameters(), before, strict=True))
    assert 0 < moved < 0.01  # it is trained, so slowly that it stays what it is
    assert measure_update(subject, config, 4, METER).multiply_adds == first.multiply_adds


def test_a_prediction_takes_all_passes_of_the_head(monkeypatch):
    """And costs a third of an update, but for the first layer, whose images need no gradient."""
    subject = subject_of(config_of())
    subject.classifier.train()
    scores = subject.classifier.scores

    def watched(images):
        assert not subject.classifier.training and torch.is_inference_mode_enabled()
        return scores(images)

    monkeypatch.setattr(subject.classifier, "scores", watched)
    work = measure_prediction(subject, 4, METER)
    assert subject.classifier.training
    update = update_of()
    assert update.multiply_adds / 3 < work.multiply_adds < update.multiply_adds / 2.5
    assert work.peak_memory < update.peak_memory
    width = ("head.expert_width=16", "head.map_channels=32", "head.hidden_width=16")
    cmal = subject_of(config_of("cmal", "sgd", *width))
    assert measure_prediction(cmal, 4, METER).multiply_adds > 1.9 * work.multiply_adds  # images, and their regions


def test_explainers_are_measured_on_the_predicted_class(monkeypatch):
    subject, registry = subject_of(config_of()), get_registry()
    seen = []
    named = make_explainer("gradcam", {}, registry)
    explain = named.explainer.explain

    def watched(classifier, images, targets):
        assert not classifier.training and not torch.is_inference_mode_enabled() and not targets.is_inference()
        seen.append((images, targets))
        return explain(classifier, images, targets)

    monkeypatch.setattr(named.explainer, "explain", watched)
    work = measure_explainer(subject, named, 4, METER)
    images, targets = seen[0]
    with torch.no_grad():
        assert torch.equal(subject.classifier.scores(images).argmax(dim=1), targets)
    predicted = measure_prediction(subject, 4, METER)
    assert predicted.multiply_adds < work.multiply_adds < 2 * predicted.multiply_adds  # back to the layer alone
    random = measure_explainer(subject, make_explainer("random", {}, registry), 4, METER)
    assert random.multiply_adds == 0


def test_an_explainer_that_refuses_is_not_measured():
    subject = subject_of(config_of())
    with pytest.raises(UsageError, match="native shows the head's own attention"):
        measure_explainer(subject, make_explainer("native", {}, get_registry()), 4, METER)


def test_images_and_targets_are_as_a_training_has_them():
    config = config_of("linear", "sgd", channels_last="on")
    subject = subject_of(config)
    ((images, targets),) = subject.batches(config, 4)
    assert images.shape == (4, 3, 32, 32) and images.is_contiguous(memory_format=torch.channels_last)
    assert any(
        p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous()
        for p in subject.classifier.parameters()
    )
    assert targets.shape == (4, CLASSES) and torch.allclose(targets.sum(dim=1), torch.ones(4))
    assert targets[1, 1] == pytest.approx(0.9 + 0.1 / CLASSES)
    hard = config_of("linear", "sgd", "train.label_smoothing=0")
    assert subject.batches(hard, 9)[0][1].tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1]


def test_bf16_is_measured_in_bf16():
    config = config_of(precision="bf16")
    subject, low = subject_of(config), []
    gradcam = make_explainer("gradcam", {}, get_registry())
    subject.classifier.backbone.register_forward_pre_hook(lambda *_: low.append(torch.is_autocast_enabled("cpu")))
    with subject.autocast():
        assert subject.classifier(subject.images(2)).dtype == torch.bfloat16
    for measure in (
        lambda: measure_update(subject, config, 4, METER),
        lambda: measure_prediction(subject, 4, METER),
        lambda: measure_explainer(subject, gradcam, 4, METER),
    ):
        low.clear()
        measure()
        assert low and all(low)
    full = measure_prediction(subject_of(config_of()), 4, METER)
    assert measure_prediction(subject, 4, METER).multiply_adds == full.multiply_adds


def test_a_classifier_is_built_alike_each_time():
    one, other = (subject_of(config_of()).classifier.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_which_configurations_share_a_classifier():
    config = config_of()
    assert same_subject(config, config_of(optimizer="sam"))
    assert same_subject(config, config_of("linear", "sgd", "train.label_smoothing=0"))
    assert not same_subject(config, config_of("pim"))
    assert not same_subject(config, config_of("linear", "sgd", "head.dropout=0.5"))
    assert not same_subject(config, config_of(image_size=64))
    assert not same_subject(config, config_of(precision="bf16"))


def test_work_is_set_beside_the_baselines():
    timing = Timing(100.0, 90.0, 110.0, 5)
    baseline = Work(timing, 8, multiply_adds=1000)
    twice = Work(replace(timing, median=200.0), 8, multiply_adds=1600)
    found = beside(twice, baseline)
    assert (found.ratio, found.over_arithmetic) == (0.5, pytest.approx(200 / (100 * 1.6)))
    other_batch = beside(replace(twice, images=16), baseline)
    assert (other_batch.ratio, other_batch.over_arithmetic) == (1.0, pytest.approx(1 / 1.6))
    assert (beside(baseline, baseline).ratio, beside(baseline, baseline).over_arithmetic) == (1.0, 1.0)
    assert beside(replace(twice, multiply_adds=0), baseline).over_arithmetic is None
    assert beside(twice, None) == twice and beside(None, baseline) is None


def test_slow_work_is_not_done_more_often_than_needed():
    """What took longer to count than there is time has warmed up by that."""
    calls = []

    def slow():
        calls.append(1)
        torch.ones(1).add(1)

    Meter(CPU, 0.0).measure(slow, 1, list)
    assert len(calls) == 2  # counted, timed
    calls.clear()
    Meter(CPU, 0.0).measure(slow, 1, list, compiled=True)
    assert len(calls) == 3  # counted uncompiled, compiled, timed


def test_quick_work_warms_up_and_its_median_is_set_beside_the_matrix_rate(monkeypatch):
    calls = []
    monkeypatch.setattr(metering, "time_rounds", lambda work, seconds, clock: [10.0, 20.0, 90.0])
    layer, image = torch.nn.Linear(100, 10), torch.ones(2, 100)
    work = Meter(CPU, 60.0, 1e6).measure(lambda: calls.append(layer(image)), 2, list)
    assert len(calls) == 2  # counted, warmed up
    assert work.multiply_adds == 1000 and work.matrix_share == pytest.approx(2000 / 0.020 / 1e6)


def test_how_long_a_cpu_had_other_work_is_told():
    work = Meter(CPU, 0.05).measure(lambda: time.sleep(0.01), 1, list)
    assert work.timing.waited is not None and work.timing.waited > 0.8


def test_on_a_gpu_the_allocators_peak_is_that_of_the_timed_rounds_alone(monkeypatch):
    """No GPU is at hand: what torch.cuda is asked, and when, is what can be seen."""
    told = []
    event = SimpleNamespace(record=lambda stream: None, synchronize=lambda: told.append("wait"))
    event.elapsed_time = lambda later: 5.0
    fakes = {
        "Event": lambda enable_timing: event,
        "current_stream": lambda device: None,
        "synchronize": lambda device: told.append("wait"),
        "reset_peak_memory_stats": lambda device: told.append("reset"),
        "max_memory_allocated": lambda device: told.append("peak") or 12345,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    work = Meter(torch.device("cuda"), 0.0).measure(lambda: told.append("work"), 4, list)
    counted, warmed, timed = ["work", "wait"], ["work"] * 3 + ["wait"], ["reset", "work", "wait", "peak"]
    assert told == counted + warmed + timed
    assert (work.peak_memory, work.timing.median, work.matrix_share) == (12345, 5.0, None)
    assert work.timing.waited is None  # it is not the thread that works


class Cramped:
    """An update that has room for so many images, and from the second one on, beside its state, for fewer."""

    def __init__(self, room, error, state=0):
        self.room, self.error, self.state = room, error, state

    def __call__(self, *_):
        self.taken = 0
        return self.update

    def update(self, batches):
        if sum(len(images) for images, _ in batches) > self.room - self.taken:
            raise self.error
        self.taken = self.state


def test_the_largest_batch_is_the_largest_whose_updates_fit(monkeypatch):
    monkeypatch.setattr(measuring, "gc", SimpleNamespace(collect=lambda: None))  # 0.1 s each, a dozen times
    config = config_of()
    subject = subject_of(config)
    monkeypatch.setattr(measuring, "Update", Cramped(45, torch.OutOfMemoryError("CUDA out of memory.")))
    assert fitting_batch(subject, config) == 40
    monkeypatch.setattr(measuring, "Update", Cramped(49, torch.OutOfMemoryError("CUDA out of memory."), state=10))
    assert fitting_batch(subject, config) == 32
    monkeypatch.setattr(measuring, "Update", Cramped(7, torch.OutOfMemoryError("CUDA out of memory.")))
    with pytest.raises(FgvcError, match="not even batches of 8"):
        fitting_batch(subject, config)
    no_engine = RuntimeError("GET was unable to find an engine to execute this computation")
    monkeypatch.setattr(measuring, "Update", Cramped(45, no_engine))
    assert fitting_batch(subject, config) == 40
    monkeypatch.setattr(measuring, "Update", Cramped(7, no_engine))
    with pytest.raises(RuntimeError, match="unable to find an engine"):  # for want of something else than memory
        fitting_batch(subject, config)
    monkeypatch.setattr(measuring, "Update", Cramped(45, RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        fitting_batch(subject, config)


@pytest.mark.slow
def test_a_compiled_model_is_counted_uncompiled_and_timed_compiled():
    config = config_of(compile=True)
    subject = subject_of(config)
    work = measure_update(subject, config, 4, METER)
    assert work.multiply_adds == update_of().multiply_adds
    assert work.timing.warm_up > work.timing.median / 1000
    assert measure_prediction(subject, 4, METER).timing.rounds >= 1


@pytest.mark.gpu
def test_on_a_gpu_the_allocator_weighs_and_the_largest_batch_is_found(monkeypatch):
    device = torch.device("cuda")
    config = config_of(device="cuda")
    subject = Subject(config, CLASSES, device)
    work = measure_update(subject, config, 64, Meter(device, 0.1, 1e12))
    assert work.peak_memory > 3 * 4 * sum(subject.parameters.values())
    monkeypatch.setattr(measuring, "largest_batch", lambda fits: [n for n in (8, 64, 2**22) if fits(n)][-1])
    assert fitting_batch(subject, config) == 64
