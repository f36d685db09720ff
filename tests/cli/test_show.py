"""`fgvc show` and `fgvc list-plugins` on the built-in components, program settings, and completion."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fgvc_cli import BackboneSpec, HeadSpec, settings
from fgvc_cli.cli.app import build_app
from fgvc_cli.registry import get_registry
from fgvc_cli.registry.compatibility import fits
from fgvc_cli.specs import KINDS


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for variable in settings.VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


def run(*arguments: str):
    return CliRunner().invoke(build_app(), list(arguments))


def shown(*arguments: str):
    result = run("show", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_list_plugins_names_every_component():
    text = run("list-plugins").stdout
    document = json.loads(run("list-plugins", "--json").stdout)
    assert list(document["kinds"]) == list(KINDS)
    for listed in document["kinds"].values():
        assert all(component["name"] in text and component["summary"] for component in listed["components"])
    assert "timm/<name>" in text and "built in" in text
    assert {plugin["status"] for plugin in document["plugins"] if plugin["builtin"]} == {"loaded"}


def test_list_plugins_of_one_kind():
    text = run("list-plugins", "--kind", "heads").stdout
    assert "pim" in text and "sgd" not in text
    result = run("list-plugins", "--kind", "haed")
    assert result.exit_code == 2 and "'head'" in result.stderr


def test_show_a_head():
    document, text = shown("head", "pim"), run("show", "head", "pim").stdout
    (option,) = [option for option in document["options"] if option["name"] == "fpn_size"]
    assert list(option) == ["name", "type", "default", "help"]
    assert option["type"] == "int" and option["default"] > 0 and option["help"]
    assert "2202.03822" in document["source"] and "swin_t" in document["works_with"]["names"]
    for expected in ("fpn_size", "2202.03822", "swin_t", "built in", "fgvc-cli:pim"):
        assert expected in text


def test_show_an_optimizer_that_wraps_another():
    assert shown("optimizer", "sam")["properties"]["base"] == "sgd"
    assert "--set optimizer.base=NAME" in run("show", "optimizer", "sam").stdout
    assert "optimizer.base=" not in run("show", "optimizer", "sgd").stdout


def test_every_component_can_be_shown():
    registry = get_registry()
    for kind in KINDS:
        for component in registry.components(kind):
            text = run("show", kind, component.reference).stdout
            assert f"{kind} {component.name}" in text
            if component.spec.is_file:
                assert component.load().strip() in text


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["haed", "pim"], "'head'"),
        (["head", "pimm"], "'pim'"),
        (["head"], "cmal, knn, linear, pim, probe, prototypes"),
        (["settings", "x"], "x"),
    ],
)
def test_show_refuses_what_does_not_exist(arguments, fact):
    result = run("show", *arguments)
    assert result.exit_code == 2 and fact in result.stderr


@pytest.mark.parametrize(
    ("head", "strides", "verdict"),
    [
        (HeadSpec("h", "m:H"), (), True),
        (HeadSpec("h", "m:H", maps=2), (), None),
        (HeadSpec("h", "m:H", maps=2), (4, 8), True),
        (HeadSpec("h", "m:H", maps=3), (4, 8), False),
        (HeadSpec("h", "m:H", maps=2), (16, 16, 16), True),
        (HeadSpec("h", "m:H", maps=2, distinct_strides=True), (16, 16, 16), False),
        (HeadSpec("h", "m:H", maps=2, distinct_strides=True), (8, 16, 16), True),
    ],
)
def test_compatibility_of_heads_and_backbones(head, strides, verdict):
    assert fits(head, BackboneSpec("b", "m:B", strides=strides)) is verdict


def test_settings_come_from_options_the_environment_or_defaults(monkeypatch):
    monkeypatch.setenv("FGVC_RUNS", "/from/environment")
    monkeypatch.setenv("FGVC_DISABLE_PLUGINS", "all")
    arguments = ["--strict-plugins", "show", "settings", "--data-root=/d", "--cache", "/c", "--cache-limit", "50gb"]
    document = json.loads(run(*arguments, "--json").stdout)
    assert document["runs"] == {"value": "/from/environment", "from": "FGVC_RUNS"}
    assert document["data_root"] == {"value": "/d", "from": "--data-root"}
    assert document["cache"] == {"value": "/c", "from": "--cache"}
    assert document["cache_limit"] == {"value": 50 * 10**9, "from": "--cache-limit"}
    assert document["disable_plugins"] == {"value": ["all"], "from": "FGVC_DISABLE_PLUGINS"}
    assert document["only_plugins"] == {"value": None, "from": "default"}
    assert document["strict_plugins"] == {"value": True, "from": "--strict-plugins"}
    text = run(*arguments).stdout
    assert "50 GB" in text and "FGVC_RUNS" in text


def test_settings_from_the_environment(tmp_path):
    read = settings.from_environment(
        {"FGVC_DATA": "~/birds", "FGVC_CACHE": str(tmp_path), "FGVC_RUNS": "", "FGVC_ONLY_PLUGINS": "a, b"}
    )
    assert read.data_root == Path.home() / "birds" and read.cache == tmp_path and read.only_plugins == ("a", "b")
    assert read.runs == Path("runs") and read.origin("runs") == "default"
    assert settings.Settings().cache.is_absolute() and settings.Settings().data_root.name == "data"


def completed(monkeypatch, words: str) -> list[str]:
    monkeypatch.setenv("_FGVC_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    return CliRunner().invoke(build_app(), [], prog_name="fgvc").stdout.split()


def test_the_shell_completes_commands_kinds_and_names(monkeypatch):
    assert completed(monkeypatch, "fgvc list") == ["list-plugins"]
    assert completed(monkeypatch, "fgvc show ba") == ["backbone"]
    assert completed(monkeypatch, "fgvc show head pi") == ["pim"]
    assert completed(monkeypatch, "fgvc show backbone ti") == ["timm/"]
    assert completed(monkeypatch, "fgvc list-plugins --kind opt") == ["optimizer"]


def test_the_kind_of_a_component_is_told():
    result = run("show", "knn")
    assert result.exit_code == 2 and "fgvc show head knn" in result.stderr
