"""The combinations of a request: which, in which order, with which settings."""

from __future__ import annotations

import pytest

from fgvc_cli import HeadSpec, OptimizerSpec
from fgvc_cli.benchmarking import combinations
from fgvc_cli.benchmarking.combinations import ELSEWHERE, BenchRequest, plan
from fgvc_cli.errors import UsageError
from fgvc_cli.registry import Registry, get_registry
from fgvc_cli.registry.records import Component, Origin, PluginRecord

BUILT_IN = 8 * 3 * 4
NET = ("timm/test_resnet",)


def planned(*settings: str, registry: Registry | None = None, **request):
    return plan(BenchRequest(settings=settings, device="cpu", **request), registry or get_registry())


def pairs(found):
    return [(c.head, c.optimizer) for c in found.combinations]


def with_plugin(*specs) -> Registry:
    """What is installed, and another plugin."""
    origin = Origin("stranger", "1.0")
    components = tuple(Component(spec, origin) for spec in specs)
    return Registry([*get_registry().plugins, PluginRecord("made", origin, "made", "loaded", components=components)])


def test_all_built_in_components_by_default():
    found = planned()
    assert len(found.combinations) == BUILT_IN
    assert [c.name for c in found.combinations if c.baseline] == [
        f"{backbone.name} + linear + sgd" for backbone in get_registry().components("backbone") if backbone.builtin
    ]
    assert all(c.config is not None and c.failed is None for c in found.combinations)


def test_components_of_plugins():
    registry = with_plugin(HeadSpec("foreign", "nowhere:Head"))
    assert len(planned(registry=registry, backbones=NET).combinations) == 3 * 4
    assert len(planned(registry=registry, backbones=NET, all_plugins=True).combinations) == 4 * 4
    named = planned(registry=registry, backbones=NET, heads=("foreign",), optimizers=("adamw",))
    assert pairs(named) == [("linear", "sgd"), ("foreign", "adamw")]


def test_ambiguous_names_are_qualified():
    registry = with_plugin(HeadSpec("pim", "nowhere:Head"))
    found = planned(registry=registry, backbones=NET, all_plugins=True, optimizers=("sgd",))
    assert pairs(found) == [("linear", "sgd"), ("cmal", "sgd"), ("fgvc-cli:pim", "sgd"), ("stranger:pim", "sgd")]
    with pytest.raises(UsageError, match="write fgvc-cli:pim or stranger:pim"):
        planned(registry=registry, heads=("pim",))


def test_the_baseline_comes_first_even_if_not_requested():
    found = planned(backbones=(*NET, "resnet50"), heads=("pim", "linear"), optimizers=("sam", "adamw"))
    ours = [("linear", "sgd"), ("linear", "sam"), ("linear", "adamw"), ("pim", "sam"), ("pim", "adamw")]
    assert pairs(found) == 2 * ours
    assert [c.baseline for c in found.combinations] == 2 * [True, False, False, False, False]
    assert [c.backbone for c in found.combinations] == 5 * [NET[0]] + 5 * ["resnet50"]


def test_the_baseline_is_the_recipes():
    found = planned(backbones=NET, heads=("linear",), optimizers=("sgd",), recipe="cmal-paper")
    assert pairs(found) == [("cmal", "sgd"), ("linear", "sgd")]


def test_repeated_names_are_measured_once():
    found = planned(backbones=(*NET, *NET), heads=("linear", "fgvc-cli:linear"), optimizers=("sgd", "sgd"))
    assert pairs(found) == [("linear", "sgd")]


def test_settings_are_those_of_training_from_scratch(monkeypatch):
    facts = []
    resolve = combinations.resolve
    monkeypatch.setattr(combinations, "resolve", lambda *of: facts.append(of[2]) or resolve(*of))
    (found,) = planned(backbones=NET, heads=("linear",), optimizers=("sgd",)).combinations
    train = found.config.train
    assert (train.image_size, train.batch_size) == (ELSEWHERE.image_size, ELSEWHERE.batch_size)
    assert (train.label_smoothing, train.clip_norm, train.weights) == (0.0, 5.0, "none")
    assert found.config.optimizer.options.lr == 0.03
    assert facts == [{"device": "cpu", "weights": "none"}]


def test_settings_override_options():
    options = {"image_size": 96, "batch_size": 4, "precision": "bf16", "channels_last": "on", "compile": True}
    request = {"backbones": NET, "heads": ("linear",), "optimizers": ("sgd",), "workers": 2, **options}
    train = planned("train.batch_size=6", **request).combinations[0].config.train
    assert (train.image_size, train.batch_size, train.precision) == (96, 6, "bf16")
    assert (train.channels_last, train.compile, train.workers) == ("on", True, 2)


def test_a_setting_applies_to_components_that_have_it():
    found = planned("head.fpn_size=64", "optimizer.rho=0.2", "optimizer.momentum=0.5", backbones=NET)
    for combination in found.combinations:
        config = combination.config
        if combination.head == "pim":
            assert config.head.options.fpn_size == 64
        if combination.optimizer == "sam":
            assert config.optimizer.options.rho == 0.2
            assert config.optimizer.base.options.momentum == 0.5
        if combination.optimizer == "sgd":
            assert config.optimizer.options.momentum == 0.5


def test_another_base_optimizer():
    found = planned("optimizer.base=adamw", backbones=NET, heads=("linear",), optimizers=("sam", "sgd"))
    assert [c.config.optimizer.title for c in found.combinations] == ["sgd", "sam over adamw"]


@pytest.mark.parametrize(
    ("settings", "request_", "says"),
    [
        (["head.fpnsize=3"], {}, r"head\.fpnsize: no such option\. Did you mean 'fpn_size'\? .*pim: fpn_size"),
        (["head.fpn_size=3"], {"heads": ("linear",)}, "Options of linear: dropout"),
        (["head.name=pim"], {}, "`head`"),
        (["head.fpn_size=3"], {"pipeline": True, "backbones": ()}, "Options of linear: dropout"),
        (["optimizer.base=sam"], {}, "evaluates its objective more than once"),
        (["explainer.map=1"], {}, "`explain`"),
        (["explainer.mpa=1"], {"explain": ("gradcam",)}, "Did you mean 'map'"),
        (["nothing.x=1"], {}, "no section 'nothing'"),
        ([], {"backbones": ("resnet51",)}, "Did you mean 'resnet50'"),
        ([], {"explain": ("gradcm",)}, "Did you mean 'gradcam'"),
        ([], {"recipe": "finetun"}, "Did you mean 'finetune'"),
        ([], {"batch_size": "max"}, "`batch_size=8`"),
    ],
)
def test_wrong_requests_are_refused(settings, request_, says):
    with pytest.raises(UsageError, match=says):
        planned(*settings, **{"backbones": NET, **request_})


def test_a_component_that_cannot_be_loaded_fails_its_own_combinations():
    registry = with_plugin(OptimizerSpec("lost", "nowhere:Optimizer", options="nowhere:Options"))
    found = planned(registry=registry, backbones=NET, heads=("linear",), all_plugins=True)
    lost = {c.optimizer: c for c in found.combinations}["lost"]
    assert lost.config is None and "options that could not be loaded" in lost.failed
    assert sum(c.config is not None for c in found.combinations) == 4


def test_the_pipeline_alone_uses_the_recipes_combination():
    found = planned(pipeline=True, image_size=48)
    assert not found.combinations
    assert (found.config.backbone.name, found.config.train.image_size) == ("swin_t", 48)
    assert len(planned(pipeline=True, heads=("pim",), backbones=NET).combinations) == 5
    assert planned(pipeline=True, epoch=True, heads=("linear",), optimizers=("sgd",)).combinations


def test_images_from_a_named_dataset_or_a_folder(tmp_path):
    assert planned(pipeline=True, dataset="flowers102").config.dataset.name == "flowers102"
    found = planned(pipeline=True, data=tmp_path).config
    assert (found.dataset.name, found.data) == ("folder", tmp_path)
