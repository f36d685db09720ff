"""Which entry points are found, and which of them the settings allow."""

import sys

import pytest

from fgvc_cli import FgvcError, UsageError
from fgvc_cli.registry.loading import InstalledPlugin, installed_plugins
from fgvc_cli.registry.lookup import discover
from fgvc_cli.settings import Settings, from_environment


def head(name: str) -> str:
    return (
        "from fgvc_cli import HeadSpec, hookimpl\n"
        f"@hookimpl\ndef fgvc_heads():\n    return [HeadSpec('{name}', 'no_module:Head')]\n"
    )


def test_plugins_are_sorted_by_distribution_and_entry_point(install):
    install("zz", {"zz_one.py": head("one")}, {"b": "zz_one", "a": "zz_two"})
    install("aa", {"aa_one.py": head("two")})
    found = [(plugin.distribution, plugin.name) for plugin in installed_plugins()]
    assert found == sorted(found)
    assert [entry for entry in found if entry[0] != "fgvc-cli"] == [("aa", "aa"), ("zz", "a"), ("zz", "b")]


@pytest.mark.parametrize("module", ["twice_plugin", "older_plugin"])
def test_a_distribution_seen_twice_is_loaded_once(install, tmp_path, monkeypatch, module):
    install("twice", {"twice_plugin.py": head("one")})
    checkout = tmp_path / "checkout"
    info = checkout / "twice.egg-info"
    info.mkdir(parents=True)
    (info / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: Twice\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fgvc]\ntwice = {module}\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(checkout)])  # behind what is installed
    assert len([p for p in installed_plugins() if p.distribution.lower() == "twice"]) == 1
    assert discover(Settings()).find("head", "one").name == "one"


def test_an_entry_point_named_twice_in_one_distribution_is_loaded_once(install):
    install("double", {"double_plugin.py": head("one")}, "[fgvc]\nx = double_plugin\nx = double_plugin\n")
    records = [plugin for plugin in discover(Settings()).plugins if plugin.distribution == "double"]
    assert [plugin.status for plugin in records] == ["loaded"]


def test_two_entry_points_of_one_name_and_different_modules_are_both_loaded(install):
    modules = {"double_a.py": head("one"), "double_b.py": head("two")}
    install("double", modules, "[fgvc]\nx = double_a\nx = double_b\n")
    registry = discover(Settings())
    assert registry.find("head", "one")
    assert registry.find("head", "two")


def test_two_entry_points_of_one_module_say_so(install):
    install("double", {"double_a.py": head("one")}, {"x": "double_a", "y": "double_a"})
    records = [plugin for plugin in discover(Settings()).plugins if plugin.distribution == "double"]
    assert [plugin.status for plugin in records] == ["loaded", "failed"]
    assert "already loaded by another entry point" in records[1].cause


def test_a_name_registered_by_two_plugins_of_one_distribution_is_refused(install):
    install("double", {"double_a.py": head("one"), "double_b.py": head("one")}, {"x": "double_a", "y": "double_b"})
    registry = discover(Settings())
    assert "head 'one' is already registered by another plugin of double" in [p.cause for p in registry.plugins]
    assert registry.find("head", "double:one")


def test_damaged_metadata_of_another_package_is_skipped(install):
    install("damaged", {"damaged_plugin.py": head("one")}, "[fgvc]\nthis is no entry point\n")
    assert discover(Settings()).find("head", "pim")


def test_an_object_can_be_a_plugin(install):
    module = (
        "from fgvc_cli import HeadSpec, hookimpl\nclass Plugin:\n    @hookimpl\n    def fgvc_heads(self):\n"
        "        return [HeadSpec('of-object', 'no_module:Head')]\nplugin = Plugin()\n"
    )
    install("object", {"object_plugin.py": module}, {"object": "object_plugin:plugin"})
    assert discover(Settings()).find("head", "of-object").distribution == "object"


def test_missing_built_ins():
    stranger = InstalledPlugin("stranger", "x", "no_module", "1.0")
    with pytest.raises(FgvcError, match=r"built-in plugins are not installed.*pip install -e \."):
        discover(Settings(), [stranger])


@pytest.mark.parametrize(
    ("environment", "loaded"),
    [
        ({}, ["first", "second.plugin"]),
        ({"FGVC_DISABLE_PLUGINS": "all"}, []),
        ({"FGVC_DISABLE_PLUGINS": "First"}, ["second.plugin"]),
        ({"FGVC_DISABLE_PLUGINS": "first, second_plugin"}, []),
        ({"FGVC_ONLY_PLUGINS": "SECOND-plugin"}, ["second.plugin"]),
        ({"FGVC_ONLY_PLUGINS": "first,second-plugin", "FGVC_DISABLE_PLUGINS": "first"}, ["second.plugin"]),
    ],
)
def test_allow_and_deny_lists_apply_before_import(install, environment, loaded):
    install("first", {"first_plugin.py": head("one")})
    install("second.plugin", {"second_plugin.py": head("two")})

    registry = discover(from_environment(environment))

    external = [plugin for plugin in registry.plugins if not plugin.builtin]
    assert [plugin.distribution for plugin in external if plugin.status == "loaded"] == loaded
    modules = {"first": "first_plugin", "second.plugin": "second_plugin"}
    assert [name for name, module in modules.items() if module in sys.modules] == loaded
    assert all(plugin.cause in environment for plugin in external if plugin.status == "disabled")
    assert registry.find("head", "pim").builtin


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"FGVC_DISABLE_PLUGINS": "frist"}, "FGVC_DISABLE_PLUGINS: no installed distribution named 'frist'"),
        ({"FGVC_DISABLE_PLUGINS": "frist"}, "Did you mean 'first'"),
        ({"FGVC_ONLY_PLUGINS": "nothing-like-it"}, "FGVC_ONLY_PLUGINS: .* Distributions with plugins: first"),
        ({"FGVC_DISABLE_PLUGINS": "fgvc_cli"}, "built-in components cannot be disabled"),
        ({"FGVC_DISABLE_PLUGINS": "all,frist"}, "no installed distribution named 'frist'"),
    ],
)
def test_setting_with_an_unknown_distribution_is_refused(install, environment, message):
    install("first", {"first_plugin.py": head("one")})
    with pytest.raises(UsageError, match=message):
        discover(from_environment(environment))
    assert "first_plugin" not in sys.modules
