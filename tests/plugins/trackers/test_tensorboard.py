"""TensorBoard: what it is given to show, read back with TensorBoard's own reader."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from fgvc_cli.cli.app import build_app
from fgvc_cli.contracts import RunStart
from fgvc_cli.registry import get_registry

TINY = "train --backbone timm/test_resnet --weights none --image-size 32 --batch-size 8 --epochs 2 --device cpu"
DATA = "--workers 0 --no-cache --set dataset.train=2 --set dataset.val=1 --set dataset.test=1 --set dataset.size=32"


def fgvc(command: str, *more: str):
    return CliRunner().invoke(build_app(), [*command.split(), *more])


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def points(accumulator: EventAccumulator, curve: str) -> dict[int, float]:
    return {event.step: event.value for event in accumulator.Scalars(curve)}


@pytest.fixture
def run(tmp_path) -> RunStart:
    (tmp_path / "run").mkdir()
    return RunStart(tmp_path / "run", {"head": {"name": "linear"}}, ("a", "b"), resumed=False)


def tracker(**options):
    component = get_registry().find("tracker", "tensorboard")
    return component.load()(options=component.options_type()(**options))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training with TensorBoard on: its run folder and what it printed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    result = fgvc(f"{TINY} {DATA} --track tensorboard --out", str(folder))
    assert result.exit_code == 0, result.stderr
    return folder, result.stderr


def test_curves_settings_and_test_metrics_are_written(trained):
    folder, printed = trained
    assert f"curves: tensorboard --logdir {folder.parent}" in printed
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = events(folder / "trackers" / "tensorboard")
    for curve in ("train/objective", "train/top1", "val/loss", "val/top1", "rates/backbone"):
        part, name = curve.split("/")
        assert points(found, curve) == pytest.approx({line["epoch"]: line[part][name] for line in lines}), curve
    assert points(found, "images_per_second").keys() == {1, 2}
    summary = json.loads((folder / "summary.json").read_text())
    assert points(found, "test/top1") == pytest.approx({summary["best_epoch"]: summary["test"]["top1"]})
    (settings,) = found.Tensors("settings/text_summary")
    assert b"test_resnet" in settings.tensor_proto.string_val[0]
    assert "epoch" not in found.Tags()["scalars"]


def test_a_missing_package_is_reported_before_training(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("tensorboard", "torch.utils.tensorboard"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    result = fgvc(f"{TINY} {DATA} --track tensorboard --out", str(tmp_path / "run"))
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("fgvc: error: tracker 'tensorboard' needs a package that is not installed: ")
    assert 'pip install "fgvc-cli[tensorboard]"' in line
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_hides_repeated_epochs(run):
    from dataclasses import replace

    first = tracker()
    first.started(run)
    for epoch in (1, 2, 3):
        first.epoch_finished({"epoch": epoch, "train": {"objective": float(epoch)}})
    first.finished(None)
    again = tracker()
    again.started(replace(run, resumed=True, epochs_done=1))
    again.epoch_finished({"epoch": 2, "train": {"objective": 20.0}})
    again.finished({"test": {"top1": 0.5}, "best_epoch": 1, "epochs": 2})
    assert points(events(run.folder / "trackers" / "tensorboard"), "test/top1") == {1: 0.5}
    assert points(events(run.folder / "trackers" / "tensorboard"), "train/objective") == {1: 1.0, 2: 20.0}


def test_a_shared_folder(run, tmp_path):
    shared = tracker(folder=str(tmp_path / "logs"))
    shared.started(run)
    shared.epoch_finished({"epoch": 1, "seconds": 2.0})
    shared.finished(None)
    assert points(events(tmp_path / "logs" / "run"), "seconds") == {1: 2.0}
    assert shared.notes() == [f"curves: tensorboard --logdir {tmp_path / 'logs'}"]
    assert not (run.folder / "trackers").exists()
