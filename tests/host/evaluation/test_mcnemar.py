"""McNemar's exact test against the binomial distribution counted out."""

from __future__ import annotations

from math import comb

import pytest

from fgvc_cli.evaluation.mcnemar import exact_mcnemar


def test_the_p_value_is_both_tails_of_the_binomial_distribution() -> None:
    assert exact_mcnemar(1, 9) == pytest.approx(2 * (comb(10, 0) + comb(10, 1)) / 2**10)
    assert exact_mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert exact_mcnemar(12, 4) == exact_mcnemar(4, 12) == pytest.approx(2 * sum(comb(16, k) for k in range(5)) / 2**16)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_equal_counts_say_nothing(count: int) -> None:
    assert exact_mcnemar(count, count) == pytest.approx(1)


def test_it_holds_for_many_images() -> None:
    assert 0.04 < exact_mcnemar(5000, 5200) < 0.06
    assert exact_mcnemar(5000, 6000) < 1e-20
