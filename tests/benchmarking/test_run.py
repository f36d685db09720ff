"""Whole benchmarks: what fails is told in its row, the others go on, and an interruption keeps what there is."""

from __future__ import annotations

import json
import sys
import weakref
from dataclasses import dataclass, field, replace
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from fgvc_cli import ExplainerSpec, HeadSpec, OptimizerSpec, UsageError
from fgvc_cli.benchmarking import dry_run, measuring, pipeline, rows, run
from fgvc_cli.benchmarking.combinations import LARGEST, BenchRequest
from fgvc_cli.benchmarking.results import Feed, Report, Timing, Work, report_from_json
from fgvc_cli.benchmarking.run import PIPELINE, bench
from fgvc_cli.contracts import Explainer, Head, Loss, Objective, Reads
from fgvc_cli.errors import FgvcError
from fgvc_cli.registry import Registry, get_registry
from fgvc_cli.registry.records import Component, Origin, PluginRecord
from fgvc_cli.training import setup

NET = "timm/test_resnet"


class Mean(Head):
    """Classes from the means of a map's channels."""

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
    """Needs more memory for training than there is."""

    def objectives(self, images, targets):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7.00 GiB. GPU 0 ...")
        yield


class Blind(Mean):
    """Trains, and cannot predict."""

    def predict(self, model, images):
        raise ValueError("no eyes")


class Picky(Mean):
    """Is built on no backbone."""

    built = 0

    def __init__(self, backbone, classes, options=None):
        Picky.built += 1
        raise UsageError("picky wants another backbone.")


class Leaving(Mean):
    """Ends the program in the middle of an update, as a script does."""

    def objectives(self, images, targets):
        sys.exit("bye")
        yield


class Idle(Mean):
    """Has nothing to minimize."""

    def objectives(self, images, targets):
        yield from ()


class NotANumber(Mean):
    """Its loss is not a number."""

    def objectives(self, images, targets):
        yield Objective(images, lambda scores: Loss(F.cross_entropy(scores, targets) * torch.nan, scores))


class Flat(Explainer):
    def __init__(self, options):
        pass

    def explain(self, classifier, images, targets):
        return torch.zeros_like(images[:, 0])


class Refusing(Flat):
    def check(self, classifier):
        raise UsageError("refusing explains nothing.")


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
    """What is installed, and components that fail in all ways."""
    module = ModuleType("made_to_fail")
    vars(module).update({c.__name__: c for c in (*HEADS, *EXPLAINERS)})
    monkeypatch.setitem(sys.modules, "made_to_fail", module)
    origin = Origin("made", "1.0")
    components = tuple(Component(spec, origin) for spec in SPECS)
    record = PluginRecord("made", origin, "made_to_fail", "loaded", components=components)
    return Registry([*get_registry().plugins, record])


@dataclass
class Seen:
    """What a watcher is told, and each report that is kept."""

    planned_: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    kept: list[Report] = field(default_factory=list)

    def planned(self, names):
        assert not self.planned_ and not self.events
        self.planned_ = list(names)

    def started(self, name):
        self.events.append(f"started {name}")

    def finished(self, row):
        self.events.append(f"finished {row.name}")


@pytest.fixture
def seen():
    return Seen()


@pytest.fixture
def measured(registry, seen, monkeypatch):
    """A function that runs a benchmark of a small network."""
    monkeypatch.setattr(run, "multiply_adds_per_second", lambda device, precision: 1e11)
    monkeypatch.setattr(measuring, "gc", SimpleNamespace(collect=lambda: None))  # 0.1 s each, a dozen times

    def do(heads=("linear",), optimizers=("sgd",), backbone=NET, **request) -> Report:
        asked = {"image_size": 32, "batch_size": 2, "classes": 5, "device": "cpu", "seconds": 0.01, **request}
        return bench(BenchRequest((backbone,), heads, optimizers, **asked), registry, seen, seen.kept.append)

    return do


def test_a_report_holds_every_combination_and_the_machine(measured, seen):
    report = measured(heads=("pim", "linear"), optimizers=("sgd", "sam"), explainers=("gradcam",))
    names = [f"{NET} + {pair}" for pair in ("linear + sgd", "linear + sam", "pim + sgd", "pim + sam")]
    assert [row.name for row in report.rows] == seen.planned_ == names
    assert seen.events == [event for name in names for event in (f"started {name}", f"finished {name}")]
    assert [len(kept.rows) for kept in seen.kept] == [1, 2, 3, 4] and seen.kept[-1] == report
    assert not report.interrupted and all(row.failed is None for row in report.rows)
    plain, sam, pim, _ = report.rows
    assert (plain.baseline, plain.update.ratio, plain.update.over_arithmetic) == (True, 1.0, 1.0)
    assert sam.optimizer_title == "sam over sgd" and sam.update.ratio < 1
    assert pim.parameters["head"] > plain.parameters["head"] and pim.parameters["backbone"] > 0
    assert pim.update.multiply_adds > plain.update.multiply_adds and pim.predict.ratio < 1
    assert pim.explain["gradcam"].ratio > 0
    assert (plain.image_size, plain.batch_size) == (32, 2)
    assert report.machine["device"] == "cpu" and report.machine["torch"] == torch.__version__.partition("+")[0]
    assert report.machine["multiply_adds_per_second"] == 1e11
    assert report.settings["precision"] == "fp32" and report.settings["explainers"]["gradcam"]["least_side"] == 6
    assert report_from_json(json.loads(json.dumps(report.as_json())), "it") == report


def test_convolutions_are_chosen_as_in_a_training(measured, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    measured()
    assert torch.backends.cudnn.benchmark


def test_predictions_and_explanations_are_measured_once_for_all_optimizers(measured, monkeypatch):
    built = []
    make = rows.Subject
    monkeypatch.setattr(rows, "Subject", lambda *arguments: built.append(1) or make(*arguments))
    report = measured(optimizers=("sgd", "adamw", "sam"), explainers=("flat",))
    assert len(built) == 1
    assert len({row.predict for row in report.rows}) == 1 and len({row.explain["flat"] for row in report.rows}) == 1
    assert len({row.update for row in report.rows}) == 3


def test_what_fails_is_a_reason_in_its_row_and_the_others_go_on(measured):
    heads = ("picky", "hungry", "blind", "leaving", "idle", "mean")
    report = measured(heads=heads, optimizers=("sgd", "lost"), explainers=("refusing",))
    rows_by_name = {(row.head, row.optimizer): row for row in report.rows}
    assert len(report.rows) == 13  # with the baseline
    assert Picky.built == 1  # not again for the next optimizer
    picky = rows_by_name["picky", "sgd"]
    assert picky.failed == "picky wants another backbone." and picky.update is None and picky.predict is None
    hungry = rows_by_name["hungry", "sgd"]
    assert "out of memory with batches of 2 images of 32 px: 7.00 GiB more were asked for" in hungry.failed
    assert hungry.update is None and hungry.predict is not None and hungry.parameters["head"] > 0
    blind = rows_by_name["blind", "sgd"]
    assert "predict: ValueError: no eyes" in blind.failed
    assert blind.update is not None and blind.predict is None
    assert rows_by_name["leaving", "sgd"].failed.startswith("it called sys.exit('bye')")
    assert "Idle yielded no objective: there is nothing to minimize" in rows_by_name["idle", "sgd"].failed
    lost = rows_by_name["mean", "lost"]
    assert "options that could not be loaded" in lost.failed and lost.update is None
    mean = rows_by_name["mean", "sgd"]
    assert mean.failed == "refusing: refusing explains nothing."
    assert mean.update.ratio is not None and mean.predict is not None


def test_rows_are_set_beside_the_baseline_of_their_own_backbone_or_none(measured, monkeypatch):
    planned = run.plan

    def two_backbones(request, registry):
        found = planned(request, registry)
        plain, sam = found.combinations
        lost = replace(plain, backbone="other", config=None, failed="lost")
        return replace(found, combinations=[plain, sam, lost, replace(sam, backbone="other")])

    monkeypatch.setattr(run, "plan", two_backbones)
    ratios = [row.update and row.update.ratio for row in measured(optimizers=("sgd", "sam")).rows]
    assert ratios[0] == 1.0 and ratios[1] is not None and ratios[2:] == [None, None]


def test_what_was_compiled_for_a_classifier_goes_with_it(measured, monkeypatch):
    """Else the graphs of the first would count against the limit of the last."""
    resets = []
    monkeypatch.setattr(measuring, "compile_in_place", lambda model: None)
    monkeypatch.setattr(torch._dynamo, "reset", lambda: resets.append(1))
    measured(heads=("linear", "mean"), compile=True)
    assert len(resets) == 1  # between the two


def test_a_size_that_the_backbone_refuses_is_a_reason(measured):
    (row,) = measured(backbone="vit_b16", image_size=50, batch_size=None).rows
    assert "cannot take images of 50 px" in row.failed and (row.image_size, row.batch_size) == (50, 8)


def test_a_loss_that_is_not_finite_is_timed_like_any(measured):
    report = measured(heads=("notanumber",))
    assert report.rows[-1].failed is None and report.rows[-1].update is not None


def test_an_interruption_keeps_what_is_measured(measured, seen, monkeypatch):
    make = rows.RowMaker.make

    def interrupted(self, combination):
        if combination.optimizer == "sam":
            raise KeyboardInterrupt
        return make(self, combination)

    monkeypatch.setattr(rows.RowMaker, "make", interrupted)
    report = measured(optimizers=("sgd", "sam", "adamw"))
    assert report.interrupted and [row.optimizer for row in report.rows] == ["sgd"]
    assert seen.events[-1] == f"started {NET} + linear + sam"


def test_sigterm_ends_the_program_and_keeps_what_is_measured(measured, seen, monkeypatch):
    def terminated(subject, config, *_):
        if config.optimizer.name == "sam":
            raise SystemExit(143)  # what the program's handler of the signal raises
        return timed_epoch(10.0)

    monkeypatch.setattr(rows, "measure_update", terminated)
    with pytest.raises(SystemExit):
        measured(optimizers=("sgd", "sam"))
    assert [len(kept.rows) for kept in seen.kept] == [1, 1] and seen.kept[-1].interrupted


def test_sigterm_before_anything_is_measured_leaves_nothing(measured, seen, monkeypatch):
    monkeypatch.setattr(rows, "Subject", lambda *_: sys.exit(143))
    with pytest.raises(SystemExit):
        measured()
    assert seen.kept == []


def test_a_batch_that_no_training_takes_is_a_reason(measured):
    (row,) = measured(batch_size=1).rows
    assert row.failed.startswith("--batch-size 1: batch normalization cannot train on one image.")
    assert row.update is None and row.predict is not None


def test_memory_is_given_back_when_nothing_holds_on_to_what_failed(measured, monkeypatch):
    held, alive = [], []

    def hungry(*_):
        memory = torch.ones(1)
        held.append(weakref.ref(memory))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(rows, "measure_update", hungry)
    monkeypatch.setattr(rows, "free_memory", lambda _: alive.extend(memory() for memory in held))
    measured()
    assert alive == [None]


def test_a_gpu_that_is_lost_is_told_row_by_row(measured, monkeypatch):
    """After a fault on the device every call to it fails, the one that gives memory back included."""

    def lost(*_):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(rows, "measure_update", lost)
    monkeypatch.setattr(torch.cuda, "empty_cache", lost)
    free = rows.free_memory
    monkeypatch.setattr(rows, "free_memory", lambda _: free(torch.device("cuda")))
    report = measured(optimizers=("sgd", "sam"))
    assert [row.failed for row in report.rows] == ["RuntimeError: CUDA error: device-side assert triggered"] * 2


def test_an_interruption_within_a_row_is_no_failure_of_it(measured):
    report = measured(explainers=("interrupted",))
    assert report.interrupted and report.rows == ()


def test_a_name_that_is_not_known_is_refused_before_anything_is_measured(measured, seen):
    with pytest.raises(UsageError, match="Did you mean 'linear'"):
        measured(heads=("linaer",))
    assert not seen.planned_


def timed_epoch(milliseconds):
    return Work(Timing(milliseconds, milliseconds, milliseconds, 1), 40)


def test_an_epoch_is_measured_with_nothing_else_in_memory(measured, monkeypatch):
    epochs, alive = [], []
    monkeypatch.setattr(setup, "open_splits", lambda config: ("the set", f"splits of {config.dataset.name}"))
    make = rows.Subject
    subjects = []

    def remembered(*arguments):
        subject = make(*arguments)
        subjects.append(weakref.ref(subject))
        return subject

    def measure_epoch(config, seconds, images):
        epochs.append((config.optimizer.name, config.train.batch_size, seconds, images))
        alive.extend(subject() for subject in subjects)
        return timed_epoch(100.0 * len(epochs))

    monkeypatch.setattr(rows, "Subject", remembered)
    monkeypatch.setattr(dry_run, "measure_epoch", measure_epoch)
    report = measured(optimizers=("sgd", "adamw"), epoch=True)
    assert [row.epoch.ratio for row in report.rows] == [1.0, 0.5]
    opened = ("the set", "splits of demo")
    assert epochs == [("sgd", 2, 0.01, opened), ("adamw", 2, 0.01, opened)]
    assert alive == [None, None, None]
    assert report.rows[0].predict == report.rows[1].predict  # measured once, though the classifier was built twice


def test_the_pipeline_comes_first_and_needs_no_row(measured, seen, registry, monkeypatch):
    feeds = (Feed("first epoch", 10.0, 40), Feed("later epochs", 100.0, 40))
    monkeypatch.setattr(pipeline, "measure_feeds", lambda config, seconds, images: feeds)
    monkeypatch.setattr(setup, "open_splits", lambda config: None)
    report = measured(pipeline=True)
    assert report.feeds == feeds and len(report.rows) == 1
    assert seen.events[0] == f"started {PIPELINE}" and (seen.kept[0].feeds, seen.kept[0].rows) == (feeds, ())
    alone = Seen()
    report = bench(BenchRequest(pipeline=True, device="cpu"), registry, alone, alone.kept.append)
    assert (report.feeds, report.rows, alone.planned_) == (feeds, (), [])
    assert report.settings["dataset"] == "demo"


def test_images_that_are_not_there_are_told_before_anything_is_measured(measured, seen, tmp_path):
    with pytest.raises(FgvcError, match="nothing-here"):
        measured(epoch=True, data=tmp_path / "nothing-here")
    assert not seen.planned_


def test_the_largest_batch_is_found_for_each_row(measured, monkeypatch):
    """No GPU is at hand: the search is replaced, and what it finds must be used."""
    found = iter([16, 8])
    monkeypatch.setattr(rows, "fitting_batch", lambda subject, config: next(found))
    planned = run.plan

    def as_on_a_gpu(request, registry):
        return replace(planned(replace(request, batch_size=2), registry), largest=True)

    monkeypatch.setattr(run, "plan", as_on_a_gpu)
    report = measured(optimizers=("sgd", "sam"), batch_size=LARGEST)
    assert [(row.batch_size, row.update.images) for row in report.rows] == [(16, 16), (8, 8)]
    assert {row.predict.images for row in report.rows} == {16}
    assert report.settings["batch_size"] == "max"


def test_where_no_batch_fits_the_row_says_so(measured, monkeypatch):
    def none(subject, config):
        raise FgvcError("Out of memory: not even batches of 8 images fit.")

    monkeypatch.setattr(rows, "fitting_batch", none)
    planned = run.plan
    monkeypatch.setattr(run, "plan", lambda request, registry: replace(planned(request, registry), largest=True))
    (row,) = measured().rows
    assert row.failed == "Out of memory: not even batches of 8 images fit." and row.predict is None
