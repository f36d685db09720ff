"""Trainings with and without kept images are one and the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fgvc_cli import settings as program
from fgvc_cli.data.cache import index
from fgvc_cli.data.cache import store as image_store
from fgvc_cli.errors import FgvcError
from fgvc_cli.locks import FileLock
from fgvc_cli.registry import get_registry
from fgvc_cli.training import run as training
from fgvc_cli.training.callbacks import Callback


class Silent(Callback):
    """A view that keeps the notes, and may do something at the end of each epoch."""

    def __init__(self, do=None):
        self.notes, self.do = [], do

    def on_train_start(self, run, job):
        self.notes = list(job.notes)

    def on_epoch_end(self, metrics, is_best):
        if self.do is not None:
            self.do()


def train(photos: Path, out: Path, view: Silent | None = None, augment=None, **options):
    """Train with all that draws; return the run's notes and what it learned."""
    options = {
        "weights": "none",
        "image_size": 32,
        "batch_size": 4,
        "epochs": 2,
        "device": "cpu",
        "workers": 0,
    } | options
    layer = {
        "backbone": {"name": "timm/test_resnet"},
        "head": {"name": "linear"},
        "optimizer": {"name": "sgd"},
        "dataset": {"data": str(photos)},
        "train": options,
        "augment": {"policy": "autoaugment", "where": "workers", **(augment or {})},
    }
    view = view or Silent()
    training.train([layer], "scratch", out, True, get_registry(), [view])
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    figures = [(line["train"], line["val"]) for line in lines]
    return view.notes, figures, load_file(out / "model.safetensors")


def assert_same(first, second) -> None:
    assert first[1] == second[1]
    assert first[2].keys() == second[2].keys()
    assert all(torch.equal(first[2][name], second[2][name]) for name in first[2])


def kept_note(notes: list[str]) -> str:
    (note,) = (note for note in notes if note.startswith("decoded images"))
    return note


@pytest.fixture(autouse=True)
def _write_all(monkeypatch) -> None:
    monkeypatch.setattr(image_store, "PATIENCE", 60.0)
    monkeypatch.setattr(image_store, "SLOW", 60.0)


@pytest.fixture
def cache() -> Path:
    return program.current().cache


@pytest.mark.parametrize("crop", ["random", "resized"])
def test_with_and_without_a_cache_it_is_the_same_training(photos, tmp_path, cache, crop) -> None:
    without = train(photos, tmp_path / "off", cache="off", augment={"crop": crop})
    assert not [note for note in without[0] if "decoded" in note]
    assert index.list_caches(cache) == []
    runs = [train(photos, tmp_path / name, cache=name, augment={"crop": crop}) for name in ("auto", "on")]
    for run in runs:
        assert_same(run, without)
    if crop == "random":
        assert ": 0 of 33 so far, about " in kept_note(runs[0][0])
        assert ": 33 of 33 so far, about " in kept_note(runs[1][0])
    assert sum(store.images for store in index.list_caches(cache)) == 33  # not those of the test split
    assert 'cache = "on"' in (tmp_path / "on" / "config.toml").read_text()
    for store in index.list_caches(cache):
        FileLock(store.path / index.USE_LOCK, shared=False).close()  # nobody holds it any more


def test_a_cache_that_is_cleared_between_epochs_changes_nothing(photos, tmp_path, cache, caplog) -> None:
    without = train(photos, tmp_path / "off", cache="off", epochs=3)
    caplog.clear()
    clearing = Silent(lambda: index.clear(cache, index.list_caches(cache)))
    assert_same(train(photos, tmp_path / "auto", clearing, epochs=3, workers=1), without)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1 and "it was removed. Images are decoded instead." in warnings[0]


def test_a_run_goes_on_without_the_cache_it_began_with(photos, tmp_path, cache) -> None:
    from fgvc_cli.training.state import Interrupted

    whole = train(photos, tmp_path / "whole", cache="off")

    class Stopping(Silent):
        def on_batch_end(self, *_):
            raise Interrupted("as a power cut would", tmp_path, 2)

    with pytest.raises(Interrupted):
        train(photos, tmp_path / "part", Stopping())
    shutil.rmtree(cache / index.IMAGES)
    training.resume(tmp_path / "part", get_registry(), [Silent()])
    assert_same((None, whole[1], load_file(tmp_path / "part" / "model.safetensors")), whole)


def test_a_cache_that_must_be_and_has_no_room(photos, tmp_path) -> None:
    program.use(program.current().changed("--cache-limit", cache_limit=1000))
    try:
        with pytest.raises(FgvcError, match=r"`train\.cache=on`: .* about .* `cache_limit` of 1 kB"):
            train(photos, tmp_path / "on", cache="on")
        notes, *_ = train(photos, tmp_path / "auto")
    finally:
        program.use(None)
    assert kept_note(notes).endswith("they are decoded in every epoch")
