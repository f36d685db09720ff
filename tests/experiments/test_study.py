"""Study files: parsing, errors and writing."""

from __future__ import annotations

import pytest

from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.experiments.study import Combination, Study, parse_study, read_study_file


def test_a_cell_is_the_product_of_its_components():
    read = parse_study(
        """
        recipe = "report"
        seeds = 2
        [dataset]
        name = "demo"
        [[cells]]
        backbone = ["a", "b"]
        head = ["linear", { name = "pim", fpn_size = 8 }]
        optimizer = "sgd"
        train = { epochs = 3 }
        [[cells]]
        name = "last"
        backbone = { name = "c", drop_path = 0.1 }
        """,
        "study.toml",
    )
    assert (read.recipe, read.seeds, read.shared) == ("report", (0, 1), {"dataset": {"name": "demo"}})
    *grid, (name, last) = read.cells
    assert [(cell["backbone"]["name"], cell["head"]["name"]) for _, cell in grid] == [
        ("a", "linear"), ("a", "pim"), ("b", "linear"), ("b", "pim"),
    ]  # fmt: skip
    assert grid[1][1] == {
        "backbone": {"name": "a"}, "head": {"name": "pim", "fpn_size": 8}, "optimizer": {"name": "sgd"},
        "train": {"epochs": 3},
    }  # fmt: skip
    assert (name, last) == ("last", {"backbone": {"name": "c", "drop_path": 0.1}})


def test_seeds_may_be_listed_or_left_out():
    assert parse_study("seeds = [42, 7, 42]\ncells = []", "x").seeds == (42, 7)
    assert parse_study("cells = []", "x").seeds is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cells = 3", "[[cells]]"),
        ("[[cell]]\nhead = 'a'", "cell'"),
        ("[[cells]]\nheads = 'a'", "cell 1: unknown key 'heads'"),
        ("[[cells]]\nhead = 3", "cell 1: head=3"),
        ("[[cells]]\nhead = { name = 3 }", "{'name': 3}"),
        ("[trian]\nepochs = 1\n[[cells]]\nhead='a'", "'train'"),
        ("seeds = 0\n[[cells]]\nhead='a'", "seeds=0"),
        ("seeds = [-1]\n[[cells]]\nhead='a'", "seeds=[-1]"),
        ("seeds = 100000000000000000000\n[[cells]]\nhead='a'", "seeds=1000"),
        ("[[cells]]\nname = '../up'\nhead='a'", "name="),
        ('[[cells]]\nname = "a\\nb"\nhead="a"', r"name='a\nb'"),
        (f"[[cells]]\nname = '{'x' * 250}'\nhead='a'", "name="),
        ("[[cells]]\nname = 'two'\nhead=['a', 'b']", "'two'"),
    ],
)
def test_invalid_study_files(text, said):
    with pytest.raises(UsageError) as refused:
        parse_study(text, "study.toml")
    assert said in str(refused.value) and str(refused.value).startswith("study.toml")


def test_unreadable_files(tmp_path):
    for content in (b"a = [", b"\xff"):
        (tmp_path / "study.toml").write_bytes(content)
        with pytest.raises(FgvcError, match="not valid TOML"):
            read_study_file(tmp_path / "study.toml")
    with pytest.raises(FgvcError, match=r"none\.toml"):
        read_study_file(tmp_path / "none.toml")


def test_a_written_study_is_read_back_unchanged():
    plain = {"backbone": {"name": "a"}, "head": {"name": "b", "maps": [1, 2]}, "optimizer": {"name": "c"}}
    cells = (
        Combination("x", plain),
        Combination("y", {**plain, "optimizer": {"name": "c", "base": {"lr": 1.0}}, "train": {"epochs": 3}}),
    )
    study = Study("report", (3, 4), {"train": {"epochs": 2, "val_by": "auto"}}, cells)
    read = parse_study(study.as_toml(), "x")
    assert (read.recipe, read.seeds, read.shared) == (study.recipe, study.seeds, study.shared)
    assert read.cells == tuple((cell.name, cell.settings) for cell in cells)


def test_runs_differ_in_the_seed():
    cell = Combination("x", {"backbone": {"name": "a"}, "head": {"name": "b"}, "optimizer": {"name": "c"}})
    runs = Study(None, (5, 6), {"train": {"epochs": 2}}, (cell, Combination("y", cell.settings))).runs()
    assert [run.name for run in runs] == ["x-seed5", "y-seed5", "x-seed6", "y-seed6"]
    for run in runs:
        train = {key: value for layer in run.layers for key, value in layer.get("train", {}).items()}
        assert train == {"epochs": 2, "seed": run.seed}
    assert runs[0].title == "a + b + c, seed 5"


def test_former_names_of_settings_are_read():
    cell = '[[cells]]\nbackbone = "a"\noptimizer = "c"\n[cells.head]\nname = "cmal"\nidle = "coast"\n'
    read = parse_study("[train]\naccumulate = 2\n" + cell, "x")
    assert read.shared == {"train": {"grad_accum_steps": 2}}
    assert read.cells[0][1]["head"] == {"name": "cmal", "missing_grad": "zero"}
