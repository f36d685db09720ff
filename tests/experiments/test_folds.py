"""Studies with cross-validation: planned runs, statistics over folds, and tables."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from fgvc_cli.errors import UsageError
from fgvc_cli.experiments.compare import compare_selection, select_runs
from fgvc_cli.experiments.compared_run import read_run
from fgvc_cli.experiments.comparison import compare
from fgvc_cli.experiments.planning import SweepRequest, plan, resolve_combinations
from fgvc_cli.experiments.statistics import fold_differences, fold_interval
from fgvc_cli.experiments.study import parse_study
from fgvc_cli.experiments.text import cells, images_text, notes
from fgvc_cli.registry import get_registry

CELL = '[[cells]]\nbackbone = "timm/test_resnet"\nhead = ["linear", "pim"]\noptimizer = "sgd"\n'


def test_each_run_becomes_one_per_fold(tiny, tmp_path) -> None:
    study = tiny(f"folds = 3\n{CELL}", seeds=2)
    runs = study.runs()
    assert len(runs) == 12 and [run.fold for run in runs[:6]] == [1, 1, 2, 2, 3, 3]
    assert runs[-1].name == "timm-test_resnet-pim-sgd-seed1-fold3"
    settings = {**runs[-1].layers[0]["train"], **runs[-1].layers[-1]["train"]}
    expected = {"folds": 3, "fold": 3, "seed": 1, "val_seed": 0, "score_test": False}
    assert expected.items() <= settings.items()
    assert resolve_combinations(study, get_registry())[1].train.folds == 3
    (tmp_path / "again.toml").write_text(study.as_toml())
    again = plan(SweepRequest(file=tmp_path / "again.toml"), get_registry())
    assert [run.name for run in again.runs()] == [run.name for run in runs]
    for folds in ("1", "true", "[3]"):
        with pytest.raises(UsageError, match="folds"):
            parse_study(f"folds = {folds}\n{CELL}", "file")
    with pytest.raises(UsageError, match="train_on"):
        resolve_combinations(tiny(f"folds = 3\ntrain.train_on = 'train+val'\n{CELL}"), get_registry())


def test_intervals_and_p_are_those_of_the_corrected_t_test() -> None:
    first, second = {1: 0.8, 2: 0.7, 3: 0.9, 4: 0.75}, {1: 0.7, 2: 0.72, 3: 0.8, 4: 0.7}
    low, high = fold_interval(list(first.values()), 4)
    scores = np.array(list(first.values()))
    error = np.sqrt((1 / 4 + 1 / 3) * scores.var(ddof=1))
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 3, scores.mean(), error))
    many = [{str(i): 1.0 for i in range(50)}, {str(i): 0.0 for i in range(50)}]
    (found,) = fold_differences([first, second], 4, many)
    gaps = scores - np.array(list(second.values()))
    t = gaps.mean() / np.sqrt((1 / 4 + 1 / 3) * gaps.var(ddof=1))
    assert found.p == pytest.approx(2 * stats.t.sf(t, 3)) and found.points == pytest.approx(gaps.mean())
    (equal,) = fold_differences([first, first], 4, [many[0], many[0]])
    assert equal.p == 1 and equal.low == equal.high == 0
    assert fold_differences([first, {5: 1.0}], 5, many) == []  # no two folds in common


def fold_run(make_run, folder, fold: int, correct, **facts):
    keys = [f"{fold}/{i}" for i in range(len(correct))]
    run = make_run(folder, correct, "val", keys, **facts)
    config = run.config_file.read_text().replace(
        "[train]", f"[train]\nfolds = 2\nfold = {fold}\nval_seed = 0\nscore_test = false"
    )
    run.config_file.write_text(config)
    return run


def test_the_folds_of_a_combination_are_one_row(make_run, tmp_path) -> None:
    runs = [
        fold_run(make_run, tmp_path / f"{head}{fold}{seed}", fold, correct, head=head, seed=seed)
        for head, correct in (("a", [True, True, True, False]), ("b", [False, True, False, False]))
        for fold in (1, 2)
        for seed in (0, 1)
        if (head, fold, seed) != ("b", 2, 1)
    ]
    comparison = compare_selection(select_runs([run.path for run in runs]), None, lambda *_: pytest.fail("evaluated"))
    (table,) = comparison.tables
    assert [row.head for row in table.rows] == ["a", "b"] and table.images == 8
    assert table.rows[0].top1.values == (0.75, 0.75) and table.rows[0].seeds == (0, 1)
    document = table.as_json()
    assert document["images"] == 8 and document["folds"] == 2 and document["rows"][1]["folds"] == [1, 2]
    assert document["differences"][0]["points"] == 0.5 and document["differences"][0]["method"] == "corrected t"
    assert "2 folds" in cells(table, 0)["seeds"] and "8 images" in images_text(table)
    only = [read_run(run, run.evaluation("val")) for run in runs if run.name.startswith(("a", "b1"))]
    (partial,) = compare(only).tables
    assert partial.rows[1].top1.interval is None and any("missing" in note for note in notes(partial))
    other = dataclasses.replace(only[-1], images_id="other folds")
    assert len(compare([*only[:-1], other]).tables) == 2
