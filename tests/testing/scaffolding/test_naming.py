"""Names of new plugins: what is derived from them, and which are refused."""

from __future__ import annotations

import pytest

from fgvc_cli import UsageError
from fgvc_cli.registry import get_registry
from fgvc_cli.registry.loading import NAME
from fgvc_cli.testing.scaffolding import plugin_names, refuse_taken, scaffold_kind
from fgvc_cli.testing.scaffolding.names import MAX_LENGTH, SCAFFOLDED


@pytest.mark.parametrize("given", ["gem-pool", "fgvc-gem-pool"])
def test_all_names_are_derived_from_one(given):
    names = plugin_names(given, "head")
    found = names.component, names.distribution, names.package, names.stem
    assert found == ("gem-pool", "fgvc-gem-pool", "fgvc_gem_pool", "GemPool")


@pytest.mark.parametrize(
    ("given", "stem", "package"),
    [("gem_head", "Gem", "fgvc_gem_head"), ("head", "Head", "fgvc_head"), ("a2-b3", "A2B3", "fgvc_a2_b3")],
)
def test_class_names_do_not_repeat_the_kind(given, stem, package):
    names = plugin_names(given, "head")
    assert (names.stem, names.package) == (stem, package)
    assert names.package.isidentifier() and names.stem.isidentifier()
    assert NAME.fullmatch(names.component)


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("Gem Pool", "'gem-pool'"), ("GemPool", "'gem-pool'"), ("gem--pool", "'gem-pool'"), ("2gem", "'gem'"),
        ("fgvc-", ""), ("", ""), ("../gem", "'gem'"), ("µ", ""), ("gem\n", "'gem'"),
    ],
)  # fmt: skip
def test_invalid_name_is_refused_with_a_suggestion(given, near):
    with pytest.raises(UsageError, match="not a valid plugin name: a name consists of") as raised:
        plugin_names(given, "head")
    said = str(raised.value)
    assert said.endswith(f"Did you mean {near}?" if near else "starts with a letter.")


def test_length_is_limited():
    assert plugin_names("a" * MAX_LENGTH, "head").component == "a" * MAX_LENGTH
    with pytest.raises(UsageError, match=f"more than {MAX_LENGTH} characters"):
        plugin_names("a" * (MAX_LENGTH + 1), "head")


@pytest.mark.parametrize("kind", SCAFFOLDED)
def test_name_of_a_built_in_component_is_refused(kind):
    registry = get_registry()
    builtin = [c.name for c in registry.components(kind) if c.builtin]
    assert builtin
    for name in builtin:
        with pytest.raises(
            UsageError, match=f"is a built-in {kind}.* such as my-|not a valid plugin name|omit 'fgvc_'"
        ):
            refuse_taken(plugin_names(name, kind), registry)
    refuse_taken(plugin_names("pim", "dataset"), registry)  # the name of a head


def test_class_names_differ_from_base_classes():
    from fgvc_cli import contracts

    bases = [name for name in contracts.__all__ for kind in SCAFFOLDED if name.lower().endswith(kind)]
    assert {"TorchOptimizer", "ComposedOptimizer", "Head"} < set(bases)
    for base in bases:
        for kind in SCAFFOLDED:
            if name := base.lower().removesuffix(kind):
                assert f"{plugin_names(name, kind).stem}{kind.capitalize()}" not in bases
    assert plugin_names("torch", "optimizer").stem == "MyTorch" and plugin_names("torch", "head").stem == "Torch"


def test_prefix_of_packages_is_refused():
    with pytest.raises(UsageError, match=r"omit 'fgvc_', .* Did you mean 'gem'?"):
        plugin_names("fgvc_gem", "head")


@pytest.mark.parametrize("name", ["cli", "heads", "backbones", "fgvc-recipes"])
def test_package_of_fgvc_is_refused(name):
    with pytest.raises(UsageError, match="which fgvc uses"):
        refuse_taken(plugin_names(name, "explainer"), get_registry())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "backbone, head, optimizer, dataset, explainer, exporter or launcher"),
        ("haed", "Did you mean 'head'"),
        ("recipes", "there is no scaffold for kind 'recipes'"),
    ],
)
def test_kind_without_scaffold_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        scaffold_kind(given)
    assert scaffold_kind("Heads") == "head"
