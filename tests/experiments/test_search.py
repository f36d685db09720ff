"""Searches: spaces, trials from run folders, pruning, and the runs of the best settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.experiments.folder import PRUNED, StudyFolder
from fgvc_cli.experiments.planning import SweepRequest, plan, resolve_combinations
from fgvc_cli.experiments.search import Search
from fgvc_cli.experiments.spaces import Space
from fgvc_cli.experiments.status import study_status
from fgvc_cli.experiments.study import PlannedRun, Study
from fgvc_cli.registry import get_registry
from fgvc_cli.testing.tracker import summary_of

CELL = """
[[cells]]
backbone = "timm/test_resnet"
head = {{ name = "linear" }}
optimizer = {{ name = "sgd", lr = {lr} }}
"""
LR = "{ low = 1e-4, high = 1e-1, log = true }"


def end(folder: StudyFolder, run: PlannedRun, top1: float, epochs: int = 2, finished: bool = True) -> dict[str, Any]:
    """Write the folder of a trial as training does, and return its settings."""
    settings: dict[str, Any] = {}
    for layer in run.layers:
        for section, table in layer.items():
            settings.setdefault(section, {}).update(table)
    written = folder.run(run.name)
    written.path.mkdir(parents=True)
    written.config_file.write_text(tomli_w.dumps(settings))
    val = {"loss": 1 - top1, "top1": top1, "top5": 1.0, "images": 4}
    lines = [{"epoch": e, "train": {"loss": 1.0, "images": 4}, "val": val} for e in range(1, epochs + 1)]
    written.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        written.model_file.write_bytes(b"")
        written.summary_file.write_text(json.dumps({**summary_of(), "val": val}))
    return settings


@pytest.fixture
def search(tmp_path, tiny) -> Callable[..., Search]:
    def make(text: str = "search.trials = 4\n", cells: str = CELL.format(lr=LR), seeds: int = 1) -> Search:
        study: Study = tiny(f"{text}{cells}", seeds)
        folder = StudyFolder(tmp_path / "study")
        folder.path.mkdir(exist_ok=True)
        folder.study_file.write_text(study.as_toml())
        return Search(plan(SweepRequest(file=folder.study_file), get_registry()), folder)

    return make


def lr(settings: Mapping[str, Any]) -> float:
    return settings["optimizer"]["lr"]


def test_a_search_goes_on_from_the_run_folders_alone(search, tmp_path) -> None:
    first = search("search.trials = 5\n", seeds=2)
    tried = []
    for top1 in (0.2, 0.9):
        (run,) = first.next_runs(1, [])
        assert run.layers[-1]["train"] == {"seed": 0, "score_test": False}
        tried.append(lr(end(first.folder, run, top1)))
    running, waiting = first.next_runs(2, [])
    end(first.folder, running, 0.1, epochs=1, finished=False)  # killed with one trial running and one not yet started
    again = search("search.trials = 5\n", seeds=2)
    resumed, next_ = again.next_runs(2, [])
    assert resumed.name == running.name and resumed.layers[1] == running.layers[1]
    assert next_.name == waiting.name and next_.trial == 4
    assert again.next_runs(1, [resumed.name])[0].trial == 4
    (again.folder.run(running.name).path / PRUNED).write_text("{}")
    fourth, fifth = again.next_runs(9, [])
    assert (fourth.trial, fifth.trial) == (4, 5)
    tried += [lr(end(again.folder, run, 0.5)) for run in (fourth, fifth)]
    assert len(set(tried)) == 4 and all(1e-4 <= rate <= 1e-1 for rate in tried)
    assert again.best().number == 2 and again.next_runs(1, [fifth.name]) == []
    winners = again.next_runs(9, [])
    assert [run.seed for run in winners] == [1, 2] and "score_test" not in str(winners[0].layers)
    assert {lr(end(again.folder, run, 0.9)) for run in winners} == {tried[1]}
    assert again.next_runs(9, []) == [] and "5 trials (1 pruned)" in again.note()
    assert [run.name for run in again.folder.runs()] == [run.name for run in winners]
    assert [record["state"] for record in again.records()].count("finished") == 4


def test_failed_trials_are_retried_until_the_best_settings_are_trained(search) -> None:
    found = search("search.trials = 3\n")
    folder, token = found.folder, "of a launch"
    first, second, third = found.next_runs(3, [])
    folder.fail(first, "no memory", token)  # before it wrote its settings
    end(folder, second, 0.5)
    end(folder, third, 0.1, finished=False)
    folder.fail(third, "no memory", token)
    retry = {name: folder.record(name).number for name in folder.failures()}
    assert [run.seed for run in found.next_runs(3, [])] == [1] and found.ended() == 3
    again = Search(found.study, folder, retry=retry)
    assert [(run.name, lr(_settings(run))) for run in again.next_runs(3, [])] == [
        (run.name, lr(_settings(run))) for run in (first, third)
    ]
    status = study_status(folder.path, get_registry())
    assert status.counts == {"finished": 1, "failed": 2, "waiting": 1} and again.ended() == 1
    folder.fail(first, "no memory", token)
    assert [run.name for run in again.next_runs(3, [])] == [third.name]  # once
    (winner,) = found.next_runs(3, [])
    end(folder, winner, 0.9)
    assert again.next_runs(3, []) == []  # the test split has been scored
    found.check_trials()
    with pytest.raises(UsageError, match="4"):
        Search(replace(found.study, search=replace(found.study.search, trials=4)), folder).check_trials()


def test_combinations_with_their_own_spaces_are_one_more_choice(search) -> None:
    cells = CELL.format(lr=LR) + CELL.format(lr="{ choices = [0.5, 0.25] }").replace('"linear"', '"cmal"')
    cells = cells.replace("[[cells]]", "train.epochs = { low = 2, high = 6, step = 2 }\n[[cells]]", 1)
    found = search("search = { trials = 24, sampler = 'random' }\n", cells)
    runs = found.next_runs(24, [])
    assert {run.combination.components["head"] for run in runs} == {"linear", "cmal"}
    for run in runs:
        settings = end(found.folder, run, 0.5)
        assert settings["train"]["epochs"] in (2, 4, 6)
        assert (lr(settings) in (0.5, 0.25)) == (settings["head"]["name"] == "cmal")
    assert found.best().number == 1 and len({lr(end) for end in map(_settings, found.next_runs(1, []))}) == 1


def _settings(run: PlannedRun) -> dict[str, Any]:
    return {"optimizer": {**run.layers[0].get("optimizer", {}), **run.layers[1]["optimizer"]}}


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_poor_trial_is_pruned(search, pruner: str) -> None:
    found = search(f"search = {{ trials = 12, pruner = '{pruner}' }}\ntrain.epochs = 9\n")
    found = Search(found.study, found.folder, epochs=9)
    runs = found.next_runs(12, [])
    for run in runs[:-2]:
        end(found.folder, run, 0.8, epochs=9)
    poor, good = runs[-2:]
    end(found.folder, poor, 0.1, epochs=3, finished=False)
    end(found.folder, good, 0.9, epochs=3, finished=False)
    assert not found.should_prune(good.name)
    assert found.should_prune(poor.name) or pruner == "hyperband"  # it depends on the bracket


@pytest.mark.parametrize(
    ("space", "fact"),
    [
        ("{ low = 1, high = 0.1 }", "less"),
        ("{ low = 0, high = 0.1, log = true }", "above 0"),
        ("{ low = 0.1 }", "high"),
        ("{ low = 0.1, high = inf }", "finite"),
        ("{ low = 0.1, high = 1, stp = 2 }", "step"),
        ("{ choices = [] }", "choices"),
        ("{ low = -1.0, high = 1.0 }", "-1"),
        ("{ low = 1, high = 5, step = 0.5 }", "integer"),
    ],
)
def test_invalid_spaces_are_refused(space: str, fact: str, search) -> None:
    with pytest.raises(UsageError, match=rf"optimizer\.lr.*{fact}"):
        resolve_combinations(search(cells=CELL.format(lr=space)).study, get_registry())


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("train.schedule = { low = 1, high = 2 }\n", "schedule"),
        ("train.val_fraction = { low = 0.1, high = 0.2 }\n", "val_fraction"),
        ("train = { low = 1, high = 2 }\n", "one setting"),
        ("train.eochs = { low = 1, high = 2 }\n", "eochs"),
        ("train.train_on = 'train+val'\n", "validation"),
        ("folds = 3\n", "folds"),
        ("search.pruner = 'median'\ntrain.epochs = 1\n", "pruner"),
        ("search.trails = 3\n", "trails"),
    ],
)
def test_searches_that_cannot_work_are_refused(text: str, fact: str, tmp_path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(f"{text}{CELL.format(lr=LR)}")
    with pytest.raises(UsageError, match=fact):
        resolve_combinations(plan(SweepRequest(file=file, search={}), get_registry()), get_registry())


def test_spaces_and_searches_need_each_other(tmp_path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(CELL.format(lr=LR))
    with pytest.raises(UsageError, match=r"optimizer\.lr"):
        plan(SweepRequest(file=file), get_registry())
    file.write_text(CELL.format(lr="0.1"))
    with pytest.raises(UsageError, match="no search space"):
        plan(SweepRequest(file=file, search={"trials": 3}), get_registry())


def test_without_a_finished_trial_there_is_no_winner(search) -> None:
    found = search("search.trials = 1\n")
    (run,) = found.next_runs(1, [])
    end(found.folder, run, 0.1, finished=False)
    (found.folder.run(run.name).path / PRUNED).write_text("{}")
    with pytest.raises(FgvcError, match="No trial"):
        found.next_runs(1, [])
    assert Space.parse(("train", "epochs"), {"low": 1, "high": 4}).text == "1 to 4" and Path(found.folder.path).exists()
