"""Merging and validating the settings of a run."""

import tomllib
from pathlib import Path

import pytest
import tomli_w

from fgvc_cli.config.layering import read_recipe
from fgvc_cli.config.run_config import read_config, resolve, user_settings
from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.registry import get_registry

CPU = {"device": "cpu", "weights": "none"}
GPU = {"device": "cuda", "weights": "pretrained"}


def resolved(*layers, recipe="scratch", facts=CPU):
    return resolve(layers, recipe, facts, get_registry())


def test_every_built_in_recipe_resolves_on_every_device():
    registry = get_registry()
    for component in registry.components("recipe"):
        for facts in (CPU, GPU):
            for optimizer in ("sgd", "adamw"):
                for head in ("linear", "pim"):
                    layer = {"optimizer": {"name": optimizer}, "head": {"name": head}}
                    assert resolve([layer], component.name, facts, registry).train.epochs >= 1


def test_a_recipe_depends_on_the_device():
    assert resolved().train.image_size < resolved(facts={**GPU, "weights": "none"}).train.image_size == 224


def test_stronger_layers_win_and_options_of_a_replaced_component_are_dropped():
    config = resolved(
        {"optimizer": {"name": "sgd", "nesterov": False, "lr": 1.0}},
        {"optimizer": {"name": "adamw"}},
        {"optimizer": {"lr": 0.5}},
    )
    assert config.optimizer.name == "adamw" and config.optimizer.options.lr == 0.5
    kept = resolved({"optimizer": {"name": "sgd", "lr": 1.0}}, {"optimizer": {"momentum": 0.5}})
    assert (kept.optimizer.options.lr, kept.optimizer.options.momentum) == (1.0, 0.5)


def test_a_written_configuration_resolves_to_itself(tmp_path):
    layer = {
        "head": {"name": "pim", "num_selects": [8, 4, 2, 1]},
        "dataset": {"data": str(tmp_path)},
        "train": {"epochs": 3, "seed": 7},
    }
    config = resolved(layer, recipe="pim-paper")
    path = tmp_path / "config.toml"
    path.write_text(config.as_toml())
    settings, recipe = read_config(path)
    again = resolve([settings], recipe, {}, get_registry())
    assert again == config == resolve([config.as_layer()], recipe, {}, get_registry())
    assert tomllib.loads(path.read_text())["head"]["num_selects"] == [8, 4, 2, 1]


def test_a_written_configuration_keeps_what_settings_were_before_they_existed(tmp_path):
    document = resolved(recipe="finetune", facts=GPU).as_document()
    assert document["train"]["ema"] and document["train"]["freeze"] == "half"
    later = ("freeze", "batch_norm", "head_init", "layer_decay", "ema", "average_epochs", "progressive_size")
    document["train"] = {name: value for name, value in document["train"].items() if name not in later}
    path = tmp_path / "config.toml"
    path.write_text(tomli_w.dumps(document))
    settings, recipe = read_config(path)
    train, usual = resolve([settings], recipe, {}, get_registry()).train, TrainOptions()
    assert {name: getattr(train, name) for name in later} == {name: getattr(usual, name) for name in later}


def test_a_folder_selects_the_folder_dataset():
    config = resolved({"dataset": {"data": "photos"}})
    assert config.dataset.component.spec.name == "folder" and config.data == Path("photos").absolute()


def test_a_file_selects_the_dataset_that_reads_it(tmp_path):
    for name in ("list.csv", "LIST.TSV"):  # whether it is there or not
        assert resolved({"dataset": {"data": name}}).dataset.component.spec.name == "table"
    (tmp_path / "photos.csv").mkdir()  # a folder is one whatever its name
    assert resolved({"dataset": {"data": str(tmp_path / "photos.csv")}}).dataset.component.spec.name == "folder"
    (tmp_path / "photos.zip").touch()
    with pytest.raises(UsageError, match=r"photos.zip.*\.csv, \.shards, \.tsv"):
        resolved({"dataset": {"data": str(tmp_path / "photos.zip")}})


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"head": {"name": "pimm"}}, "pim"),
        ({"head": {"name": "pim", "fpn_sice": 3}}, "fpn_size"),
        ({"head": {"name": "pim", "fpn_size": "big"}}, "expected int"),
        ({"train": {"epochs": -1}}, "at least 0"),
        ({"train": {"schedule": "linear"}}, "constant or cosine or step"),
        ({"augment": {"policy": "auto"}}, "autoaugment"),
    ],
)
def test_wrong_settings_are_refused_with_a_suggestion(layer, message):
    with pytest.raises(UsageError, match=message):
        resolved(layer)


def test_an_unknown_recipe_is_refused():
    with pytest.raises(UsageError, match="scratch"):
        read_recipe("scrach", get_registry())


def test_invalid_files_are_refused(tmp_path):
    with pytest.raises(FgvcError, match=r"none\.toml"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "a.toml").write_text("a = ")
    with pytest.raises(FgvcError, match="not valid TOML"):
        read_config(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_text("[haed]\nname='pim'")
    with pytest.raises(UsageError, match="Did you mean 'head'"):
        read_config(tmp_path / "b.toml")


def test_set_overrides_options_and_options_the_file(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('recipe = "report"\n[train]\nepochs = 1\nseed = 1\nbatch_size = 4\n')
    layers, recipe = user_settings(path, {"train": {"epochs": 2, "seed": 2, "device": None}}, ["train.epochs=3"])
    train = resolved(*layers, recipe=recipe).train
    assert (recipe, train.epochs, train.seed, train.batch_size) == ("report", 3, 2, 4)


@pytest.mark.parametrize("text", ["epochs=3", "train.epochs", "trian.epochs=3", "=", "train.=3"])
def test_a_malformed_set_is_refused(text):
    with pytest.raises(UsageError, match=r"kind\.option=value|no section 'trian'"):
        user_settings(None, {}, [text])


@pytest.mark.parametrize("size", [64, 448])
def test_every_recipe_takes_any_image_size(size):
    for component in get_registry().components("recipe"):
        train = resolved({"train": {"image_size": size}}, recipe=component.name).train
        assert train.resize == 0 and train.image_size == size


def test_published_sizes_follow_from_published_ratios():
    for recipe, crop, resize in (("report", 224, 260), ("pim-paper", 384, 510)):
        train = resolved(recipe=recipe, facts=GPU).train
        assert (train.image_size, round(train.image_size / train.crop_pct)) == (crop, resize)


def test_none_overrides_a_recipe(tmp_path):
    config = resolved({"optimizer": {"head_lr": "none"}}, recipe="finetune", facts=GPU)
    assert config.optimizer.options.head_lr is None
    (tmp_path / "config.toml").write_text(config.as_toml())
    settings, recipe = read_config(tmp_path / "config.toml")
    assert resolve([settings], recipe, GPU, get_registry()).optimizer.options.head_lr is None


def test_former_names_in_a_file_are_read_for_their_component_only(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('[head]\nname = "cmal"\nidle = "coast"\n[train]\nfit = "stretch"\nsampling = "root"\n')
    assert read_config(file)[0] == {
        "head": {"name": "cmal", "missing_grad": "zero"},
        "train": {"crop_mode": "squash", "sampling": "sqrt"},
    }
    file.write_text('[head]\nname = "other:mine"\nidle = "coast"\nsampling = "root"\n')
    layer, _ = read_config(file)
    assert layer["head"] == {"name": "other:mine", "idle": "coast", "sampling": "root"}
