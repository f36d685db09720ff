"""Explainers by name, with their options."""

from __future__ import annotations

import pytest
import torch

from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.explaining.explainers import explainer_settings, make_explainer, make_explainers, with_baseline
from fgvc_cli.registry import Registry


def test_explainer_options_are_separated_from_other_settings() -> None:
    settings, others = explainer_settings(["explainer.softness=0.5", "dataset.size=64", "explainer.fill=blur"])
    assert settings == {"softness": 0.5, "fill": "blur"}
    assert others == ["dataset.size=64"]


def test_an_option_goes_to_the_explainers_that_have_it(registry) -> None:
    perfect, inverted = make_explainers(["perfect", "inverted", "perfect"], {"softness": 0.5}, registry)
    assert perfect.options == {"softness": 0.5} and inverted.options == {}
    maps = perfect.explain(None, torch.zeros(1, 3, 2, 2), torch.zeros(1, dtype=torch.int64))
    assert maps.eq(0.5).all()


def test_unknown_names_and_values_are_refused_with_the_valid_ones(registry) -> None:
    with pytest.raises(UsageError, match="perfect"):
        make_explainer("perfec", {}, registry)
    with pytest.raises(UsageError, match=r"Did you mean 'softness'.* perfect: softness, inverted: none"):
        make_explainers(["perfect", "inverted"], {"softnes": 1}, registry)
    with pytest.raises(UsageError, match="at most 1"):
        make_explainers(["perfect"], {"softness": 3}, registry)


def test_maps_of_another_size_break_the_contract(registry) -> None:
    with pytest.raises(FgvcError, match=r"'misshapen' of .* breaks its contract.*\(3, 8, 8\).*\(3, 2, 2\)"):
        make_explainer("misshapen", {}, registry).explain(None, torch.zeros(3, 3, 8, 8), torch.zeros(3))


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (KeyError("layer"), FgvcError, r"^explainer 'perfect' of .* failed in explain.*KeyError: 'layer'"),
        (RuntimeError("CUDA out of memory"), RuntimeError, "out of memory"),
        (FgvcError("no gradient"), FgvcError, r"^no gradient"),
    ],
)
def test_a_failing_explainer_is_named_unless_memory_ran_out(registry, monkeypatch, error, raised, message) -> None:
    def explain(*_):
        raise error

    monkeypatch.setattr(registry.find("explainer", "perfect").load(), "explain", explain)
    named = make_explainer("perfect", {}, registry)
    with pytest.raises(raised, match=message):
        named.explain(None, torch.zeros(1, 3, 2, 2), torch.zeros(1, dtype=torch.int64))


def test_the_random_map_is_added_once(registry, named) -> None:
    added, baseline = with_baseline([named("perfect")], registry)
    assert [explainer.name for explainer in added] == ["perfect", "random"] and added[1] is baseline
    again, same = with_baseline(added, registry)
    assert again == added and same is baseline
    asked = [named("fgvc-cli:random"), named("perfect")]
    assert with_baseline(asked, registry) == (asked, asked[0])
    with pytest.raises(FgvcError, match="baseline"):
        with_baseline([], Registry([]))
