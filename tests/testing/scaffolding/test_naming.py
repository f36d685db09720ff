"""What a new plugin may be called, and what is said of names that it may not have."""

from __future__ import annotations

import pytest

from fgvc_cli import UsageError
from fgvc_cli.registry import get_registry
from fgvc_cli.registry.loading import NAME
from fgvc_cli.testing.scaffolding import plugin_names, refuse_taken, scaffold_kind
from fgvc_cli.testing.scaffolding.names import LONGEST, SCAFFOLDED


@pytest.mark.parametrize("given", ["gem-pool", "fgvc-gem-pool"])
def test_one_name_gives_all_others(given):
    names = plugin_names(given, "head")
    assert (names.component, names.distribution, names.package, names.stem) == (
        "gem-pool", "fgvc-gem-pool", "fgvc_gem_pool", "GemPool",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "stem", "package"),
    [("gem_head", "Gem", "fgvc_gem_head"), ("head", "Head", "fgvc_head"), ("a2-b3", "A2B3", "fgvc_a2_b3")],
)
def test_classes_are_not_called_by_their_kind_twice(given, stem, package):
    names = plugin_names(given, "head")
    assert (names.stem, names.package) == (stem, package)
    assert names.package.isidentifier() and names.stem.isidentifier()
    assert NAME.fullmatch(names.component)


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("Gem Pool", "'gem-pool'"), ("GemPool", "'gem-pool'"), ("gem/pool", "'gem-pool'"), ("gem--pool", "'gem-pool'"),
        ("2gem", "'gem'"), ("gem-", "'gem'"), ("fgvc-", ""), ("fgvc", ""), ("", ""), ("../gem", "'gem'"), ("µ", ""),
        ("gem\n", "'gem'"),
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused_with_the_nearest_that_is(given, near):
    with pytest.raises(UsageError, match="cannot be the name of a plugin: a name is of lower-case letters") as raised:
        plugin_names(given, "head")
    said = str(raised.value)
    assert said.endswith(f"Did you mean {near}?" if near else "begins with a letter.")


def test_a_name_has_an_end():
    assert plugin_names("a" * LONGEST, "head").component == "a" * LONGEST
    with pytest.raises(UsageError, match=f"more than {LONGEST} letters"):
        plugin_names("a" * (LONGEST + 1), "head")


@pytest.mark.parametrize("kind", SCAFFOLDED)
def test_the_name_of_a_built_in_component_of_that_kind_is_refused(kind):
    registry = get_registry()
    builtin = [c.name for c in registry.components(kind) if c.builtin]
    assert builtin
    for name in builtin:
        with pytest.raises(
            UsageError, match=f"is a built-in {kind}.* such as my-|cannot be the name|leave out 'fgvc_'"
        ):
            refuse_taken(plugin_names(name, kind), registry)


def test_no_class_is_called_like_one_of_the_contracts():
    from fgvc_cli import contracts

    bases = [name for name in contracts.__all__ for kind in SCAFFOLDED if name.lower().endswith(kind)]
    assert {"TorchOptimizer", "ComposedOptimizer", "Head"} < set(bases)
    for base in bases:
        for kind in SCAFFOLDED:
            if name := base.lower().removesuffix(kind):
                assert f"{plugin_names(name, kind).stem}{kind.capitalize()}" not in bases
    assert plugin_names("torch", "optimizer").stem == "MyTorch" and plugin_names("torch", "head").stem == "Torch"


def test_what_packages_begin_with_is_not_said_twice():
    with pytest.raises(UsageError, match=r"leave out 'fgvc_', .* Did you mean 'gem'?"):
        plugin_names("fgvc_gem", "head")


def test_the_name_of_another_kind_is_free():
    refuse_taken(plugin_names("pim", "dataset"), get_registry())


@pytest.mark.parametrize("name", ["cli", "heads", "backbones", "fgvc-recipes"])
def test_a_package_of_fgvcs_own_is_refused(name):
    with pytest.raises(UsageError, match="which is fgvc's own"):
        refuse_taken(plugin_names(name, "explainer"), get_registry())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "--kind: say what the plugin adds: backbone, head, optimizer, dataset or explainer."),
        ("haed", "Did you mean 'head'?"),
        ("recipe", "there is no scaffold for it, docs/plugins.md has an example"),
        ("recipes", "there is no scaffold for it"),
    ],
)
def test_a_kind_without_a_scaffold_is_refused(given, said):
    with pytest.raises(UsageError) as raised:
        scaffold_kind(given)
    assert said in str(raised.value)


def test_a_kind_may_be_in_the_plural():
    assert scaffold_kind("Heads") == "head"
