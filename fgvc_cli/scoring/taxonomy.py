"""Predictions and a taxonomy: accuracy at each level, the severity of mistakes, and naming the group one is sure of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgvc_cli.contracts import Dataset, Taxonomy
from fgvc_cli.contracts.taxonomy import Node
from fgvc_cli.data.taxonomy import read_taxonomy, taxonomy_of
from fgvc_cli.errors import UsageError
from fgvc_cli.runs import model_file as model_files
from fgvc_cli.scoring.scores import ROWS, Scores

SURE = 0.9
"""Default of the probability that a group must have to be named."""
TOLERANCE = 1e-6
"""Sums of float32 probabilities may fall short of 1 by this."""


class Tree:
    """A taxonomy as arrays over the K classes of a classifier, in its order.

    A class without a group at a level is a group of its own there, or stays in the one below.

    Attributes:
        levels: L names, from the classes upward.
        groups: for each level, int64 K: the index of each class's group.
        names: for each level, the names of its groups.
        heights: for each level, int64 array: edges on the longest path from the group down to a class.
        depths: for each level, int64 array: edges from the root down to the group.
        height: of the root, which contains all classes. It is a group of the highest level if that has only one.
    """

    def __init__(self, taxonomy: Taxonomy, class_names: Sequence[str]) -> None:
        self.levels = taxonomy.levels
        paths = [taxonomy.path(name) for name in class_names]
        self.groups: list[np.ndarray] = []
        self.names: list[list[str]] = []
        self.heights: list[np.ndarray] = []
        heights: dict[Node, int] = {}
        for path in paths:
            for height, node in enumerate(path):
                heights[node] = max(height, heights.get(node, 0))
        for level in range(len(self.levels)):
            nodes = [next(node for node in reversed(path) if node[0] <= level) for path in paths]
            index = {node: i for i, node in enumerate(dict.fromkeys(nodes))}
            self.groups.append(np.array([index[node] for node in nodes], np.int64))
            self.names.append([name for _, name in index])
            self.heights.append(np.array([heights[node] for node in index], np.int64))
        rooted = len(self.names[-1]) == 1
        self.height = int(self.heights[-1][0]) if rooted else int(self.heights[-1].max()) + 1
        depth = {node: len(path) - i - rooted for path in paths for i, node in enumerate(path)}
        self.depths = []
        for level in range(len(self.levels)):
            nodes = [next(node for node in reversed(path) if node[0] <= level) for path in paths]
            self.depths.append(np.array([depth[node] for node in dict.fromkeys(nodes)], np.int64))

    @property
    def classes(self) -> int:
        """K."""
        return len(self.groups[0])

    def distance(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the height of the lowest common ancestor of classes, int64 N: 0 for the same class.

        Args:
            first, second: int64 N class indices; -1 has only the root in common with any.
        """
        found = np.full(len(first), self.height)
        for groups, heights in zip(reversed(self.groups), reversed(self.heights), strict=True):
            group = groups[first]
            same = (group == groups[second]) & (first >= 0) & (second >= 0)
            found[same] = heights[group[same]]
        return found

    def chance(self) -> np.ndarray:
        """Return for each class the mean distance of the other classes, float64 K."""
        total = np.zeros(self.classes)
        inside = np.ones(self.classes, np.int64)
        for groups, heights in zip(self.groups[1:], self.heights[1:], strict=True):
            members = np.bincount(groups)[groups]
            total += heights[groups] * (members - inside)
            inside = members
        return (total + self.height * (self.classes - inside)) / max(1, self.classes - 1)

    def sums(self, probabilities: np.ndarray, level: int) -> np.ndarray:
        """Return the probability of each group of a level, float64 N,G, from those of the classes, N,K."""
        if not level:
            return probabilities.astype(np.float64)
        groups = self.groups[level]
        order = np.argsort(groups, kind="stable")
        starts = np.searchsorted(groups[order], np.arange(len(self.names[level])))
        return np.add.reduceat(probabilities[:, order], starts, axis=1, dtype=np.float64)


@dataclass(frozen=True)
class TaxonomySettings:
    """Which taxonomy to use, and when to name a group.

    Attributes:
        file: a taxonomy to use instead of the model's own; see `read_taxonomy`.
        sure: probability from which a class or group is named; None: `SURE`, if there is a taxonomy.

    Raises:
        UsageError: `sure` is not in (0, 1].
    """

    file: Path | None = None
    sure: float | None = None

    def __post_init__(self) -> None:
        if self.sure is not None and not 0 < self.sure <= 1:
            raise UsageError(f"`sure={self.sure:g}` is a probability above 0, up to 1")

    @property
    def threshold(self) -> float:
        """`sure` or its default."""
        return SURE if self.sure is None else self.sure


def find_tree(
    model_file: Path, class_names: Sequence[str], settings: TaxonomySettings, dataset: Dataset | None = None
) -> Tree | None:
    """Return the tree of a classifier's classes: of the given file, the model file, or the dataset, if it has them all.

    Raises:
        UsageError: `sure` is given, and there is no taxonomy.
        FgvcError: the file is no taxonomy of these classes.
    """
    if settings.file is not None:
        taxonomy = read_taxonomy(settings.file, class_names)
    else:
        taxonomy = model_files.read_taxonomy(model_file)
        if taxonomy is None and dataset is not None and set(dataset.class_names) == set(class_names):
            taxonomy = taxonomy_of(dataset)
    if taxonomy is None and settings.sure is not None:
        raise UsageError(
            f"`sure={settings.sure:g}` needs groups of classes, and {settings.file or model_file} has none; name a "
            "file of them with `taxonomy`"
        )
    return None if taxonomy is None else Tree(taxonomy, class_names)


@dataclass(frozen=True)
class SureName:
    """The lowest class or group that a classifier is sure of.

    Attributes:
        level: name of its level; None if no group reaches the required probability.
        name: of the class or the group; None likewise.
        probability: of the class, or the sum over the classes of the group.
    """

    level: str | None
    name: str | None
    probability: float

    @property
    def text(self) -> str:
        """The name with its level: "Gull (genus)"; "unsure" without one."""
        return "unsure" if self.name is None else f"{self.name} ({self.level})"

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "probability": round(self.probability, 6)}


@dataclass(frozen=True)
class RolledUp:
    """The answers for N images.

    Attributes:
        levels: int64 N, index of the level; L, one more than the highest, if no group is probable enough.
        groups: int64 N, index of the group on that level.
        probabilities: float64 N, of the group.
    """

    levels: np.ndarray
    groups: np.ndarray
    probabilities: np.ndarray


def roll_up(tree: Tree, probabilities: np.ndarray, sure: float) -> RolledUp:
    """Choose the lowest class or group whose probability, the sum of its classes, is at least `sure`.

    If several on a level reach it, which needs `sure` of 0.5 or less, it is the most probable one. Images whose
    probabilities are not finite get none.

    Args:
        tree: of K classes.
        probabilities: float N,K.
        sure: in (0, 1].

    Reference: Deng, Krause, Berg, Fei-Fei 2012, Hedging Your Bets: Optimizing Accuracy-Specificity Trade-offs in Large
    Scale Visual Recognition, CVPR, among whose rules it is the threshold on the posterior of all nodes.
    """
    count = len(probabilities)
    found = RolledUp(np.full(count, len(tree.levels)), np.zeros(count, np.int64), np.ones(count))
    open_ = np.flatnonzero(np.isfinite(probabilities).all(axis=1))
    for level in range(len(tree.levels)):
        for rows in (open_[i : i + ROWS] for i in range(0, len(open_), ROWS)):
            sums = tree.sums(probabilities[rows], level)
            best = sums.argmax(axis=1)
            highest = sums[np.arange(len(rows)), best]
            reached = highest >= sure - TOLERANCE
            chosen = rows[reached]
            found.levels[chosen], found.groups[chosen] = level, best[reached]
            found.probabilities[chosen] = np.minimum(highest[reached], 1.0)
        open_ = open_[found.levels[open_] == len(tree.levels)]
    return found


@dataclass(frozen=True)
class SureNames:
    """Names the lowest class or group that a classifier is sure of; see `roll_up`."""

    tree: Tree
    sure: float = SURE

    @property
    def texts(self) -> list[str]:
        """All names with their levels, as in `SureName.text`."""
        pairs = zip(self.tree.levels, self.tree.names, strict=True)
        return [SureName(level, name, 1.0).text for level, names in pairs for name in names]

    def __call__(self, probabilities: np.ndarray) -> list[SureName]:
        """Return the names for probabilities N,K."""
        found = roll_up(self.tree, probabilities, self.sure)
        levels, names = self.tree.levels, self.tree.names
        return [
            SureName(levels[level], names[level][group], probability)
            if level < len(levels)
            else SureName(None, None, probability)
            for level, group, probability in zip(
                found.levels.tolist(), found.groups.tolist(), found.probabilities.tolist(), strict=True
            )
        ]


def find_names(model_file: Path, class_names: Sequence[str], settings: TaxonomySettings) -> SureNames | None:
    """Return what names the class or group that a classifier is sure of; None if `sure` is not given.

    Raises:
        UsageError: there is no taxonomy, or one is given without `sure`.
        FgvcError: the file is no taxonomy of these classes.
    """
    if settings.sure is None:
        if settings.file is not None:
            raise UsageError(f"`taxonomy={settings.file}` names no group without `sure`; add `sure={SURE}`")
        return None
    tree = find_tree(model_file, class_names, settings)
    assert tree is not None  # refused before
    return SureNames(tree, settings.sure)


@dataclass(frozen=True)
class LevelMetrics:
    """Metrics of a level, the classes' own included.

    Attributes:
        level: its name.
        groups: number of groups, those of classes without one included.
        top1: fraction of the images whose predicted class is in the true group.
        top1_summed: the same for the group with the highest probability, the sum over its classes.
        share: fraction of the images for which the classifier is sure of a group of this level and of none below.
        precision: fraction of these images that are in that group; None if there are none.
    """

    level: str
    groups: int
    top1: float
    top1_summed: float
    share: float
    precision: float | None


@dataclass(frozen=True)
class TaxonomyMetrics:
    """How predictions fare in the tree of classes.

    Attributes:
        levels: from the classes upward.
        severity: mean height of the lowest common ancestor of true and predicted class over the mistakes; None without
            a mistake.
        distance: the same mean over all images, 0 for right ones.
        severity_of_chance: the same mean for mistakes that are any other class equally often.
        height: of the tree: the severity of a mistake across groups of the highest level.
        sure: probability from which a group is named.
        unsure: fraction of the images for which no group reaches it.
        precision: fraction of the named groups that contain the true class; None if none is named.
        depth: mean depth of the answers in the tree: 0 for none, the full depth for a class.
        max_depth: mean depth of the true classes.
        information: information of the right answers, as a fraction of that of the true classes: log2 of the number of
            all classes over that in the group; wrong answers have none.

    Reference: Bertinetto et al. 2020, Making Better Mistakes, arXiv 1912.09393 (hierarchical distance of a mistake, and
    average hierarchical distance of top-1); Deng et al. 2012, Hedging Your Bets, CVPR (information gain).
    """

    levels: Sequence[LevelMetrics]
    severity: float | None
    distance: float
    severity_of_chance: float
    height: int
    sure: float
    unsure: float
    precision: float | None
    depth: float
    max_depth: float
    information: float

    def as_json(self) -> dict[str, Any]:
        """Return the form that `summary.json` has."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TaxonomyMetrics:
        """Undo `as_json`.

        Raises:
            KeyError, TypeError: something is missing or has another type.
        """
        return cls(**{**document, "levels": [LevelMetrics(**level) for level in document["levels"]]})


def taxonomy_metrics(
    scores: Scores, tree: Tree, sure: float = SURE, calibrated: np.ndarray | None = None
) -> TaxonomyMetrics:
    """Compute the metrics of scores with one image or more; scores that are not finite are wrong at every level.

    `calibrated` are probabilities N,K to sum over groups in place of those of the scores.
    """
    probabilities = scores.probabilities if calibrated is None else calibrated
    labels, predicted = scores.labels, scores.predicted
    distance, wrong = tree.distance(labels, predicted), labels != predicted
    answers = roll_up(tree, probabilities, sure)
    levels, right, depths = [], np.zeros(len(scores), bool), np.zeros(len(scores))
    information = np.zeros(len(scores))
    for level, name in enumerate(tree.levels):
        groups = tree.groups[level]
        here = answers.levels == level
        right[here] = groups[labels[here]] == answers.groups[here]
        depths[here] = tree.depths[level][answers.groups[here]]
        information[here] = np.log2(tree.classes / np.bincount(groups)[answers.groups[here]])
        same = (groups[labels] == groups[predicted]) & (predicted >= 0)
        summed = (groups[labels] == _summed(probabilities, tree, level)) & (predicted >= 0)
        precision = float(right[here].mean()) if here.any() else None
        levels.append(LevelMetrics(name, len(tree.names[level]), _mean(same), _mean(summed), _mean(here), precision))
    named = answers.levels < len(tree.levels)
    return TaxonomyMetrics(
        levels=levels,
        severity=_mean(distance[wrong]) if wrong.any() else None,
        distance=_mean(distance),
        severity_of_chance=_mean(tree.chance()[labels]),
        height=tree.height,
        sure=sure,
        unsure=_mean(~named),
        precision=_mean(right[named]) if named.any() else None,
        depth=_mean(depths),
        max_depth=_mean(tree.depths[0][labels]),
        information=_mean(information * right) / float(np.log2(max(2, tree.classes))),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean())


def _summed(probabilities: np.ndarray, tree: Tree, level: int) -> np.ndarray:
    """Return the most probable group of a level for each image."""
    found = np.empty(len(probabilities), np.int64)
    for start in range(0, len(probabilities), ROWS):
        rows = slice(start, start + ROWS)
        found[rows] = tree.sums(np.nan_to_num(probabilities[rows]), level).argmax(axis=1)
    return found
