"""Trackers: only those that are asked for, told of everything once, and none that fails stops a run."""

from __future__ import annotations

import signal
import sys
import tomllib
from types import ModuleType

import pytest

from fgvc_cli import FgvcError, TrackerSpec, UsageError
from fgvc_cli.config.run_config import resolve, user_settings
from fgvc_cli.contracts import RunStart, Tracker, scalars
from fgvc_cli.evaluation.images import SubjectRequest, choose
from fgvc_cli.registry import Component, PluginRecord, Registry, get_registry
from fgvc_cli.registry.loading import PluginError, check_spec
from fgvc_cli.registry.records import Origin
from fgvc_cli.training import run as training
from fgvc_cli.training.callbacks import make_trackers
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
    """Writes down what it is told; raises where its options say so."""

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


class Silent:
    """A view that shows nothing and may do something after a batch."""

    def __init__(self, do=lambda: None):
        self.do = do

    def batch_done(self, images, metrics):
        self.do()

    def __getattr__(self, _):
        return lambda *_: None


def photos_of(photos, split):
    return list((photos / split).rglob("*.png"))


def train(registry, photos, out, *texts, trackers=("listener",), view=None):
    train = {**TRAIN, "track": list(trackers)}
    layers, _ = user_settings(None, {**TRAINING, "dataset": {"data": str(photos)}, "train": train}, texts)
    return training.train(layers, "scratch", out, True, registry, view or Silent())


def test_those_that_are_on_hear_all_of_it_and_no_other_is_made(registry, photos, tmp_path):
    outcome = train(registry, photos, tmp_path / "run", "tracker.listener.volume=3")
    (made, started, notes, *rest), run = Listener.heard, tmp_path / "run"
    assert made == ("made", 3) and notes == ("notes", None)
    assert rest == [("epoch_finished", 1), ("epoch_finished", 2), ("finished", 2)]
    event = started[1]
    assert (event.folder, event.resumed, event.epochs_done) == (run, False, 0)
    assert event.class_names == ("blue", "green", "red")
    assert event.config == tomllib.loads((run / "config.toml").read_text())
    assert event.config["train"]["track"] == ["fgvc-listening:listener"]
    assert event.config["tracker"] == {"listener": {"volume": 3, "raises": ""}}
    assert "the listener listens" in outcome.job.notes
    assert Other.heard == []
    subject = choose(SubjectRequest(), run, event.class_names, get_registry())  # evaluated without the plugin
    assert len(subject.split) == len(photos_of(photos, "test"))


def test_a_run_that_is_interrupted_ends_for_its_tracker_and_goes_on_where_it_was(registry, photos, tmp_path):
    beats = iter(range(100))
    stop = Silent(lambda: next(beats) == 8 and signal.raise_signal(signal.SIGINT))  # in the second epoch
    with pytest.raises(Interrupted):
        train(registry, photos, tmp_path / "run", trackers=("listener", "other"), view=stop)
    assert Listener.heard[-2:] == Other.heard[-2:] == [("epoch_finished", 1), ("finished", None)]
    with pytest.raises(FgvcError) as caught:  # where the plugin is not installed any more
        training.resume(tmp_path / "run", get_registry(), Silent())
    assert "no distribution 'fgvc-listening' with a plugin is installed" in str(caught.value)
    assert str(caught.value).endswith(f"or leave it out of train.track in {tmp_path / 'run' / 'config.toml'}.")
    Listener.heard.clear()
    training.resume(tmp_path / "run", registry, Silent())
    assert [what for what, _ in Listener.heard] == ["made", "started", "notes", "epoch_finished", "finished"]
    event = Listener.heard[1][1]
    assert event.resumed and event.epochs_done == 1
    assert Listener.heard[-2:] == Other.heard[-2:] == [("epoch_finished", 2), ("finished", 2)]


WARNING = "warning: tracker 'listener' of fgvc-listening==1.0: its {} failed, the run goes on: "


def test_one_that_raises_is_warned_of_once_and_stops_no_run(registry, photos, tmp_path, capsys):
    text = "tracker.listener.raises=epoch_finished"
    outcome = train(registry, photos, tmp_path / "run", text, trackers=("listener", "other"))
    assert outcome.run.finished
    assert capsys.readouterr().err.count(WARNING.format("epoch_finished")) == 1
    assert Other.heard[-3:] == [("epoch_finished", 1), ("epoch_finished", 2), ("finished", 2)]


def both(registry, *texts):
    """The listener, and the other one after it."""
    return make_trackers(resolved(registry, 'train.track=["listener", "other"]', *texts).trackers)


@pytest.mark.parametrize("method", ["epoch_finished", "finished", "notes"])
def test_one_that_raises_keeps_nothing_from_the_others(registry, tmp_path, capsys, method):
    with both(registry, f"tracker.listener.raises={method}") as trackers:
        trackers.started(RunStart(tmp_path, {}, ("a", "b"), resumed=False))
        assert trackers.notes() == ["the listener listens"] * (1 if method == "notes" else 2)
        for epoch in (1, 2):
            trackers.epoch_finished({"epoch": epoch})
    assert Other.heard[-3:] == [("epoch_finished", 1), ("epoch_finished", 2), ("finished", None)]
    assert capsys.readouterr().err == f"{WARNING.format(method)}RuntimeError: no {method}\n"


@pytest.mark.parametrize("told", [7, "a line", [None]])
def test_notes_that_are_no_lines_are_warned_of(registry, capsys, told, monkeypatch, tmp_path):
    class Odd(Listener):
        def notes(self):
            return told

    monkeypatch.setattr(sys.modules["listening_trackers"], "Listener", Odd)
    with both(registry) as trackers:
        trackers.started(RunStart(tmp_path, {}, ("a", "b"), resumed=False))
        assert trackers.notes() == ["the listener listens"]
    assert capsys.readouterr().err == f"{WARNING.format('notes')}it returned {told!r} instead of a list of lines\n"


def test_what_one_prints_goes_to_standard_error(registry, monkeypatch, tmp_path, capsys):
    class Chatty(Listener):
        def _hear(self, what, value):
            sys.stdout.write(f"{what}\n")

    monkeypatch.setattr(sys.modules["listening_trackers"], "Listener", Chatty)
    with both(registry) as trackers:
        trackers.started(RunStart(tmp_path, {}, ("a", "b"), resumed=False))
        trackers.epoch_finished({"epoch": 1})
    assert capsys.readouterr() == ("", "made\nstarted\nepoch_finished\nfinished\n")


def test_what_one_changes_no_other_is_told(registry, monkeypatch, tmp_path):
    class Greedy(Listener):
        def started(self, run):
            run.config.clear()

        def epoch_finished(self, metrics):
            metrics.clear()

        def finished(self, summary):
            summary["test"].clear()

    monkeypatch.setattr(sys.modules["listening_trackers"], "Listener", Greedy)
    metrics, summary = {"epoch": 1}, {"epochs": 1, "test": {"top1": 0.5}}
    with both(registry) as trackers:
        trackers.started(RunStart(tmp_path, {"head": {"name": "linear"}}, ("a", "b"), resumed=False))
        trackers.epoch_finished(metrics)
        trackers.finished(summary)
    (started,) = [value for what, value in Other.heard if what == "started"]
    assert started.config == {"head": {"name": "linear"}} and ("epoch_finished", 1) in Other.heard
    assert (metrics, summary) == ({"epoch": 1}, {"epochs": 1, "test": {"top1": 0.5}})


def test_one_that_cannot_be_made_ends_it_before_there_is_a_run(registry, photos, tmp_path):
    with pytest.raises(FgvcError, match=r"tracker 'listener' of fgvc-listening==1\.0 could not be made: .*no made"):
        train(registry, photos, tmp_path / "run", "tracker.listener.raises=made")
    with pytest.raises(FgvcError, match="fgvc-listening:nothing breaks its contract: it makes a int"):
        train(registry, photos, tmp_path / "run", trackers=("nothing",))
    assert not (tmp_path / "run").exists()


def test_one_that_cannot_start_ends_it_before_the_first_batch(registry, photos, tmp_path):
    with pytest.raises(FgvcError, match=r"could not start: RuntimeError: no started\. Mend that.*--resume") as caught:
        train(registry, photos, tmp_path / "run", "tracker.listener.raises=started", trackers=("other", "listener"))
    assert str(tmp_path / "run" / "config.toml") in str(caught.value)
    assert Other.heard[-1] == ("finished", None)
    assert ("finished", None) not in Listener.heard
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_recipe_may_choose_them_by_which_weights_there_are(registry, photos, tmp_path, monkeypatch):
    from fgvc_cli.specs import RecipeSpec

    text = '[[when]]\nweights = "none"\nset.train = { track = ["listener"] }\n'
    chatty = Component(RecipeSpec("chatty", "listening_trackers:chatty.toml"), Origin("fgvc-listening", "1.0"))
    monkeypatch.setattr(Component, "load", lambda self, plain=Component.load: text if self is chatty else plain(self))
    find = registry.find
    monkeypatch.setattr(registry, "find", lambda kind, name: chatty if kind == "recipe" else find(kind, name))
    train = {name: value for name, value in TRAIN.items() if name != "weights"}  # auto: there are none
    layers, _ = user_settings(None, {**TRAINING, "dataset": {"data": str(photos)}, "train": train}, [])
    outcome = training.train(layers, "chatty", tmp_path / "run", True, registry, Silent())
    assert outcome.job.config.train.track == ("fgvc-listening:listener",)
    assert Listener.heard[-1] == ("finished", 2)


def resolved(registry, *texts, layers=()):
    own, _ = user_settings(None, {**TRAINING, "dataset": {"name": "demo"}}, texts)
    return resolve([*layers, *own], "scratch", FACTS, registry)


def test_none_is_on_unless_asked_for(registry):
    config = resolved(registry)
    assert (config.trackers, config.train.track) == ((), ())
    assert "tracker" not in tomllib.loads(config.as_toml())


def test_the_last_layer_says_which_are_on_and_settings_of_the_others_are_dropped(registry):
    file = {"train": {"track": ["listener", "tensorboard"]}, "tracker": {"listener": {"volume": 5, "raises": "x"}}}
    two = resolved(registry, "tracker.listener.volume=6", layers=[file])
    assert [choice.name for choice in two.trackers] == ["listener", "tensorboard"]
    assert (two.trackers[0].options.volume, two.trackers[0].options.raises) == (6, "x")
    one = resolved(registry, 'train.track=["other", "fgvc-listening:other"]', layers=[file])
    assert [choice.name for choice in one.trackers] == ["other"] and one.trackers[0].options.volume == 1
    again = resolve([dict(tomllib.loads(two.as_toml()), fgvc={}, recipe={})], "scratch", FACTS, registry)
    assert again.trackers == two.trackers


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('train.track=["listner"]', "unknown tracker 'listner'. Did you mean 'listener'"),
        ("train.track=listener", "train.track=listener: expected list of text"),
        ("tracker.listener.volume=2", "tracker.listener: that tracker is not on. Turn it on with --track listener"),
        ("tracker.volume=2", "tracker.volume: write whose option it is, as tracker.NAME.volume"),
    ],
)
def test_what_makes_no_sense_is_refused(registry, text, words):
    with pytest.raises(UsageError) as caught:
        resolved(registry, text)
    assert words in str(caught.value)


def test_an_option_that_does_not_exist_or_fit_is_refused(registry):
    on = 'train.track=["listener"]'
    with pytest.raises(UsageError, match=r"tracker\.listener\.volume=-1: must be at least 0"):
        resolved(registry, on, "tracker.listener.volume=-1")
    with pytest.raises(UsageError, match=r"tracker\.listener\.volum: no such option.*mean 'volume'"):
        resolved(registry, on, "tracker.listener.volum=1")


def test_a_name_that_would_split_a_setting_is_refused():
    check_spec(TrackerSpec("a-b", "m:A"))
    with pytest.raises(PluginError, match=r"a tracker's name has no '\.'"):
        check_spec(TrackerSpec("a.b", "m:A"))


def test_scalars_are_the_numbers_by_their_path():
    document = {"epoch": 2, "val": {"top1": 0.5, "loss": None}, "done": True, "name": "x", "rates": {"head": 1}}
    assert scalars(document) == {"epoch": 2.0, "val/top1": 0.5, "rates/head": 1.0}
    assert scalars(document["val"], "val") == {"val/top1": 0.5}
