"""Cover what is marked, predict again, draw the map again."""

from __future__ import annotations

import itertools

import pytest
import torch

from fgvc_cli.errors import FgvcError
from fgvc_cli.explaining.masking import Cover, looks

DARK, LIT = 0, 1


def test_covering_the_patch_that_decides_flips_the_prediction(ready, named, lamp) -> None:
    first, second = looks(named("knowing"), ready(), lamp(16, 0), None, Cover(area=0.25), steps=1)
    assert first.targets.tolist() == [LIT, DARK] == first.probabilities.argmax(dim=1).tolist()
    assert not first.covered.any()
    assert torch.equal(first.pixels, lamp(16, 0))
    assert second.covered[0, :4, :4].all() and second.covered[0].sum() == 16
    assert not second.covered[1].any()  # nothing is marked in the dark image
    assert second.probabilities[0].tolist() == pytest.approx([1, 0, 0], abs=1e-5)
    assert second.targets.tolist() == [DARK, DARK]  # what is predicted in that look
    assert second.pixels[0, 0, 0, 0] == 64  # the mean of 16 lit pixels in 64: 63.75
    assert not second.maps[0].any()  # and the map is drawn anew


def test_covering_anything_else_changes_nothing(ready, named, lamp) -> None:
    first, second = looks(named("inverted"), ready(), lamp(16), None, Cover(area=0.5), steps=1)
    assert second.covered[0].sum() == 32 and not second.covered[0, :4, :4].any()
    assert torch.equal(first.probabilities, second.probabilities)


def test_each_step_covers_more_on_top_of_what_is_covered(ready, named, lamp) -> None:
    seen = list(looks(named("knowing"), ready(), lamp(16), torch.tensor([LIT]), Cover(area=4 / 64), steps=5))
    assert [int(look.covered.sum()) for look in seen] == [0, 4, 8, 12, 16, 16]
    assert [float(look.probabilities[0, LIT]) for look in seen] == pytest.approx([1, 0.75, 0.5, 0.25, 0, 0], abs=1e-5)
    assert all(not (a.covered & ~b.covered).any() for a, b in itertools.pairwise(seen))
    assert {int(look.targets) for look in seen} == {LIT}  # a class that is named stays
    assert seen[4].pixels[0, 0, :4, :4].eq(64).all()  # filled with the mean of the image as it was, in every step


def test_the_classifier_is_left_as_it_was(ready, named, lamp) -> None:
    chosen = ready()
    list(looks(named("knowing"), chosen, lamp(16), None, Cover(), steps=2))
    assert chosen.classifier.backbone.calls == [1, 1, 1]
    assert all(parameter.grad is None for parameter in chosen.classifier.parameters())


@pytest.mark.parametrize("name", ["not-a-number", "too-high"])
def test_maps_with_other_values_are_refused(ready, named, lamp, name) -> None:
    with pytest.raises(FgvcError, match=f"{name} breaks its contract: its maps have values outside"):
        list(looks(named(name), ready(), lamp(16, 0), None, Cover(), steps=1))
