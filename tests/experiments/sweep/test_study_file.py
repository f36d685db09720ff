"""Study files: what they say, and what is said of those that say something else."""

from __future__ import annotations

import pytest

from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.experiments.study import Combination, Study, as_toml, parse_study, read_study_file


def test_a_cell_is_every_backbone_with_every_head_and_every_optimizer():
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


def test_seeds_may_be_named_one_by_one_or_left_out():
    assert parse_study("seeds = [42, 7, 42]\ncells = []", "x").seeds == (42, 7)
    assert parse_study("cells = []", "x").seeds is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cells = 3", "has its combinations under [[cells]]"),
        ("", "has its combinations under [[cells]]"),
        ("[[cell]]\nhead = 'a'", "Did you mean 'cells'"),
        ("[[cells]]\nheads = 'a'", "cell 1: heads: cells have no such thing. Did you mean 'head'"),
        ("[[cells]]\nhead = 3", "cell 1: head=3"),
        ("[[cells]]\nhead = { name = 3 }", "give a name, or a table"),
        ("[[cells]]\ntrain = 3", "'train' must be a table"),
        ("[trian]\nepochs = 1\n[[cells]]\nhead='a'", "Did you mean 'train'"),
        ("seeds = 0\n[[cells]]\nhead='a'", "seeds=0: give how many"),
        ("seeds = [-1]\n[[cells]]\nhead='a'", "give how many (3), or which"),
        ("seeds = true\n[[cells]]\nhead='a'", "seeds=True"),
        ("recipe = 1\n[[cells]]\nhead='a'", "give the name of a recipe"),
        ("seeds = 100000000000000000000\n[[cells]]\nhead='a'", "give how many"),
        ("[[cells]]\nname = '../up'\nhead='a'", "a word that can name a folder"),
        ('[[cells]]\nname = "a\\nb"\nhead="a"', r"name='a\nb': give a word"),
        (f"[[cells]]\nname = '{'x' * 250}'\nhead='a'", "a word that can name a folder"),
        ("[[cells]]\nname = '-x'\nhead='a'", "a word that can name a folder"),
        ("[[cells]]\nname = 'two'\nhead=['a', 'b']", "'two' names 2 combinations"),
    ],
)
def test_what_a_study_file_cannot_say(text, said):
    with pytest.raises(UsageError) as refused:
        parse_study(text, "study.toml")
    assert said in str(refused.value) and str(refused.value).startswith("study.toml")


def test_files_that_cannot_be_read(tmp_path):
    for content, said in ((b"a = [", "no valid TOML"), (b"\xff", "no valid TOML")):
        (tmp_path / "study.toml").write_bytes(content)
        with pytest.raises(FgvcError, match=said):
            read_study_file(tmp_path / "study.toml")
    with pytest.raises(FgvcError, match=r"docs/studies\.md shows one"):
        read_study_file(tmp_path / "none.toml")


def test_what_is_written_says_the_same_again():
    plain = {"backbone": {"name": "a"}, "head": {"name": "b", "maps": [1, 2]}, "optimizer": {"name": "c"}}
    cells = (
        Combination("x", plain),
        Combination("y", {**plain, "optimizer": {"name": "c", "base": {"lr": 1.0}}, "train": {"epochs": 3}}),
    )
    study = Study("report", (3, 4), {"train": {"epochs": 2}}, cells)
    read = parse_study(as_toml(study), "x")
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
