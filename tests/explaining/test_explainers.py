"""Explainers by name, with the options that are theirs."""

from __future__ import annotations

import pytest
import torch

from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.explaining.explainers import explainer_settings, make_explainer, make_explainers, with_baseline
from fgvc_cli.registry import Registry


def test_options_are_picked_out_of_settings() -> None:
    settings, others = explainer_settings(["explainer.softness=0.5", "dataset.size=64", "explainer.fill=blur"])
    assert settings == {"softness": 0.5, "fill": "blur"}
    assert others == ["dataset.size=64"]
    with pytest.raises(UsageError, match=r"kind.option=value"):
        explainer_settings(["softness"])


def test_an_explainer_gets_its_options(registry) -> None:
    made = make_explainer("knowing", {"softness": 0.5}, registry)
    assert made.options == {"softness": 0.5}
    maps = made.explain(None, torch.zeros(1, 3, 2, 2), torch.zeros(1, dtype=torch.int64))
    assert maps.eq(0.5).all()


def test_of_several_explainers_an_option_goes_to_those_that_have_it(registry) -> None:
    knowing, inverted = make_explainers(["knowing", "inverted", "knowing"], {"softness": 0.5}, registry)
    assert knowing.options == {"softness": 0.5} and inverted.options == {}


def test_what_does_not_exist_is_refused_with_what_does(registry) -> None:
    with pytest.raises(UsageError, match="knowing"):
        make_explainer("knowin", {}, registry)
    with pytest.raises(UsageError, match=r"Did you mean 'softness'.* knowing: softness, inverted: none"):
        make_explainers(["knowing", "inverted"], {"softnes": 1}, registry)
    with pytest.raises(UsageError, match="at most 1"):
        make_explainers(["knowing"], {"softness": 3}, registry)


def test_maps_of_another_size_are_the_authors_fault(registry) -> None:
    with pytest.raises(FgvcError, match=r"misshapen breaks its contract.*\(3, 2, 2\).*\(3, 8, 8\)"):
        make_explainer("misshapen", {}, registry).explain(None, torch.zeros(3, 3, 8, 8), torch.zeros(3))


def test_an_explainer_that_fails_is_named_and_memory_that_ran_out_is_not_its_fault(registry, monkeypatch) -> None:
    named = make_explainer("knowing", {}, registry)
    arguments = (None, torch.zeros(1, 3, 2, 2), torch.zeros(1, dtype=torch.int64))

    def raises(error):
        def explain(*_):
            raise error

        monkeypatch.setattr(named.explainer, "explain", explain)

    raises(KeyError("layer"))
    with pytest.raises(FgvcError, match=r"^explainer knowing failed: KeyError: 'layer'\. .*another --explainer may do"):
        named.explain(*arguments)
    raises(RuntimeError("CUDA out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        named.explain(*arguments)
    raises(FgvcError("no gradient leads there."))
    with pytest.raises(FgvcError, match=r"^no gradient"):
        named.explain(*arguments)


def test_the_random_map_is_added_once_whatever_it_was_asked_for_as(registry, named) -> None:
    added, baseline = with_baseline([named("knowing")], registry)
    assert [explainer.name for explainer in added] == ["knowing", "random"] and added[1] is baseline
    again, same = with_baseline(added, registry)
    assert again == added and same is baseline
    asked = [named("fgvc-cli:random"), named("knowing")]
    assert with_baseline(asked, registry) == (asked, asked[0])
    with pytest.raises(FgvcError, match="to compare with"):
        with_baseline([], Registry([]))
