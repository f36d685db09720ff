"""Runs trained without excluded images: as if the files did not exist, also when they are resumed and evaluated."""

from __future__ import annotations

import shutil

import pytest

from fgvc_cli.errors import FgvcError
from fgvc_cli.evaluation.evaluate import evaluate_run
from fgvc_cli.evaluation.split_selection import SplitRequest
from fgvc_cli.files import write_csv
from fgvc_cli.registry import get_registry
from fgvc_cli.training.state import Interrupted

GONE = (("train", "red/1.png"), ("train", "blue/0.png"), ("test", "red/0.png"))


@pytest.fixture
def own(photos, tmp_path):
    """A copy of the class folders without val, and a list of images to exclude."""
    shutil.copytree(photos, tmp_path / "own", ignore=shutil.ignore_patterns("val"))
    write_csv(tmp_path / "audit.csv", ("split", "file"), GONE)
    return tmp_path / "own"


def test_excluded_images_are_never_trained_on(
    train, own, tmp_path, resume, interrupt_at, assert_same, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    excluding = train(tmp_path / "excluding", data=own, exclude="audit.csv").run
    with pytest.raises(Interrupted):
        train(tmp_path / "resumed", interrupt_at(3), data=own, exclude="audit.csv")
    monkeypatch.chdir("/")  # the run records the absolute path
    assert_same(excluding, resume(tmp_path / "resumed"))
    assert excluding.summary.splits["test"] == {"images": 11, "origin": "without 1 excluded image"}
    evaluate_run(excluding.model_file, get_registry())
    write_csv(tmp_path / "audit.csv", ("split", "file"), GONE[:2])
    with pytest.raises(FgvcError, match=r"1 image was added to test \('red'\)"):
        evaluate_run(excluding.model_file, get_registry())
    for split, name in GONE:
        (own / split / name).unlink()
    assert_same(excluding, train(tmp_path / "deleted", data=own).run)


def test_an_evaluation_excludes_images_of_any_run(train, own, tmp_path) -> None:
    run = train(tmp_path / "run", data=own, epochs=1).run
    registry, exclude = get_registry(), tmp_path / "audit.csv"
    found = evaluate_run(run.model_file, registry, SplitRequest(exclude=exclude))
    assert found.summary.images == 11 and found.files[0].parent.name == "test-excluded"
    assert evaluate_run(run.model_file, registry, SplitRequest(data=own, exclude=exclude)).summary.images == 11
    held_out = evaluate_run(run.model_file, registry, SplitRequest("val")).summary
    keys = {name for split, name in GONE if split == "train"}
    write_csv(exclude, ("split", "file"), [("train", key) for key in (*keys, *_keys(run, "val")[:1])])
    assert evaluate_run(run.model_file, registry, SplitRequest("val", exclude=exclude)).summary.images < held_out.images
    write_csv(exclude, ("split", "file"), [("train", "red/none.png")])
    with pytest.raises(FgvcError, match="'red/none.png'"):
        evaluate_run(run.model_file, registry, SplitRequest("val", exclude=exclude))


def _keys(run, split: str) -> list[str]:
    lines = (run.path / "evaluation" / split / "predictions.csv").read_text().splitlines()[1:]
    return [line.partition(",")[0] for line in lines]
