"""What is asked for: bounds, places, and what they cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgvc_cli.errors import UsageError
from fgvc_cli.evaluation.evaluate import EvaluationRequest
from fgvc_cli.evaluation.sharpness import SharpnessRequest, sharpness_request

EVALUATION = EvaluationRequest([Path("model.safetensors")])


def test_options_that_were_not_given_keep_their_defaults() -> None:
    given = {"rho": None, "adaptive_rho": None, "limit": 7, "points": None, "seed": None}
    assert sharpness_request(EVALUATION, given) == SharpnessRequest(EVALUATION, limit=7)


def test_places_lie_evenly_on_both_sides_of_the_weights() -> None:
    asked = SharpnessRequest(EVALUATION, points=5)
    assert asked.coordinates == [-1, -0.5, 0, 0.5, 1]
    assert asked.signed_multiples == (-4, -3, -2, -1, -0.5, 0.5, 1, 2, 3, 4)


def test_the_passes_are_those_of_weights_gradient_lines_and_plane() -> None:
    assert SharpnessRequest(EVALUATION, points=5).passes == 1 + 3 + 10 + 5 * 10 + 24
    assert SharpnessRequest(EVALUATION, points=5, adaptive_rho=1.0).passes == 1 + 3 + 10 + 5 * 10 + 10 + 24


@pytest.mark.parametrize(
    "wrong", [{"rho": -1.0}, {"rho": float("inf")}, {"adaptive_rho": 0.0}, {"points": 1}, {"points": 6}, {"limit": 0}]
)
def test_what_is_out_of_bounds_is_refused(wrong: dict) -> None:
    with pytest.raises(UsageError, match="--"):
        SharpnessRequest(EVALUATION, **wrong)
