"""How runs are computed that nobody said anything about."""

from __future__ import annotations

import pytest

from fgvc_cli.evaluation.sharpness import _computing
from fgvc_cli.scoring.model import Computing


@pytest.mark.parametrize(("asked", "taken"), [("auto", "fp32"), ("bf16", "bf16"), ("fp32", "fp32")])
def test_small_differences_are_measured_in_single_precision_unless_another_is_asked_for(asked, taken) -> None:
    """On a CPU `auto` is fp32 anyway; on a GPU it would be bf16."""
    assert _computing(Computing(precision=asked, batch_size=7)) == Computing(precision=taken, batch_size=7)
