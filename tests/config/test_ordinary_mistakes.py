"""Ordinary mistakes in settings: each is one line that says what is wrong."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fgvc_cli.config.run_config import user_settings
from fgvc_cli.config.train_options import AugmentOptions, TrainOptions
from fgvc_cli.devices import resolve_precision
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.options import build, describe
from fgvc_cli.registry import get_registry
from fgvc_cli.settings import Settings
from fgvc_cli.training.setup import draft

VALUES = ("5", "-1", "true", '"x"', '""', "[]", "[1]", "{}", "{a=1}", "1979-05-27", "nan", "1" + 22 * "0", '"~no/x"')
NAMES = [
    "recipe", "backbone", "head", "dataset", "train", "tracker", "dataset.name", "dataset.data", "head.name",
    "optimizer.name", "optimizer.base", "optimizer.base.lr", "optimizer.lr", "tracker.tensorboard.folder",
    *(f"train.{field.name}" for field in dataclasses.fields(TrainOptions)),
    *(f"augment.{field.name}" for field in dataclasses.fields(AugmentOptions)),
]  # fmt: skip


def resolve(tmp_path, text: bytes):
    (tmp_path / "config.toml").write_bytes(text)
    layers, recipe = user_settings(tmp_path / "config.toml", {})
    return draft(layers, recipe, get_registry()).config


def test_a_value_of_another_type_is_refused_or_fits(tmp_path) -> None:
    for name in NAMES:
        section, _, option = name.rpartition(".")
        for value in VALUES:
            text = f"[{section}]\n{option} = {value}\n" if section else f"{option} = {value}\n"
            try:
                resolve(tmp_path, text.encode())
            except FgvcError as error:
                assert "\n" not in str(error)  # noqa: PT017  most values are errors, none another exception


def test_a_byte_order_mark_is_no_part_of_the_first_setting(tmp_path) -> None:
    assert resolve(tmp_path, b"\xef\xbb\xbf[train]\nepochs = 3\n").train.epochs == 3


@pytest.mark.parametrize(
    "setting", [{"seed": 10**20}, {"image_size": 10**6}, {"epochs": 10**23}, {"workers": 1000}, {"batch_size": 10**9}]
)
def test_counts_that_cannot_be_meant_are_refused(setting) -> None:
    with pytest.raises(UsageError, match="at most"):
        draft([{"train": setting}], None, get_registry())


def test_no_option_takes_a_count_without_bound() -> None:
    registry = get_registry()
    types = [TrainOptions, AugmentOptions]
    for kind in ("head", "optimizer", "dataset", "explainer", "tracker"):
        types += [component.options_type() for component in registry.components(kind)]
    types.append(registry.find("backbone", "timm/test_resnet").options_type())
    for options in types:
        for info in describe(options):
            if "int" in info.type.split(" or "):
                with pytest.raises(UsageError, match=rf"x\.{info.name}=\d+: must be .*at most"):
                    build(options, {info.name: 10**23}, "x")


def test_fp16_is_refused_with_the_reason() -> None:
    for refused in (
        lambda: draft([{"train": {"precision": "fp16"}}], None, get_registry()),
        lambda: resolve_precision("fp16", torch.device("cpu")),
    ):
        with pytest.raises(UsageError, match="loss scaling"):
            refused()


@pytest.mark.parametrize("name", ["runs", "data_root", "weights_root", "cache"])
def test_a_folder_of_the_program_is_no_file(tmp_path, name) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is a file"):
        Settings().parsed(name, str(tmp_path / "file"), "--option")


@pytest.mark.parametrize(("data", "words"), [("~nouser/x", "home folder"), ("", "empty"), ("a\udcff", "UTF-8")])
def test_paths_that_name_nothing(data, words) -> None:
    with pytest.raises(UsageError, match=words):
        draft([{"dataset": {"data": data}}], None, get_registry())
