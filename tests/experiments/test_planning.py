"""From a request and a study file to combinations."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fgvc_cli.errors import UsageError
from fgvc_cli.experiments.planning import SweepRequest, plan, resolve_combinations
from fgvc_cli.experiments.study import Study
from fgvc_cli.registry import get_registry

TWO_CELLS = """
recipe = "scratch"
seeds = [7, 8]
[train]
epochs = 5
[[cells]]
backbone = "resnet50"
head = "linear"
optimizer = { name = "sgd", lr = 0.5 }
train = { epochs = 9 }
[[cells]]
backbone = "swin_t"
head = { name = "pim", fpn_size = 64 }
optimizer = { name = "sam", base = "adamw" }
"""


def planned(**request) -> Study:
    return plan(SweepRequest(**request), get_registry())


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(TWO_CELLS)
    return path


def titles(study: Study) -> list[str]:
    return [combination.title for combination in study.combinations]


def configs(study: Study):
    return resolve_combinations(study, get_registry())


NONE = {"train": {"weights": "none"}}


def test_names_form_a_grid_and_the_recipe_chooses_the_rest():
    study = planned(names={"head": ["linear", "pim"], "optimizer": ["sgd", "sam", "sgd"]}, options=NONE)
    assert titles(study) == [f"swin_t + {head} + {opt}" for head in ("linear", "pim") for opt in ("sgd", "sam")]
    assert [each.name for each in study.combinations][:2] == ["swin_t-linear-sgd", "swin_t-linear-sam"]
    assert study.seeds == (0,)


def test_a_setting_applies_to_the_components_that_have_it():
    study = planned(names={"head": ["linear", "pim"]}, options=NONE, texts=["head.fpn_size=32", "train.epochs=2"])
    linear, pim = configs(study)
    assert pim.head.options.fpn_size == 32 and linear.train.epochs == pim.train.epochs == 2
    with pytest.raises(UsageError, match="'fpn_size'"):
        planned(names={"head": ["linear", "pim"]}, options=NONE, texts=["head.fpn_siz=32"])


def test_precedence_of_request_cell_and_shared_settings(file):
    first, second = configs(planned(file=file))
    assert (first.train.epochs, second.train.epochs) == (9, 5)
    assert first.optimizer.options.lr == 0.5 and second.optimizer.title == "sam over adamw"
    study = planned(
        file=file, options={"train": {"epochs": 1}}, texts=["optimizer.lr=0.25", "optimizer.base.weight_decay=1"]
    )
    first, second = configs(study)
    assert first.train.epochs == second.train.epochs == 1
    assert first.optimizer.options.lr == 0.25
    assert second.optimizer.title == "sam over adamw" and second.optimizer.base.options.weight_decay == 1
    assert second.optimizer.base.options.lr == 0.25 and second.head.options.fpn_size == 64


def test_names_select_among_the_combinations_of_a_file(file):
    assert titles(planned(file=file, names={"backbone": ["swin_t", "vit_b16"]})) == ["swin_t + pim + sam"]
    open_file = file.with_name("open.toml")
    open_file.write_text("[[cells]]\nhead = ['linear', 'pim']")
    assert titles(planned(file=open_file, names={"backbone": ["vit_b16"], "head": ["pim"]})) == [
        "vit_b16 + pim + adamw"
    ]
    with pytest.raises(UsageError, match="No combination left"):
        planned(file=file, names={"head": ["cmal"]})
    with pytest.raises(UsageError, match="'pim'"):
        planned(file=file, names={"head": ["pimm"]})


def test_seeds(file):
    assert planned(file=file).seeds == (7, 8)
    assert planned(file=file, seeds=3).seeds == (7, 8, 9)
    assert planned(file=file, first_seed=1).seeds == (1, 2)
    assert planned(names={}, options=NONE, seeds=2).seeds == (0, 1)
    assert planned(names={}, recipe="report", seeds=2).seeds == (42, 43), "the recipe's seed is the first"


def test_names_of_cells(tmp_path):
    path = tmp_path / "study.toml"
    cell = "[[cells]]\nhead = {{ name = 'pim', fpn_size = {0} }}\n{1}\n"
    path.write_text(cell.format(8, "") + cell.format(16, "name = 'swin_t-pim-adamw'") + cell.format(8, ""))
    study = planned(file=path)
    assert [each.name for each in study.combinations] == ["swin_t-pim-adamw-2", "swin_t-pim-adamw"], (
        "the third is the first"
    )
    path.write_text(cell.format(8, "name = 'a'") + cell.format(16, "name = 'a'"))
    with pytest.raises(UsageError, match="named 'a'"):
        planned(file=path)


def test_a_written_plan_is_read_back_unchanged(file, tmp_path):
    study = planned(file=file, texts=["head.num_selects=[4, 4, 4, 4]"], options={"dataset": {"data": "photos"}})
    kept = tmp_path / "kept.toml"
    kept.write_text(study.as_toml())
    assert planned(file=kept) == study


def test_all_runs_hold_out_the_same_images_including_seeds_added_later(file, tmp_path):
    study = planned(file=file)
    kept = tmp_path / "kept.toml"
    kept.write_text(study.as_toml().replace("seeds = [", "seeds = [\n    1,", 1))
    added = planned(file=kept)
    assert (study.seeds, added.seeds) == ((7, 8), (1, 7, 8))
    for config in (*configs(study), *configs(added)):
        assert config.train.val_seed == 7


def test_paths_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = planned(options={**NONE, "dataset": {"data": "photos"}})
    assert study.shared["dataset"]["data"] == str(tmp_path / "photos")


def test_an_invalid_value_is_reported_with_its_combination(file):
    study = planned(file=file, texts=["train.epochs=-1"])
    with pytest.raises(UsageError, match=r"resnet50 \+ linear \+ sgd: train.epochs=-1: "):
        configs(study)


def test_registered_studies():
    counts = {
        name: len(planned(study=name).combinations) for name in ("report-aircraft", "report-flowers", "report-mammalia")
    }
    assert list(counts.values()) == [14, 14, 11]
    study = planned(study="report-mammalia", options={"train": {"epochs": 1}})
    assert study.seeds == (42,) and study.recipe == "report"
    for config in configs(study):
        assert config.train.epochs == 1 and config.dataset.name == "mammalia" and config.train.image_size == 224
        smoothed = 0.1 if config.optimizer.name == "sam" else 0.0
        assert config.train.label_smoothing == smoothed
    with pytest.raises(UsageError, match="both name a study"):
        SweepRequest(file="x", study="y")
    with pytest.raises(UsageError, match="'report-flowers'"):
        planned(study="report-flower")


def test_names_in_a_plugins_study_are_its_own_components(monkeypatch):
    """A plugin that claims a built-in name does not break the built-in studies."""
    registry = get_registry()
    mine = registry.find("head", "pim")
    theirs = replace(mine, origin=replace(mine.origin, distribution="fgvc-other"))
    components, find, clashes = registry.components, registry.find, registry.clashes

    def every(kind):
        return [*components(kind), *([theirs] if kind == "head" else [])]

    def found(kind, name):
        if (kind, name) == ("head", "pim"):
            raise UsageError("more than one plugin registers that name")
        return theirs if name == "fgvc-other:pim" else find(kind, name)

    monkeypatch.setattr(registry, "components", every)
    monkeypatch.setattr(registry, "find", found)
    monkeypatch.setattr(registry, "clashes", lambda kind: {"pim"} if kind == "head" else clashes(kind))
    names = [combination.components["head"] for combination in planned(study="report-aircraft").combinations]
    assert names.count("fgvc-cli:pim") == 3 and "pim" not in names
