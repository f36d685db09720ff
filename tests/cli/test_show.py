"""`fgvc show` and `fgvc list-plugins` on what is built in, and completion."""

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


def test_list_plugins_names_every_component_in_both_forms():
    text = run("list-plugins").stdout
    document = json.loads(run("list-plugins", "--json").stdout)
    assert list(document["kinds"]) == list(KINDS)
    for listed in document["kinds"].values():
        for component in listed["components"]:
            assert component["name"] in text
            assert component["summary"]
    assert "timm/<name>" in text
    assert "built in" in text
    assert {plugin["status"] for plugin in document["plugins"] if plugin["builtin"]} == {"loaded"}


def test_list_plugins_of_one_kind():
    text = run("list-plugins", "--kind", "heads").stdout
    assert "pim" in text
    assert "sgd" not in text
    result = run("list-plugins", "--kind", "haed")
    assert result.exit_code == 2
    assert "Did you mean 'head'" in result.stderr


def test_show_head_pim_has_its_options_paper_and_backbones():
    document = shown("head", "pim")
    options = {option["name"]: option for option in document["options"]}
    assert options["fpn_size"]["type"] == "int"
    assert options["fpn_size"]["default"] > 0
    assert options["fpn_size"]["help"]
    assert "2202.03822" in document["source"]
    assert "swin_t" in document["works_with"]["names"]
    text = run("show", "head", "pim").stdout
    for expected in ("fpn_size", "2202.03822", "swin_t", "built in", "fgvc-cli:pim"):
        assert expected in text


def test_show_a_backbone_lists_the_heads_that_fit():
    assert set(shown("backbone", "resnet50")["works_with"]["names"]) >= {"linear", "pim"}
    assert "linear" in run("show", "backbone", "resnet50").stdout


def test_show_a_recipe_prints_its_toml():
    toml = get_registry().find("recipe", "finetune").load()
    assert shown("recipe", "finetune")["toml"] == toml
    assert toml.strip() in run("show", "recipe", "finetune").stdout


def test_show_sam_says_how_its_base_is_chosen():
    text = " ".join(run("show", "optimizer", "sam").stdout.split())
    assert "--set optimizer.base=NAME" in text
    assert shown("optimizer", "sam")["properties"]["base"] == "sgd"
    assert "optimizer.base=" not in run("show", "optimizer", "sgd").stdout


def test_every_component_can_be_shown():
    registry = get_registry()
    for kind in KINDS:
        for component in registry.components(kind):
            assert shown(kind, component.reference)["name"] == component.name
            assert run("show", kind, component.name).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["haed", "pim"], "unknown kind of component 'haed'. Did you mean 'head'"),
        (["head", "pimm"], "Did you mean 'pim'?"),
        (["head"], "cmal, linear, pim"),
        (["settings", "runs"], "takes no name"),
    ],
)
def test_show_what_is_not_there(arguments, message):
    result = run("show", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


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
def test_which_heads_and_backbones_fit(head, strides, verdict):
    assert fits(head, BackboneSpec("b", "m:B", strides=strides)) is verdict


def test_show_settings_says_what_is_in_force_and_from_where(monkeypatch, tmp_path):
    monkeypatch.setenv("FGVC_RUNS", str(tmp_path / "my-runs"))
    monkeypatch.setenv("FGVC_DISABLE_PLUGINS", "all")
    document = json.loads(run("show", "settings", "--json").stdout)
    assert document["runs"] == {"value": str(tmp_path / "my-runs"), "from": "FGVC_RUNS"}
    assert document["disable_plugins"] == {"value": ["all"], "from": "FGVC_DISABLE_PLUGINS"}
    assert document["cache"]["from"] == "default"
    assert document["strict_plugins"] == {"value": False, "from": "default"}
    text = run("--strict-plugins", "show", "settings").stdout
    assert "FGVC_RUNS" in text
    assert "--strict-plugins" in text


def test_settings_from_the_environment(tmp_path):
    read = settings.from_environment({"FGVC_DATA": "~/birds", "FGVC_CACHE": str(tmp_path), "FGVC_RUNS": ""})
    assert read.data_root == Path.home() / "birds"
    assert read.cache == tmp_path
    assert read.runs == Path("runs")
    assert read.origin("runs") == "default"
    assert settings.Settings().cache.is_absolute()
    assert settings.Settings().data_root.name == "data"


def test_settings_are_put_back():
    before = settings.current()
    with settings.in_force(before.changed("--debug", debug=True)):
        assert settings.current().debug
        assert settings.current().origin("debug") == "--debug"
    assert settings.current() == before


def completed(monkeypatch, words: str) -> list[str]:
    monkeypatch.setenv("_FGVC_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    return CliRunner().invoke(build_app(), [], prog_name="fgvc").stdout.split()


def test_the_shell_completes_commands_kinds_and_names(monkeypatch):
    assert completed(monkeypatch, "fgvc list") == ["list-plugins"]
    assert completed(monkeypatch, "fgvc show ba") == ["backbone"]
    assert completed(monkeypatch, "fgvc show head p") == ["pim"]
    assert completed(monkeypatch, "fgvc show backbone ti") == ["timm/"]
    assert completed(monkeypatch, "fgvc list-plugins --kind opt") == ["optimizer"]
