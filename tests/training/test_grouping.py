"""Runs whose splits are drawn by a column of a table: recorded, resumed, evaluated and compared."""

from __future__ import annotations

import pytest

from fgvc_cli.errors import FgvcError
from fgvc_cli.evaluation.evaluate import evaluate_run
from fgvc_cli.evaluation.split_selection import SplitRequest
from fgvc_cli.files import write_csv
from fgvc_cli.registry import get_registry
from fgvc_cli.training.state import Interrupted


def test_a_run_keeps_its_groups(train, photos, tmp_path, resume, interrupt_at, assert_same) -> None:
    names = sorted(path.relative_to(photos / "train").as_posix() for path in (photos / "train").rglob("*.png"))
    rows = [[f"train/{name}", name.partition("/")[0], f"{name.partition('/')[0]}-{i % 3}"]
            for i, name in enumerate(names)]  # fmt: skip
    table, how = tmp_path / "photos.csv", {"group_by": "bird", "val_fraction": 0.3}

    def write() -> None:
        write_csv(table, ("path", "label", "bird"), [[str(photos / row[0]), *row[1:]] for row in rows])

    write()
    whole = train(tmp_path / "whole", data=table, **how).run
    with pytest.raises(Interrupted):
        train(tmp_path / "resumed", interrupt_at(3), data=table, **how)
    evaluated = evaluate_run(whole.model_file, get_registry(), SplitRequest("val"))
    lines = (whole.path / "evaluation" / "val" / "predictions.csv").read_text().splitlines()[1:]
    birds = {str(photos / row[0]): row[2] for row in rows}
    val = {line.split(",")[0] for line in lines}
    assert evaluated.summary.images == len(val) == whole.summary.splits["val"]["images"]
    assert not {birds[key] for key in val} & {birds[key] for key in birds.keys() - val}
    bird, rows[0][2] = rows[0][2], "another"
    write()
    with pytest.raises(FgvcError, match="groups"):
        evaluate_run(whole.model_file, get_registry(), SplitRequest("val"))
    with pytest.raises(FgvcError, match="groups"):
        resume(tmp_path / "resumed")
    rows[0][2] = bird
    write()
    assert_same(whole, resume(tmp_path / "resumed"))
