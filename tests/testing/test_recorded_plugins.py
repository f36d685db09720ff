"""What a run needs of its plugins after they were uninstalled or changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fgvc_cli import FgvcError
from fgvc_cli.config.layering import read_recipe
from fgvc_cli.config.run_config import read_config, user_settings
from fgvc_cli.registry import Registry, get_registry
from fgvc_cli.runs import model_file
from fgvc_cli.training import run as training
from fgvc_cli.training.callbacks import Callback


class Stop(Callback):
    def on_epoch_end(self, metrics, is_best):
        raise FgvcError("stopped")


@pytest.fixture(scope="module")
def interrupted(flawed, tmp_path_factory):
    """An interrupted run: every component, and the recipe, of the plugin."""
    out = tmp_path_factory.mktemp("runs") / "run"
    names = {kind: {"name": "fgvc-flawed:sound"} for kind in ("backbone", "head", "optimizer", "dataset")}
    train = {"weights": "none", "image_size": 32, "batch_size": 4, "epochs": 2, "device": "cpu", "workers": 0}
    with pytest.raises(FgvcError, match="stopped"):
        training.train([{**names, "train": train}], "fgvc-flawed:sound", out, True, get_registry(), [Stop()])
    return out


def with_plugin(change):
    """Return the registry with another record of the plugin, or without it."""
    plugins = [change(p) if p.distribution == "fgvc-flawed" else p for p in get_registry().plugins]
    return Registry([plugin for plugin in plugins if plugin is not None])


def newer(plugin):
    """Release the plugin again, as version 2."""
    origin = replace(plugin.origin, version="2.0")
    return replace(plugin, origin=origin, components=tuple(replace(c, origin=origin) for c in plugin.components))


def test_versions_are_recorded(interrupted):
    settings, recipe = read_config(interrupted / "config.toml")
    assert settings["plugins"] == {"fgvc-flawed": "1.0"} and recipe == "fgvc-flawed:sound"


@pytest.mark.parametrize(("kind", "name"), [("backbone", "sound"), ("recipe", "sound"), ("dataset", "sound")])
def test_missing_plugin_is_named_with_its_version(interrupted, monkeypatch, kind, name):
    registry = with_plugin(lambda plugin: None)
    config = interrupted / "config.toml"
    text = config.read_text()
    others = {"backbone": "timm/test_resnet", "head": "linear", "optimizer": "sgd", "dataset": "demo"}
    settings = [] if kind == "recipe" else [{k: {"name": n} for k, n in others.items() if k != kind}]
    recipe = read_config(config)[1] if kind == "recipe" else "scratch"
    needs = rf"needs fgvc-flawed 1\.0 \({kind} {name}\), which is not installed: install it from where you got it"
    for version in ("1.0", ""):  # runs of earlier versions did not record it
        config.write_text(text if version else text.replace("[plugins]", "[dropped]").split("[dropped]")[0])
        layers, _ = user_settings(config, {})
        with pytest.raises(FgvcError, match=needs if version else needs.replace(r" 1\.0", "")) as caught:
            training.train([*layers, *settings], recipe, None, True, registry)
        assert caught.value.exit_code == 1 and "Did you mean" not in str(caught.value)
    config.write_text(text)
    with pytest.raises(FgvcError, match=r"needs fgvc-flawed 1\.0 .*, which is not installed") as caught:
        training.resume(interrupted, registry)
    assert caught.value.exit_code == 1
    monkeypatch.setattr(model_file, "get_registry", lambda: registry)
    with pytest.raises(FgvcError, match=r"safetensors needs fgvc-flawed 1\.0 \(backbone sound\), which is") as caught:
        model_file.load_classifier(interrupted)
    assert caught.value.exit_code == 1


def test_other_version_is_said_once(interrupted, monkeypatch, caplog):
    registry = with_plugin(newer)
    monkeypatch.setattr(model_file, "get_registry", lambda: registry)
    for _ in range(2):
        model_file.load_classifier(interrupted)
    (line,) = [r.getMessage() for r in caplog.records if "made with" in r.getMessage()]
    assert "fgvc-flawed 1.0" in line and "2.0" in line


def test_options_and_weights_that_went_are_told_with_both_versions(interrupted, monkeypatch):
    registry = with_plugin(newer)
    monkeypatch.setattr(model_file, "get_registry", lambda: registry)
    settings, _ = read_config(interrupted / "config.toml")
    settings["optimizer"]["nesterov"] = True
    with pytest.raises(FgvcError, match=r"optimizer\.nesterov: no such option.*fgvc-flawed 1\.0, 2\.0 is installed"):
        training.train([settings], "scratch", None, True, registry)
    from fgvc_flawed.heads import Sound

    monkeypatch.setattr(Sound, "__init__", widened(Sound.__init__))
    with pytest.raises(FgvcError, match=r"does not match .*fgvc-flawed 1\.0, 2\.0 is installed"):
        model_file.load_classifier(interrupted)


def widened(build):
    def __init__(self, backbone, classes, options):
        build(self, backbone, classes, options)
        self.another = self.classify

    return __init__


def test_components_that_are_not_needed_may_be_missing(interrupted, monkeypatch):
    """A model file needs its backbone and its head alone."""
    document = model_file.read_metadata(interrupted)
    assert {"optimizer", "dataset"} < set(document["components"])
    needed = ("backbone", "head")
    registry = with_plugin(lambda p: replace(p, components=tuple(c for c in p.components if c.kind in needed)))
    monkeypatch.setattr(model_file, "get_registry", lambda: registry)
    model_file.load_classifier(interrupted)


def test_recipe_of_a_plugin_keeps_its_distribution(flawed):
    assert read_recipe("fgvc-flawed:sound", get_registry()).reference == "fgvc-flawed:sound"
    assert read_recipe("scratch", get_registry()).reference == "scratch"
