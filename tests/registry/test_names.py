"""How names resolve: clashes, references, families and unknown names."""

import pytest

from fgvc_cli import FgvcError, UsageError
from fgvc_cli.options import NoOptions, describe
from fgvc_cli.registry.lookup import Registry, check_kind, discover
from fgvc_cli.settings import Settings

HEAD = """
from fgvc_cli import HeadSpec, hookimpl
@hookimpl
def fgvc_heads():
    return [HeadSpec({name!r}, {target!r}, "a head", {options!r})]
"""

FAMILY = """
from fgvc_cli import BackboneSpec, Family, hookimpl
@hookimpl
def fgvc_families():
    return [Family("backbone", "zoo/", "zoo_resolver:resolve", "all the animals")]
"""

RESOLVER = """
from fgvc_cli import BackboneSpec, HeadSpec, UsageError
def resolve(name):
    animal = name.removeprefix("zoo/")
    if animal == "none":
        return None
    if animal == "raises":
        raise KeyError("cage")
    if animal == "hides":
        raise UsageError("the animal hides: come back later")
    if animal == "exits":
        raise SystemExit(1)
    if animal == "head":
        return HeadSpec(name, "m:A")
    if animal == "other":
        return BackboneSpec("zoo/lion", "m:A")
    if animal == "newer":
        return BackboneSpec(name, "m:A", api=9)
    return BackboneSpec(name, "zoo_resolver:resolve", strides=(4, 8))
"""


def head(name: str, target: str = "no_module:Head", options: str = "") -> str:
    return HEAD.format(name=name, target=target, options=options)


def refusal(registry: Registry, kind, name: str) -> str:
    with pytest.raises(UsageError) as caught:
        registry.find(kind, name)
    return str(caught.value)


def test_ambiguous_name_is_refused_with_both_references(install):
    install("one", {"one_plugin.py": head("same")})
    install("two", {"two_plugin.py": head("same")})
    registry = discover(Settings())
    assert "write one:same or two:same" in refusal(registry, "head", "same")
    assert registry.find("head", "two:same").distribution == "two"
    assert registry.find("head", "one:same").reference == "one:same"
    assert [c.reference for c in registry.clashes("head")["same"]] == ["one:same", "two:same"]


def test_external_plugin_does_not_replace_a_built_in(install):
    install("impostor", {"impostor_plugin.py": head("pim")})
    registry = discover(Settings())
    assert "write fgvc-cli:pim or impostor:pim" in refusal(registry, "head", "pim")
    assert registry.find("head", "fgvc-cli:pim").builtin
    assert registry.find("head", "FGVC_CLI:pim").builtin
    assert not registry.find("head", "impostor:pim").builtin


def test_same_name_for_two_kinds_is_unambiguous(install):
    install("one", {"one_plugin.py": head("swin_t")})
    registry = discover(Settings())
    assert registry.find("head", "swin_t").distribution == "one"
    assert registry.find("backbone", "swin_t").builtin


def test_unknown_name_lists_suggestions_and_known_names(install):
    install("one", {"one_plugin.py": head("bilinear")})
    message = refusal(discover(Settings()), "head", "Bilinaer")
    assert message.startswith("unknown head 'Bilinaer'.")
    assert "Did you mean 'bilinear'" in message
    assert "Known: bilinear, cmal, knn, linear, pim" in message


def test_unknown_name_reports_failed_plugins_with_similar_names_first(install):
    for letter in "abcd":
        install(f"{letter}-plugin", {f"{letter}_failing.py": "1 / 0"})
    install("z-cosface", {"z_failing.py": "import torch_of_nowhere"}, version="1.2")
    message = refusal(discover(Settings()), "head", "cosface")
    assert "z-cosface==1.2 failed to load: ModuleNotFoundError: No module named 'torch_of_nowhere'" in message
    assert message.index("z-cosface") < message.index("a-plugin")
    assert "d-plugin" not in message


def test_unknown_name_reports_disabled_plugins(install):
    install("one", {"one_plugin.py": head("bilinear")})
    settings = Settings(disable_plugins=("one",), origins={"disable_plugins": "--disable-plugins"})
    registry = discover(settings)
    assert "one==1.0 is disabled (--disable-plugins)." in refusal(registry, "head", "bilinear")
    assert "one==1.0 is disabled (--disable-plugins)." in refusal(registry, "head", "one:bilinear")


def test_unknown_references(install):
    install("one", {"one_plugin.py": head("bilinear")})
    install("broken", {"broken_plugin.py": "1 / 0"})
    registry = discover(Settings())
    assert "no distribution 'oen' with a plugin is installed. Did you mean 'one'" in refusal(registry, "head", "oen:b")
    assert "unknown head 'bilinera' of one. Did you mean 'bilinear'" in refusal(registry, "head", "one:bilinera")
    assert "broken==1.0 failed to load: ZeroDivisionError" in refusal(registry, "head", "broken:x")


def test_target_that_cannot_be_imported_names_the_distribution(install):
    modules = {"one_plugin.py": head("a", "one_target:Haed"), "one_target.py": "class Head: pass"}
    install("one", modules, version="2.0")
    install("two", {"two_plugin.py": head("b", "two_target_is_missing:Head")})
    install("three", {"three_plugin.py": head("c", "three_exits:X"), "three_exits.py": "raise SystemExit(2)"})
    registry = discover(Settings())
    with pytest.raises(FgvcError, match=r"head 'a' of one==2\.0 could not be loaded: .*no 'Haed'.*mean 'Head'"):
        registry.find("head", "a").load()
    with pytest.raises(FgvcError, match=r"head 'b' of two==1\.0 .*No module named 'two_target_is_missing'"):
        registry.find("head", "b").load()
    with pytest.raises(FgvcError, match=r"head 'c' of three==1\.0 .*it called sys\.exit\(2\)"):
        registry.find("head", "c").load()


def test_target_and_options_are_loaded(install):
    options = (
        "from dataclasses import dataclass\nfrom fgvc_cli import option\n@dataclass(frozen=True)\nclass Options:\n"
        "    width: int = option(8, 'width')\n"
    )
    modules = {
        "one_plugin.py": head("a", "one_target:Outer.Inner", "one_options:Options"),
        "one_target.py": "class Outer:\n    class Inner: pass\n",
        "one_options.py": options,
    }
    install("one", modules)
    component = discover(Settings()).find("head", "a")
    assert component.load().__qualname__ == "Outer.Inner"
    assert [info.name for info in describe(component.options_type())] == ["width"]


def test_missing_and_invalid_options(install):
    install("one", {"one_plugin.py": head("a")})
    install("two", {"two_plugin.py": head("b", options="two_missing:Options")})
    install("three", {"three_plugin.py": head("c", options="builtins:dict")})
    registry = discover(Settings())
    assert registry.find("head", "a").options_type() is NoOptions
    with pytest.raises(FgvcError, match=r"head 'b' of two==1\.0 has options that could not be loaded"):
        registry.find("head", "b").options_type()
    with pytest.raises(FgvcError, match="builtins:dict is not a dataclass"):
        registry.find("head", "c").options_type()


def test_a_recipe_loads_as_the_text_of_its_file(install):
    module = (
        "from fgvc_cli import RecipeSpec, hookimpl\n@hookimpl\ndef fgvc_recipes():\n"
        "    return [RecipeSpec('quick', 'recipe_pkg:sets/quick.toml'), RecipeSpec('gone', 'recipe_pkg:gone.toml')]\n"
    )
    install(
        "recipes",
        {"recipe_plugin.py": module, "recipe_pkg/__init__.py": "", "recipe_pkg/sets/quick.toml": "epochs = 1\n"},
    )
    registry = discover(Settings())
    assert registry.find("recipe", "quick").load() == "epochs = 1\n"
    with pytest.raises(FgvcError, match=r"package recipe_pkg has no file gone\.toml"):
        registry.find("recipe", "gone").load()


def test_a_family_resolves_its_members(install):
    install("zoo", {"zoo_plugin.py": FAMILY, "zoo_resolver.py": RESOLVER}, version="3.0")
    registry = discover(Settings())
    component = registry.find("backbone", "zoo/lion")
    assert (component.name, component.reference, component.origin.version) == ("zoo/lion", "zoo:zoo/lion", "3.0")
    assert registry.find("backbone", "zoo:zoo/lion") == component
    assert registry.find("backbone", "zoo/hub:some/Lion").name == "zoo/hub:some/Lion"
    assert "zoo/<name>" in [family.pattern for family in registry.families("backbone")]
    assert "the family 'zoo/<name>' has no such member" in refusal(registry, "backbone", "zoo/none")
    assert "unknown head 'zoo/lion'" in refusal(registry, "head", "zoo/lion")


@pytest.mark.parametrize(
    ("member", "cause"),
    [
        ("raises", "KeyError: 'cage'"),
        ("exits", r"it called sys\.exit\(1\)"),
        ("head", "not a BackboneSpec"),
        ("other", "it returned 'zoo/lion' for 'zoo/other'"),
        ("newer", "needs plugin API version 9"),
    ],
)
def test_failing_resolver_is_reported(install, member, cause):
    install("zoo", {"zoo_plugin.py": FAMILY, "zoo_resolver.py": RESOLVER}, version="3.0")
    with pytest.raises(FgvcError, match=rf"the family 'zoo/<name>' of zoo==3\.0 failed: .*{cause}"):
        discover(Settings()).find("backbone", f"zoo/{member}")


def test_fgvc_error_of_a_resolver_propagates(install):
    install("zoo", {"zoo_plugin.py": FAMILY, "zoo_resolver.py": RESOLVER})
    assert refusal(discover(Settings()), "backbone", "zoo/hides") == "the animal hides: come back later"


def test_two_families_of_one_prefix_clash(install):
    install("zoo", {"zoo_plugin.py": FAMILY, "zoo_resolver.py": RESOLVER})
    install("park", {"park_plugin.py": FAMILY})
    registry = discover(Settings())
    assert "write park:zoo/lion or zoo:zoo/lion" in refusal(registry, "backbone", "zoo/lion")
    assert registry.find("backbone", "park:zoo/lion").distribution == "park"


def test_kinds_in_singular_and_plural():
    assert check_kind("Heads") == "head"
    with pytest.raises(UsageError, match=r"unknown kind of component 'haed'\. Did you mean 'head'"):
        check_kind("haed")


def test_a_member_of_a_family_is_suggested_without_its_prefix() -> None:
    from fgvc_cli.registry import get_registry

    with pytest.raises(UsageError, match="Did you mean 'timm/resnet18'"):
        get_registry().find("backbone", "resnet18")
