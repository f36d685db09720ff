"""Trainings with and without kept images are one and the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fgvc_cli import settings as program
from fgvc_cli.data.cache import index
from fgvc_cli.data.cache import store as image_store
from fgvc_cli.errors import FgvcError
from fgvc_cli.files import FileLock
from fgvc_cli.training.callbacks import Callback

AUGMENT = {"policy": "autoaugment", "where": "workers"}


def kept_note(result) -> str:
    (note,) = (note for note in result.job.notes if note.startswith("decoded images"))
    return note


@pytest.fixture
def assert_same():
    """Compare what two trainings learned; their settings differ."""

    def compare(run, other) -> None:
        assert [(m.train, m.val) for m in run.metrics] == [(m.train, m.val) for m in other.metrics]
        ours, theirs = load_file(run.model_file), load_file(other.model_file)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)

    return compare


@pytest.fixture(autouse=True)
def _write_all(monkeypatch) -> None:
    monkeypatch.setattr(image_store, "PATIENCE", 60.0)
    monkeypatch.setattr(image_store, "SLOW", 60.0)


@pytest.fixture
def cache() -> Path:
    return program.current().cache


@pytest.mark.parametrize("crop", ["random", pytest.param("resized", marks=pytest.mark.slow)])
def test_training_is_the_same_with_and_without_a_cache(train, resume, at, assert_same, tmp_path, cache, crop) -> None:
    augment = {**AUGMENT, "crop": crop}
    without = train(tmp_path / "off", cache="off", augment=augment)
    assert not [note for note in without.job.notes if "decoded" in note]
    assert index.list_caches(cache) == []
    runs = [train(tmp_path / name, cache=name, augment=augment) for name in ("auto", "on")]
    for result in runs:
        assert_same(result.run, without.run)
    if crop == "random":
        assert ": 0 of 33 so far, about " in kept_note(runs[0])
        assert ": 33 of 33 so far, about " in kept_note(runs[1])
    assert sum(store.images for store in index.list_caches(cache)) == 33  # not those of the test split
    assert runs[1].run.config["train"]["cache"] == "on"
    for store in index.list_caches(cache):
        FileLock(store.path / index.USE_LOCK, shared=False).close()  # it is free again
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", at(3, _power_cut), augment=augment)
    shutil.rmtree(cache / index.IMAGES)  # a run resumes without the cache that it started with
    assert_same(resume(tmp_path / "part"), without.run)


def _power_cut() -> None:
    raise KeyboardInterrupt


def test_a_cache_that_is_cleared_between_epochs_changes_nothing(train, assert_same, tmp_path, cache, caplog) -> None:
    class Clear(Callback):
        def on_epoch_end(self, metrics, is_best):
            index.clear(cache, index.list_caches(cache))

    without = train(tmp_path / "off", cache="off", augment=AUGMENT)
    caplog.clear()
    assert_same(train(tmp_path / "auto", Clear(), workers=1, augment=AUGMENT).run, without.run)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "it was removed. Images are decoded instead." in warning


def test_a_cache_without_room(train, tmp_path) -> None:
    program.use(program.current().changed("--cache-limit", cache_limit=1000))
    try:
        with pytest.raises(FgvcError, match=r"`train\.cache=on`: .* about .* `cache_limit` of 1 kB"):
            train(tmp_path / "on", cache="on")
        result = train(tmp_path / "auto", epochs=1)
    finally:
        program.use(None)
    assert kept_note(result).endswith("they are decoded in every epoch")
