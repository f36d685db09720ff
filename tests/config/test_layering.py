"""Settings of an optimizer that wraps another one, and of components with clashing names."""

import sys
import tomllib
from dataclasses import dataclass
from types import ModuleType

import pytest

from fgvc_cli import OptimizerSpec, option
from fgvc_cli.config.run_config import read_config, resolve, user_settings
from fgvc_cli.errors import UsageError
from fgvc_cli.registry import Component, Registry, get_registry
from fgvc_cli.registry.records import Origin, PluginRecord

FACTS = {"device": "cuda", "weights": "none"}


def typed(*texts, optimizer="sam", recipe="scratch", registry=None, **options):
    """Resolve an optimizer and settings as `fgvc train` does."""
    settings, _ = user_settings(None, {"optimizer": {"name": optimizer, **options}}, texts)
    return resolve(settings, recipe, FACTS, registry or get_registry())


def test_the_base_is_sgd_with_the_settings_of_the_recipe():
    over, alone = typed().optimizer, typed(optimizer="sgd").optimizer
    assert over.title == "sam over sgd" and over.base.options == alone.options
    assert alone.title == "sgd" and alone.base is None


def test_another_base_has_its_own_settings_of_the_recipe():
    over, alone = typed("optimizer.base=adamw").optimizer, typed(optimizer="adamw").optimizer
    assert over.title == "sam over adamw" and over.base.options == alone.options
    assert over.base.options.lr != typed().optimizer.base.options.lr


def test_later_settings_win_with_and_without_the_prefix():
    assert typed("optimizer.base.lr=0.5", "optimizer.lr=0.1").optimizer.base.options.lr == 0.1
    assert typed("optimizer.lr=0.1", "optimizer.base.lr=0.5").optimizer.base.options.lr == 0.5
    assert typed(lr=0.25, head_lr=0.75).optimizer.base.options.lr == 0.25


def test_in_one_table_the_prefixed_setting_wins():
    settings = [{"optimizer": {"name": "sam", "base": {"lr": 0.5}, "lr": 0.1}}]
    assert resolve(settings, "scratch", FACTS, get_registry()).optimizer.base.options.lr == 0.5


def test_the_base_of_a_replaced_optimizer_is_dropped():
    settings = [{"optimizer": {"name": "lookahead", "base": "adamw"}}, {"optimizer": {"name": "sam"}}]
    assert resolve(settings, "scratch", FACTS, get_registry()).optimizer.title == "sam over sgd"


def test_settings_of_a_base_that_was_replaced_are_dropped(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text('[optimizer]\nname = "sam"\nrho = 0.2\n[optimizer.base]\nname = "sgd"\nmomentum = 0.5\n')
    settings, _ = user_settings(path, {}, ["optimizer.base=adamw"])
    optimizer = resolve(settings, "scratch", FACTS, get_registry()).optimizer
    assert optimizer.title == "sam over adamw" and optimizer.options.rho == 0.2
    settings, _ = user_settings(path, {"optimizer": {"name": "sgd"}}, [])
    assert resolve(settings, "scratch", FACTS, get_registry()).optimizer.options.momentum == 0.9


def test_what_a_run_writes_resolves_to_the_same(tmp_path):
    config = typed("optimizer.base=adamw", "optimizer.base.lr=0.002", "optimizer.adaptive=true")
    path = tmp_path / "config.toml"
    path.write_text(config.as_toml())
    settings, recipe = read_config(path)
    assert resolve([settings], recipe, {}, get_registry()) == config
    document = tomllib.loads(path.read_text())["optimizer"]
    assert (document["name"], document["base"]["name"]) == ("fgvc-cli:sam", "fgvc-cli:adamw")
    assert document["base"]["lr"] == 0.002


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer.base=sam", r"base=sam: .*more than once per step; choose one of adamw, muon, sgd"),
        ("optimizer.base=adamv", "no optimizer 'adamv'.*adamw|adamv.*Did you mean 'adamw'"),
        ("optimizer.base.momentun=0.5", "optimizer.base.momentun: no such option. Did you mean 'momentum'"),
        ("optimizer.rhoo=0.5", "optimizer.rhoo: no such option. Did you mean 'rho'.*base sgd: lr"),
        ("optimizer.rho=-1", "at least 0"),
        ("optimizer.base.lr=fast", "expected float"),
    ],
)
def test_wrong_settings_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        typed(text)


def test_a_base_of_two_evaluations_is_refused_by_its_spec():
    spec = OptimizerSpec("extragradient", "nowhere:Extragradient", passes=2)
    other = Origin("other", "1.0")
    record = PluginRecord("other", other, "other", "loaded", components=(Component(spec, other),))
    registry = Registry([*get_registry().plugins, record])
    with pytest.raises(UsageError, match="base=extragradient: .*more than once per step"):
        typed("optimizer.base=extragradient", registry=registry)


@dataclass(frozen=True)
class EagerOptions:
    lr: float = option(0.5, "learning rate")
    head_lr: float | None = option(None, "that of the head")
    zeal: float = option(1.0, "an option of no built-in optimizer")


@pytest.fixture
def acme(monkeypatch):
    """A registry with another plugin's `sgd`, `adamw` and `eager`, whose options are their own."""
    module = ModuleType("acme_options")
    module.EagerOptions = EagerOptions
    monkeypatch.setitem(sys.modules, "acme_options", module)
    origin = Origin("acme", "1.0")
    specs = [OptimizerSpec(n, "acme:Eager", options="acme_options:EagerOptions") for n in ("sgd", "adamw", "eager")]
    record = PluginRecord("acme", origin, "acme", "loaded", components=tuple(Component(s, origin) for s in specs))
    return Registry([*get_registry().plugins, record])


def chosen(registry, *layers, recipe="scratch"):
    return resolve([{"optimizer": layer} for layer in layers], recipe, FACTS, registry).optimizer


def test_a_recipe_keeps_its_own_components_when_names_clash(acme):
    assert chosen(acme).component.reference == "fgvc-cli:sgd"
    assert chosen(acme, {"name": "acme:sgd"}).options == EagerOptions()
    assert chosen(acme, {"name": "acme:adamw"}).options == EagerOptions()  # not what it sets where adamw is chosen
    ours = chosen(acme, {"name": "fgvc-cli:adamw"}).options
    assert ours == typed(optimizer="adamw").optimizer.options
    with pytest.raises(UsageError, match=r"write acme:sgd or fgvc-cli:sgd"):
        chosen(acme, {"name": "sgd"})


def test_settings_apply_to_the_plugin_that_they_name(acme):
    replaced = chosen(acme, {"name": "acme:sgd", "zeal": 3.0, "lr": 9.0}, {"name": "fgvc-cli:sgd"})
    assert replaced.options == typed(optimizer="sgd").optimizer.options
    kept = chosen(acme, {"name": "Acme:sgd", "zeal": 3.0}, {"name": "acme:sgd"})
    assert kept.options.zeal == 3.0


def test_a_base_is_of_the_own_distribution_unless_named(acme):
    assert chosen(acme, {"name": "sam"}).base.component.reference == "fgvc-cli:sgd"
    other = chosen(acme, {"name": "sam"}, {"base": "acme:sgd"}, {"base": {"zeal": 2.0}})
    assert other.base.component.reference == "acme:sgd" and other.base.options == EagerOptions(zeal=2.0)
    beside = chosen(acme, {"name": "sam", "base": "eager"}, {"zeal": 4.0})
    assert beside.title == "sam over eager" and beside.base.options == EagerOptions(zeal=4.0)
