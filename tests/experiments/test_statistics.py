"""Significance tests: closed forms, exact enumeration, and the rate of false positives."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from fgvc_cli.experiments.statistics import compact_letters, differences, holm, resamples_of
from fgvc_cli.scoring.scores import mcnemar


def rows(*texts: str) -> list[np.ndarray]:
    """Correctness of classifiers with one seed, by image: "110"."""
    return [np.array([[c == "1" for c in text]]) for text in texts]


class TestMcNemar:
    def test_by_hand(self):
        """Five discordant images, all in favor of the first: p = 2 / 2^5."""
        first, second = np.array([True] * 5 + [True] * 9), np.array([False] * 5 + [True] * 9)
        assert mcnemar(first, second) == pytest.approx(2 / 2**5)
        assert mcnemar(second, first) == mcnemar(first, second)

    def test_concordant_images_do_not_count(self):
        alone = np.array([1, 1, 1, 0], bool), np.array([0, 0, 0, 1], bool)
        same = np.ones(50, bool), np.ones(50, bool)
        longer = [np.concatenate(pair) for pair in zip(alone, same, strict=True)]
        assert mcnemar(*alone) == mcnemar(*longer) == pytest.approx(2 * 5 / 16)

    def test_the_same_classifier_does_not_differ(self):
        same = np.array([True, False, True])
        assert mcnemar(same, same) == 1.0


class TestHolm:
    def test_textbook_example(self):
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_p_is_at_most_1(self):
        assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


class TestLetters:
    @pytest.mark.parametrize("count", [1, 2, 3, 4])
    def test_rows_share_a_letter_if_and_only_if_they_do_not_differ(self, count):
        """All graphs with `count` nodes."""
        pairs = list(combinations(range(count), 2))
        for chosen in product([False, True], repeat=len(pairs)):
            clear = [pair for pair, differs in zip(pairs, chosen, strict=True) if differs]
            found = compact_letters(count, clear)
            assert all(found)
            for pair in pairs:
                assert bool(set(found[pair[0]]) & set(found[pair[1]])) == (pair not in clear)

    def test_no_letter_is_redundant(self):
        assert compact_letters(3, []) == ["a", "a", "a"]
        assert compact_letters(3, [(0, 2)]) == ["a", "ab", "b"]
        assert compact_letters(3, [(0, 1), (0, 2), (1, 2)]) == ["a", "b", "c"]


class TestDifferences:
    def test_one_seed_each_is_tested_by_mcnemar(self):
        (found,) = differences(rows("1111111100", "0000000000"))
        assert (found.first, found.second, found.method) == (0, 1, "mcnemar")
        assert found.points == pytest.approx(0.8) and found.p == pytest.approx(2 / 2**8) and found.significant

    def test_the_interval_matches_the_closed_form(self):
        """The mean of N paired differences has the standard error of their spread over the root of N."""
        rng = np.random.default_rng(0)
        first, second = rng.random(900) < 0.6, rng.random(900) < 0.5
        (found,) = differences([first[None], second[None]])
        paired = first.astype(float) - second
        error = 1.96 * paired.std() / 30
        assert (found.low, found.high) == pytest.approx((paired.mean() - error, paired.mean() + error), abs=0.006)

    def test_the_interval_grows_with_the_spread_over_seeds(self):
        """With many images only the spread over seeds is left, of variance s^2 / n on each side."""
        images = 2000
        accuracies = [0.50, 0.56, 0.62], [0.40, 0.46, 0.52]
        correct = [np.stack([np.arange(images) < round(a * images) for a in each]) for each in accuracies]
        (found,) = differences(correct)
        assert found.method == "bootstrap"
        deviation = (found.high - found.low) / 2 / 1.96
        assert deviation == pytest.approx(np.sqrt(2 * 0.06**2 / 3), rel=0.15)

    def test_pairs_are_compared_on_the_same_images(self):
        """Classifiers that are right on the same half of the images, except for one, hardly differ."""
        first = np.tile([True, False], 200)
        second = first.copy()
        second[0] = False
        (paired,) = differences([first[None], second[None]])
        assert paired.high - paired.low < 0.02 < 0.1

    def test_p_is_corrected_for_all_pairs(self):
        found = differences(rows("1" * 8 + "0" * 8, "0" * 16, "1" * 7 + "0" * 9))
        assert [(each.first, each.second) for each in found] == [(0, 1), (0, 2), (1, 2)]
        assert [each.p_corrected for each in found] == pytest.approx(holm([each.p for each in found]))
        assert found[0].p_corrected == pytest.approx(3 * found[0].p)

    def test_results_are_deterministic(self):
        correct = [np.random.default_rng(i).random((2, 50)) < 0.5 for i in range(2)]
        assert differences(correct) == differences(correct) != differences(correct, seed=1)

    @pytest.mark.parametrize(("images", "least"), [(1, 1.0), (3, 0.25), (20, 0.0)])
    def test_few_images_are_never_significant_whatever_the_number_of_seeds(self, images, least):
        """As with one seed each: three discordant images have a p of 2 / 2^3."""
        correct = [np.ones((3, images), bool), np.zeros((3, images), bool)]
        others = np.random.default_rng(0).random(200) < 0.5
        for padded in (correct, [np.hstack([each, np.tile(others, (3, 1))]) for each in correct]):
            (found,) = differences(padded)
            assert found.p >= least and found.significant == (least < 0.05)

    def test_a_large_difference_is_significant_among_many_rows(self):
        """With 5,000 resamples no p would be small enough for the pairs of 20 rows."""
        correct = [np.zeros((2, 100), bool) for _ in range(19)] + [np.ones((2, 100), bool)]
        assert sum(each.significant for each in differences(correct)) == 19
        assert resamples_of([2] * 20) > resamples_of([1] * 20) == resamples_of([3] * 11) == 5000

    def test_nothing_to_compare(self):
        assert differences([]) == differences(rows("", "")) == differences(rows("11")) == []

    def test_false_positives_are_rare(self):
        """At most about one in twenty comparisons of equal classifiers finds a difference."""
        rng = np.random.default_rng(1)
        found = 0
        for _ in range(60):
            accuracy = 0.5 + 0.03 * rng.standard_normal((2, 4, 1))
            correct = list(rng.random((2, 4, 300)) < accuracy)
            found += differences(correct, resamples=400)[0].significant
        assert found <= 9  # 3 are expected, but four seeds estimate their spread badly
