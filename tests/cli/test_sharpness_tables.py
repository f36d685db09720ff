"""How losses and rises are written."""

from __future__ import annotations

import pytest

from fgvc_cli.cli.evaluation_tables import rise_text


@pytest.mark.parametrize(
    ("rise", "text"),
    [(0.14651, "0.147"), (-0.0123, "-0.0123"), (2e-6, "2e-06"), (3e-7, "< 1e-06"), (-3e-7, "< 1e-06"), (None, "")],
)
def test_what_may_be_rounding_is_not_written_as_a_figure(rise: float | None, text: str) -> None:
    assert rise_text(rise) == text
