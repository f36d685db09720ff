"""Selecting and reading runs to compare."""

from __future__ import annotations

import json

import pytest

from fgvc_cli.errors import FgvcError
from fgvc_cli.experiments.claims import Claim
from fgvc_cli.experiments.compare import read_runs, select_runs
from fgvc_cli.experiments.comparison import compare
from fgvc_cli.experiments.folder import StudyFolder


@pytest.fixture
def study(tmp_path, make_run):
    """A study of two finished runs, one that was interrupted and one that failed."""
    folder = tmp_path / "study"
    for name in ("b-seed0", "a-seed0"):
        make_run(folder / "runs" / name, [True, False], head=name[0])
    for name in ("c-seed0", "d-seed0"):
        make_run(folder / "runs" / name, [True]).summary_file.unlink()
    components = {"backbone": "b", "head": "d", "optimizer": "sgd"}
    claim = Claim.take(StudyFolder(folder).claims, "d-seed0", "", {**components, "seed": 0})
    claim.end("failed", "no memory")
    (folder / "study.toml").write_text("")
    return folder


def evaluate(run, split):
    raise AssertionError(f"{run.name} has an evaluation of {split}")


def test_a_study_selects_all_of_its_runs(study):
    for path in (study, study / "study.toml"):
        found = select_runs([path])
        assert [run.name for run in found.runs] == ["a-seed0", "b-seed0"] and found.study.path == study
        assert [run.name for run in found.unfinished] == ["c-seed0"]
        assert [(each.name, each.reason) for each in found.failed] == [("d-seed0", "no memory")]


def test_a_finished_run_without_settings_is_not_ignored(study):
    (study / "runs/b-seed0/config.toml").unlink()
    with pytest.raises(FgvcError, match=r"b-seed0/config\.toml"):
        list(read_runs(select_runs([study]).runs, None, evaluate))


def test_runs_are_selected_once_in_the_given_order(study, tmp_path, make_run):
    alone = make_run(tmp_path / "alone", [True])
    (tmp_path / "link").symlink_to(alone.path)
    detour = study / "runs" / ".." / "runs" / "b-seed0"
    found = select_runs([alone.path, study / "runs" / "b-seed0", study, alone.model_file, tmp_path / "link", detour])
    assert [run.name for run in found.runs] == ["alone", "b-seed0", "a-seed0"] and found.study is None


def test_what_cannot_be_selected(study, tmp_path):
    for path in (study / "runs" / "c-seed0", tmp_path / "none", tmp_path):
        with pytest.raises(FgvcError, match=str(path)):
            select_runs([path])
    for name in ("a-seed0", "b-seed0"):
        (study / "runs" / name / "summary.json").unlink()
    with pytest.raises(FgvcError, match="no finished run.*no memory"):
        select_runs([study])


def test_a_run_is_evaluated_if_necessary(tmp_path, make_run):
    run = make_run(tmp_path / "run", [True, False])
    (found,) = read_runs([run], None, evaluate)
    assert found.correct == {"0.png": True, "1.png": False}
    elsewhere = run.evaluation("test").rename(tmp_path / "moved")
    calls = []

    def evaluate_elsewhere(run, split):
        calls.append((run.name, split))
        return elsewhere

    (found,) = read_runs([run], None, evaluate_elsewhere)
    list(read_runs([run], "val", evaluate_elsewhere))
    assert calls == [("run", None), ("run", "val")] and found.top1 == 0.5


def test_val_is_compared_only_without_a_test_split(tmp_path, make_run):
    (found,) = read_runs([make_run(tmp_path / "val", [True], split="val")], None, evaluate)
    assert found.evaluation.split == "val"
    run = make_run(tmp_path / "run", [True])
    run.evaluation("test").rename(run.evaluation("val"))
    with pytest.raises(AssertionError, match="has an evaluation of None"):
        list(read_runs([run], None, evaluate))


@pytest.mark.parametrize("file", ["config.toml", "summary.json", "evaluation/test/predictions.csv"])
def test_a_damaged_file_is_named(tmp_path, make_run, file):
    run = make_run(tmp_path / "run", [True])
    (run.path / file).write_text("damaged = [")
    with pytest.raises(FgvcError, match=file):
        list(read_runs([run], None, evaluate))


@pytest.mark.parametrize(
    ("file", "key", "value", "said"),
    [
        ("summary.json", "seconds", None, "seconds"),
        ("summary.json", "seed", "x", "seed"),
        ("summary.json", "versions", {}, "version"),
        ("evaluation/test/summary.json", "top1", "x", "top1"),
        ("evaluation/test/summary.json", "dataset", {}, "dataset"),
        ("evaluation/test/summary.json", "images", 3, "1 of 2"),
        ("evaluation/test/summary.json", "top1", 1.0, "1 of 2"),
    ],
)
def test_a_missing_or_invalid_value_is_named(tmp_path, make_run, file, key, value, said):
    run = make_run(tmp_path / "run", [True, False])
    document = json.loads((run.path / file).read_text())
    (run.path / file).write_text(json.dumps({**document, key: value}))
    with pytest.raises(FgvcError, match=said):
        list(read_runs([run], None, evaluate))


def test_truncated_predictions_are_refused(tmp_path, make_run):
    run = make_run(tmp_path / "run", [True, False])
    file = run.evaluation("test") / "predictions.csv"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(FgvcError, match="does not match"):
        list(read_runs([run], None, evaluate))


def test_invalid_settings_are_ignored(tmp_path, make_run):
    run = make_run(tmp_path / "run", [True])
    run.config_file.write_text("head = 1\n[train]\nday = 2024-06-01\n")
    (found,) = read_runs([run], None, evaluate)
    assert list(found.config) == ["train"]


def test_former_names_of_settings_are_read(tmp_path, make_run):
    run = make_run(tmp_path / "run", [True])
    run.config_file.write_text("[train]\naccumulate = 2\n")
    file = run.evaluation("test") / "summary.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "preprocessing": {"fit": "short"}}))
    (found,) = read_runs([run], None, evaluate)
    assert found.config == {"train": {"grad_accum_steps": 2}} == run.config
    assert found.evaluation.preprocessing == {"crop_mode": "center"}


def test_a_fitted_head_has_no_optimizer(tmp_path, make_run):
    runs = [
        make_run(tmp_path / f"run{i}", [True, False], head="knn", optimizer=o) for i, o in enumerate(("sgd", "adamw"))
    ]
    (table,) = compare(list(read_runs(runs, None, evaluate))).tables
    (row,) = table.rows
    assert row.title == "b + knn" and row.optimizer == "none" and len(row.runs) == 2


def test_what_tables_differ_in(tmp_path, make_run):
    def differ_in(name, change, keys=()):
        runs = [make_run(tmp_path / f"{name}{i}", [True, False]) for i in range(2)]
        if keys:
            runs[1] = make_run(tmp_path / f"{name}-other", [True, False], keys=keys)
        for run, classes in zip(runs, change, strict=True):
            file = run.evaluation("test") / "summary.json"
            document = json.loads(file.read_text())
            document["per_class"] = [{"class": each, "images": 1} for each in classes]
            file.write_text(json.dumps(document))
        return compare(list(read_runs(runs, None, evaluate))).evaluated_on

    assert differ_in("same", (["ant", "bee"], ["ant", "bee"])) == ""
    assert differ_in("classes", (["ant", "bee"], ["ant", "bee", "cat"])) == "classes"
    assert differ_in("images", (["ant", "bee"], ["ant", "bee"]), ["x.png", "y.png"]) == "images"
