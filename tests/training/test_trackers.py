"""Callbacks: trackers and plugin hooks follow a training, and one that fails never stops it."""

from __future__ import annotations

import logging
import signal
import sys
import tomllib
from types import ModuleType, SimpleNamespace

import pytest

from fgvc_cli import FgvcError, TrackerSpec, UsageError
from fgvc_cli.config.run_config import resolve, user_settings
from fgvc_cli.contracts import RunStart, Tracker, scalars
from fgvc_cli.registry import Component, PluginRecord, Registry, get_registry
from fgvc_cli.registry.loading import PluginError, check_spec
from fgvc_cli.registry.records import Origin
from fgvc_cli.runs.results import EpochMetrics, TrainingSummary, TrainMetrics
from fgvc_cli.testing.tracker import summary_of
from fgvc_cli.training import run as training
from fgvc_cli.training.callbacks import Callback, Callbacks, TrackerCallback
from fgvc_cli.training.state import Interrupted

TRAINING = {
    "backbone": {"name": "timm/test_resnet"},
    "head": {"name": "linear"},
    "optimizer": {"name": "sgd", "lr": 0.02},
}
TRAIN = {"weights": "none", "image_size": 32, "batch_size": 4, "epochs": 2, "device": "cpu", "workers": 0}
FACTS = {"device": "cpu", "weights": "none"}

OPTIONS = """
from dataclasses import dataclass
from fgvc_cli import option
@dataclass(frozen=True)
class Options:
    volume: int = option(1, "how loud", minimum=0)
    raises: str = option("", "the method that raises")
"""


class Listener(Tracker):
    """Records its calls; raises where its options say so."""

    heard: list = []  # noqa: RUF012  shared by all, as a server would be

    def __init__(self, options):
        self.options = options
        self._hear("made", options.volume)

    def started(self, run):
        self._hear("started", run)

    def epoch_finished(self, metrics):
        self._hear("epoch_finished", metrics["epoch"])

    def finished(self, summary):
        self._hear("finished", summary if summary is None else summary["epochs"])

    def notes(self):
        self._hear("notes", None)
        return ["the listener listens"]

    def _hear(self, what, value):
        type(self).heard.append((what, value))
        if self.options.raises == what:
            raise RuntimeError(f"no {what}")


class Other(Listener):
    heard: list = []  # noqa: RUF012


@pytest.fixture
def registry(monkeypatch) -> Registry:
    """The registry with two trackers more, and one that is none."""
    module = ModuleType("listening_trackers")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(OPTIONS, module.__dict__)
    module.Listener, module.Other, module.Nothing = Listener, Other, lambda options: 7
    Listener.heard, Other.heard = [], []
    origin = Origin("fgvc-listening", "1.0")
    options = {"Listener": "listening_trackers:Options", "Other": "listening_trackers:Options", "Nothing": ""}
    specs = [TrackerSpec(n.lower(), f"listening_trackers:{n}", "Listens", options[n]) for n in options]
    components = tuple(Component(spec, origin) for spec in specs)
    plugin = PluginRecord("listening", origin, "listening_trackers", "loaded", components=components)
    return Registry([*get_registry().plugins, plugin])


class Stop(Callback):
    """Interrupts the training after a number of batches."""

    def __init__(self, batches):
        self.batches = batches

    def on_batch_end(self, images, metrics):
        self.batches -= 1
        if self.batches == 0:
            signal.raise_signal(signal.SIGINT)


def train(registry, photos, out, *texts, trackers=("listener",), callbacks=()):
    train = {**TRAIN, "track": list(trackers)}
    layers, _ = user_settings(None, {**TRAINING, "dataset": {"data": str(photos)}, "train": train}, texts)
    return training.train(layers, "scratch", out, True, registry, callbacks)


def test_trackers_follow_a_training_and_those_not_asked_for_are_not_built(registry, photos, tmp_path, monkeypatch):
    hooks = []
    monkeypatch.setattr(registry, "notify", lambda hook, **kw: hooks.append((hook, kw)))
    result = train(registry, photos, tmp_path / "run", "tracker.listener.volume=3")
    (made, started, notes, *rest), run = Listener.heard, tmp_path / "run"
    assert made == ("made", 3) and notes == ("notes", None)
    assert rest == [("epoch_finished", 1), ("epoch_finished", 2), ("finished", 2)]
    event = started[1]
    assert (event.folder, event.resumed, event.epochs_done) == (run, False, 0)
    assert event.class_names == ("blue", "green", "red")
    assert event.config == tomllib.loads((run / "config.toml").read_text())
    assert event.config["train"]["track"] == ["fgvc-listening:listener"]
    assert event.config["tracker"] == {"listener": {"volume": 3, "raises": ""}}
    assert "the listener listens" in result.job.notes
    assert Other.heard == []
    names = ["fgvc_run_started", "fgvc_epoch_finished", "fgvc_epoch_finished", "fgvc_run_finished"]
    assert [name for name, _ in hooks] == names
    assert hooks[1][1]["metrics"] == result.run.metrics[0].as_json() and hooks[0][1]["run"] == event
    assert hooks[3][1]["summary"] == result.summary.as_json()


def test_an_interrupted_run_ends_for_its_trackers_and_resumes_with_them(registry, photos, tmp_path):
    with pytest.raises(Interrupted) as caught:  # in the second epoch
        train(registry, photos, tmp_path / "run", trackers=("listener", "other"), callbacks=[Stop(9)])
    assert (caught.value.run, caught.value.signal) == (tmp_path / "run", signal.SIGINT)
    assert Listener.heard[-2:] == Other.heard[-2:] == [("epoch_finished", 1), ("finished", None)]
    with pytest.raises(FgvcError, match="fgvc-listening") as caught:  # the plugin is no longer installed
        training.resume(tmp_path / "run", get_registry())
    assert "train.track" in str(caught.value) and str(tmp_path / "run" / "config.toml") in str(caught.value)
    Listener.heard.clear()
    training.resume(tmp_path / "run", registry)
    assert [what for what, _ in Listener.heard] == ["made", "started", "notes", "epoch_finished", "finished"]
    event = Listener.heard[1][1]
    assert event.resumed and event.epochs_done == 1
    assert Listener.heard[-2:] == Other.heard[-2:] == [("epoch_finished", 2), ("finished", 2)]


class Told:
    """A training that never was, for the callbacks of the listener and then the other tracker."""

    def __init__(self, registry, folder, *texts):
        choices = resolved(registry, 'train.track=["listener", "other"]', *texts).trackers
        self.callbacks, self.job = Callbacks(map(TrackerCallback, choices)), SimpleNamespace(notes=[])
        self.start = RunStart(folder, {"head": {"name": "linear"}}, ("a", "b"), resumed=False)

    def run(self):
        with self.callbacks as callbacks:
            callbacks.start(self.start, self.job)
            for epoch in (1, 2):
                for callback in callbacks:
                    callback.on_epoch_end(EpochMetrics(epoch, TrainMetrics(8), None), False)
            callbacks.end(TrainingSummary.from_json(summary_of()))
        return self.job.notes


@pytest.mark.parametrize("method", ["epoch_finished", "finished", "notes"])
def test_a_tracker_that_raises_is_warned_of_once_and_the_others_go_on(registry, tmp_path, caplog, method):
    notes = Told(registry, tmp_path, f"tracker.listener.raises={method}").run()
    assert notes == ["the listener listens"] * (1 if method == "notes" else 2)
    assert Other.heard[-3:] == [("epoch_finished", 1), ("epoch_finished", 2), ("finished", 2)]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "tracker 'listener' of fgvc-listening==1.0" in warning and f"RuntimeError: no {method}" in warning


@pytest.mark.parametrize("notes", [7, [None]])
def test_notes_that_are_not_lines_are_warned_of(registry, caplog, notes, monkeypatch, tmp_path):
    monkeypatch.setattr(Listener, "notes", lambda self: notes)
    assert Told(registry, tmp_path).run() == []
    assert [repr(notes) in record.getMessage() for record in caplog.records] == [True, True]  # of either tracker


def test_what_a_tracker_prints_goes_to_standard_error(registry, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(Listener, "_hear", lambda self, what, value: sys.stdout.write(f"{what}\n"))
    Told(registry, tmp_path).run()
    out, err = capsys.readouterr()
    assert out == "" and err.count("epoch_finished") == 4


def test_what_a_tracker_changes_reaches_no_other(registry, monkeypatch, tmp_path):
    class Greedy(Listener):
        def started(self, run):
            run.config.clear()

        def epoch_finished(self, metrics):
            metrics.clear()

        def finished(self, summary):
            summary["test"].clear()
            summary["components"].clear()

    monkeypatch.setattr(sys.modules["listening_trackers"], "Listener", Greedy)
    monkeypatch.setattr(Other, "finished", lambda self, summary: Other.heard.append(("finished", summary)))
    Told(registry, tmp_path).run()
    (started,) = [value for what, value in Other.heard if what == "started"]
    assert started.config == {"head": {"name": "linear"}} and ("epoch_finished", 1) in Other.heard
    assert Other.heard[-1][1]["test"]["top1"] == 0.6 and Other.heard[-1][1]["components"]


def test_a_failure_reaches_each_callback_that_started_once():
    calls = []

    class Recorder(Callback):
        def __init__(self, name):
            self.name = name

        def on_train_start(self, run, job):
            if self.name == "second":
                raise FgvcError("cannot start")

        def on_failure(self, error):
            calls.append((self.name, str(error)))

    with pytest.raises(FgvcError), Callbacks([Recorder("first"), Recorder("second"), Recorder("third")]) as callbacks:
        callbacks.start(None, None)
    assert calls == [("first", "cannot start")] and list(callbacks) == []


def test_a_tracker_that_cannot_be_built_ends_it_before_there_is_a_run(registry, photos, tmp_path):
    with pytest.raises(FgvcError, match=r"tracker 'listener' of fgvc-listening==1\.0 .*no made"):
        train(registry, photos, tmp_path / "run", "tracker.listener.raises=made")
    with pytest.raises(FgvcError, match="'nothing' of fgvc-listening.*breaks its contract"):
        train(registry, photos, tmp_path / "run", trackers=("nothing",))
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_cannot_start_ends_it_before_the_first_batch(registry, photos, tmp_path):
    with pytest.raises(FgvcError, match=r"could not start: RuntimeError: no started.*train\.track") as caught:
        train(registry, photos, tmp_path / "run", "tracker.listener.raises=started", trackers=("other", "listener"))
    assert str(tmp_path / "run" / "config.toml") in str(caught.value)
    assert Other.heard[-1] == ("finished", None)
    assert ("finished", None) not in Listener.heard
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_recipe_may_choose_trackers_by_which_weights_there_are(registry, photos, tmp_path, monkeypatch):
    from fgvc_cli.specs import RecipeSpec

    text = '[[when]]\nweights = "none"\nset.train = { track = ["listener"] }\n'
    chatty = Component(RecipeSpec("chatty", "listening_trackers:chatty.toml"), Origin("fgvc-listening", "1.0"))
    monkeypatch.setattr(Component, "load", lambda self, plain=Component.load: text if self is chatty else plain(self))
    find = registry.find
    monkeypatch.setattr(registry, "find", lambda kind, name: chatty if kind == "recipe" else find(kind, name))
    train = {name: value for name, value in TRAIN.items() if name != "weights"}  # auto: there are none
    layers, _ = user_settings(None, {**TRAINING, "dataset": {"data": str(photos)}, "train": train}, [])
    result = training.train(layers, "chatty", tmp_path / "run", True, registry)
    assert result.job.config.train.track == ("fgvc-listening:listener",)
    assert Listener.heard[-1] == ("finished", 2)


def resolved(registry, *texts, layers=()):
    own, _ = user_settings(None, {**TRAINING, "dataset": {"name": "demo"}}, texts)
    return resolve([*layers, *own], "scratch", FACTS, registry)


def test_no_tracker_is_on_by_default(registry):
    config = resolved(registry)
    assert (config.trackers, config.train.track) == ((), ())
    assert "tracker" not in tomllib.loads(config.as_toml())


def test_the_last_layer_chooses_trackers_and_options_of_the_others_are_dropped(registry):
    file = {"train": {"track": ["listener", "tensorboard"]}, "tracker": {"listener": {"volume": 5, "raises": "x"}}}
    two = resolved(registry, "tracker.listener.volume=6", layers=[file])
    assert [choice.name for choice in two.trackers] == ["listener", "tensorboard"]
    assert (two.trackers[0].options.volume, two.trackers[0].options.raises) == (6, "x")
    one = resolved(registry, 'train.track=["other", "fgvc-listening:other"]', layers=[file])
    assert [choice.name for choice in one.trackers] == ["other"] and one.trackers[0].options.volume == 1
    again = resolve([dict(tomllib.loads(two.as_toml()), fgvc={}, recipe={})], "scratch", FACTS, registry)
    assert again.trackers == two.trackers


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (['train.track=["listner"]'], "unknown tracker 'listner'. Did you mean 'listener'"),
        (["train.track=listener"], "train.track=listener: expected list of text"),
        (["tracker.listener.volume=2"], "tracker.listener"),
        (["tracker.volume=2"], "tracker.NAME.volume"),
        (['train.track=["listener"]', "tracker.listener.volume=-1"], "tracker.listener.volume=-1: must be at least 0"),
        (['train.track=["listener"]', "tracker.listener.volum=1"], "'volume'"),
    ],
)
def test_what_makes_no_sense_is_refused(registry, texts, words):
    with pytest.raises(UsageError) as caught:
        resolved(registry, *texts)
    assert words in str(caught.value)


def test_a_name_that_would_split_a_setting_is_refused():
    check_spec(TrackerSpec("a-b", "m:A"))
    with pytest.raises(PluginError, match=r"a tracker's name has no '\.'"):
        check_spec(TrackerSpec("a.b", "m:A"))


def test_scalars_are_the_numbers_by_their_path():
    document = {"epoch": 2, "val": {"top1": 0.5, "loss": None}, "done": True, "name": "x", "rates": {"head": 1}}
    assert scalars(document) == {"epoch": 2.0, "val/top1": 0.5, "rates/head": 1.0}
    assert scalars(document["val"], "val") == {"val/top1": 0.5}
