"""Whole benchmarks: failures are recorded in their rows, and an interruption keeps the results so far."""

from __future__ import annotations

import json
import logging
import signal
import sys
import weakref
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from fgvc_cli import ExplainerSpec, HeadSpec, OptimizerSpec, UsageError
from fgvc_cli.benchmarking import dry_run, measuring, pipeline, rows, run
from fgvc_cli.benchmarking.combinations import BenchRequest
from fgvc_cli.benchmarking.results import Feed, Report, Timing, Work, report_from_json
from fgvc_cli.benchmarking.rows import reason
from fgvc_cli.benchmarking.run import bench
from fgvc_cli.benchmarking.timing import Meter
from fgvc_cli.contracts import Explainer, Head, Loss, Objective, Reads
from fgvc_cli.errors import FgvcError, Terminated
from fgvc_cli.registry import Registry, get_registry
from fgvc_cli.registry.records import Component, Origin, PluginRecord
from fgvc_cli.training import setup

NET = "timm/test_resnet"


class Mean(Head):
    """Scores from the embedding."""

    def __init__(self, backbone, classes, options=None):
        super().__init__(backbone, classes, options)
        self.scores = torch.nn.Linear(backbone.embedding_width, classes)

    def reads(self, part=None):
        return Reads(embedding=True)

    def forward(self, features, part=None):
        return self.scores(features.embedding)

    def objectives(self, images, targets):
        yield Objective(images, lambda scores: Loss(F.cross_entropy(scores, targets), scores))


class Hungry(Mean):
    """Runs out of memory in training."""

    def objectives(self, images, targets):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7.00 GiB. GPU 0 ...")
        yield


class Blind(Mean):
    """Trains but cannot predict."""

    def predict(self, model, images):
        raise ValueError("no scores")


class Picky(Mean):
    """Accepts no backbone."""

    built = 0

    def __init__(self, backbone, classes, options=None):
        Picky.built += 1
        raise UsageError("picky needs another backbone")


class Leaving(Mean):
    """Calls sys.exit() in an update."""

    def objectives(self, images, targets):
        sys.exit("bye")
        yield


class Idle(Mean):
    """Yields no objective."""

    def objectives(self, images, targets):
        yield from ()


class NotANumber(Mean):
    """Its loss is NaN."""

    def objectives(self, images, targets):
        yield Objective(images, lambda scores: Loss(F.cross_entropy(scores, targets) * torch.nan, scores))


class Flat(Explainer):
    def __init__(self, options):
        pass

    def explain(self, classifier, images, targets):
        return torch.zeros_like(images[:, 0])


class Refusing(Flat):
    def check(self, classifier):
        raise UsageError("refusing explains nothing")


class Interrupted(Flat):
    def explain(self, classifier, images, targets):
        raise KeyboardInterrupt


HEADS = Mean, Hungry, Blind, Picky, Leaving, Idle, NotANumber
EXPLAINERS = Flat, Refusing, Interrupted
SPECS = [
    *(HeadSpec(c.__name__.lower(), f"made_to_fail:{c.__name__}") for c in HEADS),
    *(ExplainerSpec(c.__name__.lower(), f"made_to_fail:{c.__name__}") for c in EXPLAINERS),
    OptimizerSpec("lost", "nowhere:Optimizer", options="nowhere:Options"),
]


@pytest.fixture
def registry(monkeypatch) -> Registry:
    """What is installed, and components that fail in various ways."""
    module = ModuleType("made_to_fail")
    vars(module).update({c.__name__: c for c in (*HEADS, *EXPLAINERS)})
    monkeypatch.setitem(sys.modules, "made_to_fail", module)
    origin = Origin("made", "1.0")
    components = tuple(Component(spec, origin) for spec in SPECS)
    record = PluginRecord("made", origin, "made_to_fail", "loaded", components=components)
    return Registry([*get_registry().plugins, record])


@pytest.fixture
def kept() -> list[Report]:
    """The reports passed to `save`."""
    return []


def measure_by_macs(self, work, images, alive, compiled=False):
    """Stands in for `Meter.measure`: a time that follows from the MACs, whatever the load on the machine."""
    macs, peak, _ = self._count(work, alive())
    milliseconds = 1.0 + macs / 1e6
    return Work(Timing(milliseconds, milliseconds, milliseconds, 3), images, round(macs / images), peak)


@pytest.fixture
def measured(registry, kept, monkeypatch):
    """A function that benchmarks a small network; times follow from the MACs."""
    monkeypatch.setattr(run, "matmul_rate", lambda device, precision: 1e11)
    monkeypatch.setattr(Meter, "measure", measure_by_macs)
    monkeypatch.setattr(measuring, "gc", SimpleNamespace(collect=lambda: None))  # 0.1 s each, a dozen times

    def do(heads=("linear",), optimizers=("sgd",), backbone=NET, **request) -> Report:
        request = {"image_size": 32, "batch_size": 2, "classes": 5, "device": "cpu", "seconds": 0.01, **request}
        return bench(BenchRequest((backbone,), heads, optimizers, **request), registry, kept.append)

    return do


@pytest.fixture
def planned(monkeypatch):
    """A function that changes the plan of the next benchmarks."""
    plan = run.plan

    def change(make):
        monkeypatch.setattr(run, "plan", lambda request, registry: make(plan(request, registry)))

    return change


def test_a_report_holds_every_combination_and_the_machine(measured, kept):
    report = measured(heads=("pim", "linear"), explain=("gradcam",))
    expected = [(NET, "linear", "sgd"), (NET, "pim", "sgd")]
    assert [(row.backbone, row.head, row.optimizer) for row in report.rows] == expected
    assert [len(one.rows) for one in kept] == [1, 2] and kept[-1] == report
    assert not report.interrupted and all(row.failed is None for row in report.rows)
    plain, pim = report.rows
    assert (plain.baseline, plain.update.ratio, plain.update.time_vs_mac_bound) == (True, 1.0, 1.0)
    assert pim.parameters["head"] > plain.parameters["head"] and pim.parameters["backbone"] > 0
    assert pim.update.macs > plain.update.macs and pim.predict.ratio < 1
    assert pim.explain["gradcam"].ratio > 0
    assert (plain.image_size, plain.batch_size) == (32, 2)
    assert report.machine["device"] == "cpu" and report.machine["torch"] == torch.__version__.partition("+")[0]
    assert report.machine["macs_per_second"] == 1e11
    assert report.settings["precision"] == "fp32" and report.settings["explainers"]["gradcam"]["least_side"] == 6
    assert report_from_json(json.loads(json.dumps(report.as_json())), "it") == report


def test_predictions_and_explanations_are_measured_once_for_all_optimizers(measured, monkeypatch):
    built = []
    make = rows.RandomClassifier
    monkeypatch.setattr(rows, "RandomClassifier", lambda *arguments: built.append(1) or make(*arguments))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    report = measured(optimizers=("sgd", "adamw", "sam"), explain=("flat",))
    assert len(built) == 1
    assert len({id(row.explain["flat"].timing) for row in report.rows}) == 1
    assert len({id(row.predict.timing) for row in report.rows}) == 1
    assert len({id(row.update.timing) for row in report.rows}) == 3
    assert torch.backends.cudnn.benchmark  # as in training


def test_failures_are_recorded_in_their_rows(measured, caplog):
    caplog.set_level(logging.INFO, "fgvc_cli")
    heads = ("picky", "hungry", "blind", "leaving", "idle", "mean", "notanumber")
    report = measured(heads=heads, optimizers=("sgd", "lost"), explain=("refusing",))
    rows_by_name = {(row.head, row.optimizer): row for row in report.rows}
    assert len(report.rows) == 15  # with the baseline
    assert Picky.built == 1  # not again for the next optimizer
    picky = rows_by_name["picky", "sgd"]
    assert picky.failed == "picky needs another backbone" and picky.update is None and picky.predict is None
    assert any("picky + sgd: picky needs another backbone" in message for message in caplog.messages)
    hungry = rows_by_name["hungry", "sgd"]
    assert "out of memory with batches of 2 images of 32 px, allocating 7.00 GiB" in hungry.failed
    assert hungry.update is None and hungry.predict is not None and hungry.parameters["head"] > 0
    blind = rows_by_name["blind", "sgd"]
    assert "failed in predict(): ValueError: no scores" in blind.failed
    assert blind.update is not None and blind.predict is None
    assert "sys.exit('bye')" in rows_by_name["leaving", "sgd"].failed
    assert "at least one objective" in rows_by_name["idle", "sgd"].failed and rows_by_name["idle", "sgd"].update is None
    lost = rows_by_name["mean", "lost"]
    assert lost.failed and lost.update is None
    mean = rows_by_name["mean", "sgd"]
    assert mean.failed == "refusing: refusing explains nothing"
    assert mean.update.ratio is not None and mean.predict is not None
    assert rows_by_name["notanumber", "sgd"].update is not None  # timed like any other


def test_rows_are_compared_with_the_baseline_of_their_own_backbone(measured, planned):
    def two_backbones(found):
        plain, sam = found.combinations
        lost = replace(plain, backbone="other", config=None, failed="lost")
        return replace(found, combinations=[plain, sam, lost, replace(sam, backbone="other")])

    planned(two_backbones)
    report = measured(optimizers=("sgd", "sam"))
    ratios = [row.update and row.update.ratio for row in report.rows]
    assert ratios[0] == 1.0 and ratios[1] < 1 and ratios[2:] == [None, None]
    assert report.rows[1].optimizer_title == "sam over sgd"


def test_compiled_code_is_dropped_with_its_classifier(measured, monkeypatch):
    """Otherwise the graphs of the first would count against the limit of the last."""
    resets = []
    monkeypatch.setattr(measuring, "compile_in_place", lambda model: None)
    monkeypatch.setattr(torch._dynamo, "reset", lambda: resets.append(1))
    measured(heads=("linear", "mean"), compile=True)
    assert len(resets) == 1  # between the two


def test_sizes_that_cannot_be_trained_are_reasons(measured):
    (row,) = measured(backbone="vit_b16", image_size=50, batch_size=None).rows
    assert "50 px" in row.failed and (row.image_size, row.batch_size) == (50, 8)
    (row,) = measured(batch_size=1).rows
    assert "batch normalization" in row.failed and row.update is None and row.predict is not None


def test_an_interruption_keeps_the_results_so_far(measured, monkeypatch):
    make = rows.RowMaker.make

    def interrupted(self, combination):
        if combination.optimizer == "sam":
            raise KeyboardInterrupt
        return make(self, combination)

    monkeypatch.setattr(rows.RowMaker, "make", interrupted)
    report = measured(optimizers=("sgd", "sam", "adamw"))
    assert report.interrupted and [row.optimizer for row in report.rows] == ["sgd"]


def test_an_interruption_within_a_row_is_not_a_failure_of_the_row(measured):
    report = measured(explain=("interrupted",))
    assert report.interrupted and report.rows == ()


def test_sigterm_keeps_the_results_so_far_and_exits(measured, kept, monkeypatch):
    def terminated(classifier, config, *_):
        if config.optimizer.name == "sam":
            raise Terminated(signal.SIGTERM)  # raised by the handler of the signal
        return epoch_of(10.0)

    def terminated_at_once(*_):
        raise Terminated(signal.SIGTERM)

    monkeypatch.setattr(rows, "measure_update", terminated)
    with pytest.raises(Terminated):
        measured(optimizers=("sgd", "sam"))
    assert [len(one.rows) for one in kept] == [1, 1] and kept[-1].interrupted
    kept.clear()
    monkeypatch.setattr(rows, "RandomClassifier", terminated_at_once)
    with pytest.raises(Terminated):
        measured()
    assert kept == []


def test_memory_is_freed_when_nothing_refers_to_what_failed(measured, monkeypatch):
    held, alive = [], []

    def hungry(*_):
        memory = torch.ones(1)
        held.append(weakref.ref(memory))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(rows, "measure_update", hungry)
    monkeypatch.setattr(rows, "free_memory", lambda _: alive.extend(memory() for memory in held))
    measured()
    assert alive == [None]


def test_a_lost_gpu_fails_each_row(measured, monkeypatch):
    """After a fault on the device every call to it fails, also the one that frees memory."""

    def lost(*_):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(rows, "measure_update", lost)
    monkeypatch.setattr(torch.cuda, "empty_cache", lost)
    free = rows.free_memory
    monkeypatch.setattr(rows, "free_memory", lambda _: free(torch.device("cuda")))
    report = measured(optimizers=("sgd", "sam"))
    assert [row.failed for row in report.rows] == ["RuntimeError: CUDA error: device-side assert triggered"] * 2


def test_wrong_names_and_missing_images_are_refused_before_anything_is_measured(measured, kept, tmp_path):
    with pytest.raises(UsageError, match="'linear'"):
        measured(heads=("linaer",))
    with pytest.raises(FgvcError, match="nothing-here"):
        measured(epoch=True, data=tmp_path / "nothing-here")
    assert not kept


def epoch_of(milliseconds):
    return Work(Timing(milliseconds, milliseconds, milliseconds, 1), 40)


def test_an_epoch_is_measured_with_nothing_else_in_memory(measured, monkeypatch):
    epochs, alive, classifiers = [], [], []
    monkeypatch.setattr(setup, "open_splits", lambda config: ("dataset", f"splits of {config.dataset.name}"))
    make = rows.RandomClassifier

    def remembered(*arguments):
        classifier = make(*arguments)
        classifiers.append(weakref.ref(classifier))
        return classifier

    def measure_epoch(config, seconds, images):
        epochs.append((config.optimizer.name, config.train.batch_size, seconds, images))
        alive.extend(classifier() for classifier in classifiers)
        return epoch_of(100.0 * len(epochs))

    monkeypatch.setattr(rows, "RandomClassifier", remembered)
    monkeypatch.setattr(dry_run, "measure_epoch", measure_epoch)
    report = measured(optimizers=("sgd", "adamw"), epoch=True)
    assert [row.epoch.ratio for row in report.rows] == [1.0, 0.5]
    opened = ("dataset", "splits of demo")
    assert epochs == [("sgd", 2, 0.01, opened), ("adamw", 2, 0.01, opened)]
    assert alive == [None, None, None]
    assert report.rows[0].predict == report.rows[1].predict  # measured once, though the classifier was built twice


def test_the_pipeline_comes_first_and_needs_no_row(measured, kept, registry, monkeypatch):
    feeds = (Feed("first epoch", 10.0, 40), Feed("later epochs", 100.0, 40))
    monkeypatch.setattr(pipeline, "measure_feeds", lambda config, seconds, images: feeds)
    monkeypatch.setattr(setup, "open_splits", lambda config: None)
    report = measured(pipeline=True)
    assert report.feeds == feeds and len(report.rows) == 1
    assert (kept[0].feeds, kept[0].rows) == (feeds, ())
    report = bench(BenchRequest(pipeline=True, device="cpu"), registry, kept.append)
    assert (report.feeds, report.rows, report.settings["dataset"]) == (feeds, (), "demo")


def test_the_largest_batch_is_found_for_each_row(measured, monkeypatch, planned):
    found = iter([16, 8])

    def fitting_batch(classifier, config):
        size = next(found, None)
        if size is None:
            raise FgvcError("Out of memory even with batches of 8 images")
        return size

    monkeypatch.setattr(rows, "fitting_batch", fitting_batch)
    planned(lambda found: replace(found, largest_batch=True))
    report = measured(optimizers=("sgd", "sam"))
    assert [(row.batch_size, row.update.images) for row in report.rows] == [(16, 16), (8, 8)]
    assert {row.predict.images for row in report.rows} == {16}
    assert report.settings["batch_size"] == "max"
    (row,) = measured().rows
    assert row.failed.startswith("Out of memory") and row.predict is None


def test_out_of_memory_names_the_sizes_and_a_remedy():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**56, dtype=torch.uint8)
    for error, size in [
        (caught.value, "72058 TB"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has"), "2.50 GiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 40000000000 bytes."), "40 GB"),
        (MemoryError(), ""),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), ""),
    ]:
        text = reason(error, 64, 448)
        assert all(fact in text for fact in ("out of memory", "64 images", "448 px", "`batch_size`", size))
    error = torch._dynamo.exc.BackendCompilerFailed(lambda: None, RuntimeError("no C++ compiler"), None)
    assert reason(error, 8, 64).startswith("`compile` failed: BackendCompilerFailed: ")
