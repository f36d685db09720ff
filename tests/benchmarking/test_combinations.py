"""From a request to combinations: which, in which order, with which settings."""

from __future__ import annotations

import pytest

from fgvc_cli import HeadSpec, OptimizerSpec
from fgvc_cli.benchmarking import combinations
from fgvc_cli.benchmarking.combinations import ELSEWHERE, LARGEST, BenchRequest, plan
from fgvc_cli.errors import UsageError
from fgvc_cli.registry import Registry, get_registry
from fgvc_cli.registry.records import Component, Origin, PluginRecord

BUILT_IN = 5 * 3 * 3
NET = ("timm/test_resnet",)


def planned(*settings: str, registry: Registry | None = None, **request):
    return plan(BenchRequest(settings=settings, device="cpu", **request), registry or get_registry())


def pairs(found):
    return [(c.head, c.optimizer) for c in found.combinations]


def stranger(*specs) -> Registry:
    """What is installed, and a plugin of somebody else's."""
    origin = Origin("stranger", "1.0")
    components = tuple(Component(spec, origin) for spec in specs)
    return Registry([*get_registry().plugins, PluginRecord("made", origin, "made", "loaded", components=components)])


def test_without_names_it_is_all_that_is_built_in():
    found = planned()
    assert len(found.combinations) == BUILT_IN
    assert [c.name for c in found.combinations if c.baseline] == [
        f"{backbone} + linear + sgd" for backbone in ("efficientnet_b5", "resnet50", "resnext50", "swin_t", "vit_b16")
    ]
    assert all(c.config is not None and c.failed is None for c in found.combinations)


def test_other_plugins_come_with_all_and_by_name():
    registry = stranger(HeadSpec("foreign", "nowhere:Head"))
    assert len(planned(registry=registry).combinations) == BUILT_IN
    assert len(planned(registry=registry, everything=True).combinations) == 5 * 4 * 3
    named = planned(registry=registry, backbones=NET, heads=("foreign",), optimizers=("adamw",))
    assert pairs(named) == [("linear", "sgd"), ("foreign", "adamw")]


def test_a_name_that_two_plugins_claim_is_written_so_that_it_is_clear():
    registry = stranger(HeadSpec("pim", "nowhere:Head"))
    found = planned(registry=registry, backbones=NET, everything=True, optimizers=("sgd",))
    assert pairs(found) == [("linear", "sgd"), ("cmal", "sgd"), ("fgvc-cli:pim", "sgd"), ("stranger:pim", "sgd")]
    with pytest.raises(UsageError, match="write fgvc-cli:pim or stranger:pim"):
        planned(registry=registry, heads=("pim",))


def test_the_baseline_comes_first_and_is_measured_though_nobody_asked():
    found = planned(backbones=(*NET, "resnet50"), heads=("pim", "linear"), optimizers=("sam", "adamw"))
    ours = [("linear", "sgd"), ("linear", "sam"), ("linear", "adamw"), ("pim", "sam"), ("pim", "adamw")]
    assert pairs(found) == 2 * ours
    assert [c.baseline for c in found.combinations] == 2 * [True, False, False, False, False]
    assert [c.backbone for c in found.combinations] == 5 * [NET[0]] + 5 * ["resnet50"]


def test_the_baseline_is_the_recipes():
    found = planned(backbones=NET, heads=("linear",), optimizers=("sgd",), recipe="cmal-paper")
    assert pairs(found) == [("cmal", "sgd"), ("linear", "sgd")]


def test_what_is_named_twice_is_measured_once():
    found = planned(backbones=(*NET, *NET), heads=("linear", "fgvc-cli:linear"), optimizers=("sgd", "sgd"))
    assert pairs(found) == [("linear", "sgd")]


def test_settings_are_those_of_a_training_from_published_weights(monkeypatch):
    facts = []
    resolve = combinations.resolve
    monkeypatch.setattr(combinations, "resolve", lambda *of: facts.append(of[2]) or resolve(*of))
    (found,) = planned(backbones=NET, heads=("linear",), optimizers=("sgd",)).combinations
    train = found.config.train
    assert (train.image_size, train.batch_size) == (ELSEWHERE.image_size, ELSEWHERE.batch_size)
    assert (train.label_smoothing, train.clip_norm, train.weights) == (0.1, 1.0, "none")
    assert found.config.optimizer.options.head_lr == 0.03
    assert facts == [{"device": "cpu", "weights": "pretrained"}]


def test_options_reach_the_configuration_and_settings_are_stronger():
    options = {"image_size": 96, "batch_size": 4, "precision": "bf16", "channels_last": "on", "compile": True}
    request = {"backbones": NET, "heads": ("linear",), "optimizers": ("sgd",), "workers": 2, **options}
    train = planned("train.batch_size=6", **request).combinations[0].config.train
    assert (train.image_size, train.batch_size, train.precision) == (96, 6, "bf16")
    assert (train.channels_last, train.compile, train.workers) == ("on", True, 2)


def test_a_setting_is_for_those_that_have_such_an_option():
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


def test_sam_can_stand_on_another_base():
    found = planned("optimizer.base=adamw", backbones=NET, heads=("linear",), optimizers=("sam", "sgd"))
    assert [c.config.optimizer.title for c in found.combinations] == ["sgd", "sam over adamw"]


@pytest.mark.parametrize(
    ("settings", "request_", "says"),
    [
        (["head.fpnsize=3"], {}, r"head\.fpnsize: no such option\. Did you mean 'fpn_size'\? .*pim: fpn_size"),
        (["head.fpn_size=3"], {"heads": ("linear",)}, "Options of linear: dropout"),
        (["head.name=pim"], {}, "--head"),
        (["head.fpn_size=3"], {"pipeline": True}, "Options of linear: dropout"),
        (["optimizer.base=sam"], {}, "evaluates its objective more than once"),
        (["explainer.map=1"], {}, "--explain"),
        (["explainer.mpa=1"], {"explainers": ("gradcam",)}, "Did you mean 'map'"),
        (["train.image_size=wide"], {}, "expected int"),
        (["nothing.x=1"], {}, "no section 'nothing'"),
        ([], {"backbones": ("resnet51",)}, "Did you mean 'resnet50'"),
        ([], {"optimizers": ("adam",)}, "Did you mean 'adamw'"),
        ([], {"explainers": ("gradcm",)}, "Did you mean 'gradcam'"),
        ([], {"recipe": "finetun"}, "Did you mean 'finetune'"),
        ([], {"batch_size": LARGEST}, "name a number, such as --batch-size 8"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(settings, request_, says):
    with pytest.raises(UsageError, match=says):
        planned(*settings, **request_)


def test_a_component_that_cannot_be_loaded_fails_its_combinations_alone():
    registry = stranger(OptimizerSpec("lost", "nowhere:Optimizer", options="nowhere:Options"))
    found = planned(registry=registry, backbones=NET, heads=("linear",), everything=True)
    lost = {c.optimizer: c for c in found.combinations}["lost"]
    assert lost.config is None and "options that could not be loaded" in lost.failed
    assert sum(c.config is not None for c in found.combinations) == 3


def test_the_pipeline_alone_is_measured_with_the_recipes_own_combination():
    found = planned(pipeline=True, image_size=48)
    assert found.combinations == []
    assert (found.alone.backbone.name, found.alone.train.image_size) == ("swin_t", 48)
    assert len(planned(pipeline=True, heads=("pim",), backbones=NET).combinations) == 4
    assert planned(pipeline=True, epoch=True).combinations


def test_images_are_a_named_data_set_or_a_folder(tmp_path):
    assert planned(pipeline=True, dataset="flowers102").alone.dataset.name == "flowers102"
    found = planned(pipeline=True, data=tmp_path).alone
    assert (found.dataset.name, found.data) == ("folder", tmp_path)
