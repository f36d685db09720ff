"""Metrics of a taxonomy compared with definitions written out, and names that a classifier is sure of."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fgvc_cli.contracts import Taxonomy
from fgvc_cli.scoring.taxonomy import SureNames, TaxonomyMetrics, Tree, roll_up, taxonomy_metrics

CLASSES = tuple("abcdefgh")
FULL = Taxonomy(
    ("species", "genus", "family"),
    dict(zip(CLASSES, [("G1", "F1"), ("G1", "F1"), ("G2", "F1"), ("G3", "F2"), ("G3", "F2"), ("G4", "F2"), ("G5", "F3"),
                       ("G5", "F3")], strict=True)),
)  # fmt: skip
RAGGED = Taxonomy(
    ("species", "genus", "family"),
    dict(zip(CLASSES, [("G1", "F1"), ("G1", "F1"), ("", "F1"), ("G3", ""), ("G3", ""), ("", ""), ("", "F3"),
                       ("G5", "F3")], strict=True)),
)  # fmt: skip
ROOTED = Taxonomy(
    ("species", "genus", "order"), {name: (genus or name, "All") for name, (genus, _) in RAGGED.ancestors.items()}
)
TAXONOMIES = {"full": FULL, "ragged": RAGGED, "rooted": ROOTED}


class Reference:
    """The tree as nodes with children, walked for every question."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.levels = taxonomy.levels
        self.paths = {
            name: [(0, name), *((i, group) for i, group in enumerate(of, 1) if group), "root"]
            for name, of in taxonomy.ancestors.items()
        }
        tops = {path[-2] for path in self.paths.values()}
        if len(tops) == 1 and all(len(path) > 2 for path in self.paths.values()):  # the only group on top is the root
            self.paths = {name: path[:-1] for name, path in self.paths.items()}

    def leaves(self, node) -> list[str]:
        return [name for name, path in self.paths.items() if node in path]

    def height(self, node) -> int:
        return max(self.paths[name].index(node) for name in self.leaves(node))

    def distance(self, true: str, predicted: str | None) -> int:
        if predicted is None:
            return self.height(self.paths[true][-1])
        return self.height(next(node for node in self.paths[true] if node in self.paths[predicted]))

    def at(self, name: str, level: int):
        return [node for node in self.paths[name] if node != "root" and node[0] <= level][-1]

    def answer(self, row: np.ndarray, sure: float):
        """The lowest level with a node that has enough, and its most probable node; None for the root above all."""
        for level in range(len(self.levels)):
            sums: dict = {}
            for name, p in zip(CLASSES, row.tolist(), strict=True):
                sums[self.at(name, level)] = sums.get(self.at(name, level), 0.0) + p
            node = max(sums, key=sums.__getitem__)
            if sums[node] >= sure - 1e-6:
                return level, node, sums[node]
        return None

    def depth(self, node) -> int:
        path = next(path for path in self.paths.values() if node in path)
        return len(path) - 1 - path.index(node)


def scores_of(made_scores, seed: int = 0, images: int = 60):
    rng = np.random.default_rng(seed)
    return made_scores(rng.dirichlet(np.full(8, 0.15), images), rng.integers(0, 8, images).tolist())


@pytest.mark.parametrize("name", TAXONOMIES)
@pytest.mark.parametrize("sure", [0.3, 0.8, 1.0])
def test_metrics_follow_their_definitions(made_scores, name: str, sure: float) -> None:
    taxonomy, scores = TAXONOMIES[name], scores_of(made_scores)
    reference, found = Reference(taxonomy), taxonomy_metrics(scores, Tree(taxonomy, CLASSES), sure)
    true = [CLASSES[i] for i in scores.labels]
    predicted = [CLASSES[i] for i in scores.predicted]
    distances = [reference.distance(*pair) for pair in zip(true, predicted, strict=True)]
    wrong = [d for d, t, p in zip(distances, true, predicted, strict=True) if t != p]
    assert found.severity == pytest.approx(np.mean(wrong))
    assert found.distance == pytest.approx(np.mean(distances))
    assert found.height == max(reference.height(path[-1]) for path in reference.paths.values())
    chance = [np.mean([reference.distance(t, other) for other in CLASSES if other != t]) for t in true]
    assert found.severity_of_chance == pytest.approx(np.mean(chance))
    answers = [reference.answer(row, sure) for row in scores.probabilities]
    for level, row in enumerate(found.levels):
        groups = {each: reference.at(each, level) for each in CLASSES}
        assert row.groups == len(set(groups.values()))
        assert row.top1 == pytest.approx(
            np.mean([groups[t] == groups[p] for t, p in zip(true, predicted, strict=True)])
        )
        if level == 0:
            assert row.top1_summed == row.top1
        here = [(t, a) for t, a in zip(true, answers, strict=True) if a is not None and a[0] == level]
        assert row.share == pytest.approx(len(here) / len(true))
        if here:
            assert row.precision == pytest.approx(np.mean([a[1] in reference.paths[t] for t, a in here]))
        else:
            assert row.precision is None
    assert found.unsure == pytest.approx(np.mean([a is None for a in answers]))
    assert found.depth == pytest.approx(np.mean([0 if a is None else reference.depth(a[1]) for a in answers]))
    gains = [
        0.0
        if a is None or a[1] not in reference.paths[t]
        else math.log2(8 / len(reference.leaves(a[1]))) / math.log2(8)
        for t, a in zip(true, answers, strict=True)
    ]
    assert found.information == pytest.approx(np.mean(gains))
    assert TaxonomyMetrics.from_json(found.as_json()) == found


def test_summed_top1_takes_the_most_probable_group(made_scores) -> None:
    scores = made_scores([[0.3, 0.3, 0, 0.4, 0, 0, 0, 0]], [1])
    genus = taxonomy_metrics(scores, Tree(FULL, CLASSES)).levels[1]
    assert (genus.top1, genus.top1_summed) == (0.0, 1.0)


def test_scores_that_are_not_finite_are_as_wrong_as_possible(made_scores) -> None:
    scores = made_scores([[float("nan")] * 8, [1, 0, 0, 0, 0, 0, 0, 0]], [0, 0])
    found = taxonomy_metrics(scores, Tree(FULL, CLASSES))
    assert (found.severity, found.distance, found.unsure) == (3.0, 1.5, 0.5)
    assert [level.top1 for level in found.levels] == [0.5] * 3


def test_every_mistake_missing_leaves_no_severity(made_scores) -> None:
    found = taxonomy_metrics(made_scores([[1, 0, 0, 0, 0, 0, 0, 0]], [0]), Tree(FULL, CLASSES))
    assert found.severity is None and found.distance == 0 and found.information == 1


def test_names_are_those_of_the_lowest_sure_level() -> None:
    names = SureNames(Tree(FULL, CLASSES), 0.9)
    rows = [
        [0.95, 0.05, 0, 0, 0, 0, 0, 0],
        [0.5, 0.45, 0.05, 0, 0, 0, 0, 0],
        [0.5, 0.2, 0.25, 0.05, 0, 0, 0, 0],
        [1 / 8] * 8,
    ]
    found = names(np.array(rows, np.float32))
    assert [(name.level, name.name) for name in found] == [
        ("species", "a"),
        ("genus", "G1"),
        ("family", "F1"),
        (None, None),
    ]
    assert [name.probability for name in found] == pytest.approx([0.95, 0.95, 0.95, 1.0])
    assert {name.text for name in found} - {"unsure"} <= set(names.texts)


def test_rolling_up_in_portions_changes_nothing(made_scores, monkeypatch) -> None:
    scores, tree = scores_of(made_scores), Tree(RAGGED, CLASSES)
    whole = roll_up(tree, scores.probabilities, 0.8)
    monkeypatch.setattr("fgvc_cli.scoring.taxonomy.ROWS", 7)
    parts = roll_up(tree, scores.probabilities, 0.8)
    assert all(
        np.array_equal(getattr(whole, name), getattr(parts, name)) for name in ("levels", "groups", "probabilities")
    )
