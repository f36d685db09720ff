"""From what a person names to finished runs with an evaluation."""

from __future__ import annotations

import json

import pytest

from fgvc_cli.errors import FgvcError
from fgvc_cli.experiments.compared_run import collect, read
from fgvc_cli.experiments.folder import FailedRun, write_failures


@pytest.fixture
def study(tmp_path, made_run):
    """A study of two finished runs, one that was interrupted and one that failed."""
    folder = tmp_path / "study"
    for name in ("b-seed0", "a-seed0"):
        made_run(folder / "runs" / name, [True, False], head=name[0])
    made_run(folder / "runs" / "c-seed0", [True]).summary_file.unlink()
    made_run(folder / "runs" / "d-seed0", [True]).summary_file.unlink()
    write_failures(folder, {"d-seed0": FailedRun("d-seed0", "b", "d", "sgd", 0, "no memory")})
    (folder / "study.toml").write_text("")
    return folder


def evaluate(run, split):
    raise AssertionError(f"{run.name} has an evaluation of {split}")


def test_a_study_is_all_of_its_runs(study):
    for named in (study, study / "study.toml"):
        found = collect([named])
        assert [run.name for run in found.runs] == ["a-seed0", "b-seed0"] and found.study == study
        assert [run.name for run in found.unfinished] == ["c-seed0"]
        assert [(each.name, each.reason) for each in found.failed] == [("d-seed0", "no memory")]


def test_a_finished_run_whose_settings_are_lost_is_no_run_that_never_was(study):
    (study / "runs/b-seed0/config.toml").unlink()
    with pytest.raises(FgvcError, match=r"b-seed0/config\.toml cannot be read"):
        list(read(collect([study]).runs, None, evaluate))


def test_runs_are_taken_once_in_the_order_in_which_they_are_named(study, tmp_path, made_run):
    alone = made_run(tmp_path / "alone", [True])
    (tmp_path / "link").symlink_to(alone.path)
    there_and_back = study / "runs" / ".." / "runs" / "b-seed0"
    found = collect(
        [alone.path, study / "runs" / "b-seed0", study, alone.model_file, tmp_path / "link", there_and_back]
    )
    assert [run.name for run in found.runs] == ["alone", "b-seed0", "a-seed0"] and found.study is None


def test_what_cannot_be_compared_is_told(study, tmp_path):
    unfinished = study / "runs" / "c-seed0"
    for path, said in (
        (unfinished, f"is not finished: go on with fgvc train --resume {unfinished}"),
        (tmp_path / "none", "does not exist"),
        (tmp_path, "is not a finished run"),
    ):
        with pytest.raises(FgvcError) as refused:
            collect([path])
        assert said in str(refused.value)
    for name in ("a-seed0", "b-seed0"):
        (study / "runs" / name / "summary.json").unlink()
    with pytest.raises(FgvcError, match=r"no run of the study is finished yet.*The first failed: no memory"):
        collect([study])


def test_a_run_is_read_with_the_evaluation_that_is_there(study):
    runs = list(read(collect([study]).runs, None, evaluate))
    assert [run.head for run in runs] == ["a", "b"] and runs[0].correct == {"0.png": True, "1.png": False}


def test_a_run_without_one_is_evaluated(tmp_path, made_run):
    run = made_run(tmp_path / "run", [True, False])
    elsewhere = run.evaluation("test").rename(tmp_path / "moved")
    asked = []

    def evaluate(run, split):
        asked.append((run.name, split))
        return elsewhere

    (found,) = read([run], None, evaluate)
    assert asked == [("run", None)] and found.evaluation.top1 == 0.5
    list(read([run], "val", evaluate))
    assert asked[1:] == [("run", "val")]


def test_a_run_without_a_test_split_is_compared_on_val(tmp_path, made_run):
    run = made_run(tmp_path / "run", [True], split="val")
    (found,) = read([run], None, evaluate)
    assert found.evaluation.split == "val"


def test_a_run_with_a_test_split_is_not_compared_on_val_because_that_is_there(tmp_path, made_run):
    run = made_run(tmp_path / "run", [True])
    run.evaluation("test").rename(run.evaluation("val"))
    with pytest.raises(AssertionError, match="has an evaluation of None"):
        list(read([run], None, evaluate))


@pytest.mark.parametrize("file", ["config.toml", "summary.json", "evaluation/test/predictions.csv"])
def test_a_damaged_run_is_named(tmp_path, made_run, file):
    run = made_run(tmp_path / "run", [True])
    (run.path / file).write_text("damaged = [")
    with pytest.raises(FgvcError, match="run"):
        list(read([run], None, evaluate))
    summary = {"components": {}}
    run.summary_file.write_text(json.dumps(summary))
    with pytest.raises(FgvcError, match="run"):
        list(read([run], None, evaluate))


@pytest.mark.parametrize(
    ("file", "key", "value", "remedy"),
    [
        ("summary.json", "seconds", None, "does not tell the minutes. Restore it, or train again."),
        ("summary.json", "seed", "x", "does not tell the seed. Restore it"),
        ("summary.json", "parameters", {}, "does not tell the parameters."),
        ("summary.json", "versions", {}, "does not tell the version."),
        ("evaluation/test/summary.json", "top1", "x", "does not tell the top1. Delete it"),
        ("evaluation/test/summary.json", "notes", None, "does not tell the notes."),
        ("evaluation/test/summary.json", "dataset", {}, "does not tell the source."),
        ("evaluation/test/summary.json", "images", 3, "does not belong to summary.json beside it: it has 1 of 2"),
        ("evaluation/test/summary.json", "top1", 1.0, "does not belong to summary.json"),
    ],
)
def test_what_a_damaged_run_lacks_is_told(tmp_path, made_run, file, key, value, remedy):
    run = made_run(tmp_path / "run", [True, False])
    document = json.loads((run.path / file).read_text())
    (run.path / file).write_text(json.dumps({**document, key: value}))
    with pytest.raises(FgvcError) as refused:
        list(read([run], None, evaluate))
    assert remedy in str(refused.value)


def test_half_of_the_predictions_are_none(tmp_path, made_run):
    run = made_run(tmp_path / "run", [True, False])
    file = run.evaluation("test") / "predictions.csv"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(FgvcError, match="Delete both, and they are made again"):
        list(read([run], None, evaluate))


def test_settings_that_a_configuration_cannot_have_are_left_out(tmp_path, made_run):
    run = made_run(tmp_path / "run", [True])
    run.config_file.write_text("head = 1\n[train]\nday = 2024-06-01\n")
    (found,) = read([run], None, evaluate)
    assert list(found.config) == ["train"]
