"""Copies of photographs: identical files, altered copies, and shots of the same scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fgvc_cli.auditing.findings import Finding
from fgvc_cli.auditing.neighbors import nearest
from fgvc_cli.auditing.overlap import overlap
from fgvc_cli.auditing.photographs import HASH_SIDE
from fgvc_cli.auditing.survey import Survey
from fgvc_cli.progress import progress

NEIGHBORS = 10
"""Number of nearest images by hash in each split among which copies are looked for."""

HASH_DISTANCE = 60
"""Copies by perceptual hash differ in at most this number of its 256 bits."""

CANDIDATES = 3
"""Number of nearest images by embedding in each split that are compared by `overlap`."""

SIMILARITY = 0.75
"""Images are compared if their embeddings have at least this cosine similarity."""

OVERLAP = 0.85
"""Images of a class are copies from this correlation of one with a part of the other on."""


@dataclass(frozen=True)
class Pair:
    """Two images that are copies, by position, the first in the order of the splits first.

    Attributes:
        first, second: of the images.
        score: 1 for identical files; otherwise the fraction of equal bits of the hashes, or the correlation of the
            overlapping parts.
        how: "identical files", "perceptual hash", "perceptual hash, mirrored" or "overlapping view".
    """

    first: int
    second: int
    score: float
    how: str


def find_pairs(survey: Survey) -> list[Pair]:
    """Return the pairs of copies; of several reasons for a pair, the most certain."""
    pairs: dict[tuple[int, int], Pair] = {}
    for pair in (*_identical(survey), *_by_hash(survey), *_by_overlap(survey)):
        pairs.setdefault((pair.first, pair.second), pair)
    return list(pairs.values())


def _identical(survey: Survey) -> Iterator[Pair]:
    position = {(ref.split, ref.key): index for index, ref in enumerate(survey.refs)}
    for group in survey.report.copies:
        indices = sorted(position[ref.split, ref.key] for ref in group)
        # in a group of many, each is paired with the first of each split
        firsts = {survey.refs[i].split: i for i in reversed(indices)}.values()
        for i in firsts:
            yield from (Pair(min(i, j), max(i, j), 1.0, "identical files") for j in indices if i != j)


def _by_hash(survey: Survey) -> Iterator[Pair]:
    measured = [(index, found) for index, found in enumerate(survey.measures) if found is not None]
    if not measured:
        return
    indices = np.array([index for index, _ in measured])
    # Bits as -1 and 1: the cosine similarity of two hashes is 1 - 2 * distance / bits.
    bits = np.array([found.hash for _, found in measured], dtype=np.float32) * 2 - 1
    mirrored = np.array([found.mirrored_hash for _, found in measured], dtype=np.float32) * 2 - 1
    limit = 1 - 2 * HASH_DISTANCE / HASH_SIDE**2
    for queries, how in ((bits, "perceptual hash"), (mirrored, "perceptual hash, mirrored")):
        for i, j, cosine in _close(survey, indices, queries / HASH_SIDE, bits / HASH_SIDE, limit, NEIGHBORS):
            yield Pair(i, j, (1 + cosine) / 2, how)


def _by_overlap(survey: Survey) -> Iterator[Pair]:
    """Compare the nearest images of a class by embedding: crops, and shots of the same scene.

    Those of different classes are left out: they often show different things in one place.
    """
    if survey.embeddings is None:
        return
    indices = np.flatnonzero(survey.embeddings.any(axis=1))
    values = survey.embeddings[indices]
    near = {(i, j) for i, j, _ in _close(survey, indices, values, values, SIMILARITY, CANDIDATES)}
    labels = survey.labels
    candidates = [(i, j) for i, j in sorted(near) if labels[i] == labels[j]]
    with progress("overlap", len(candidates), "pairs") as bar:
        for i, j in candidates:
            first, second = survey.measures[i], survey.measures[j]
            if first is not None and second is not None:
                score = overlap(first.thumbnail, second.thumbnail)
                if score >= OVERLAP:
                    yield Pair(i, j, min(score, 1.0), "overlapping view")
            bar.advance()


def _close(
    survey: Survey, indices: np.ndarray, queries: np.ndarray, keys: np.ndarray, limit: float, k: int
) -> Iterator[tuple[int, int, float]]:
    """Yield pairs of images (in order) with at least this similarity, among the k nearest of each in each split.

    `queries` and `keys` are unit vectors of the images at `indices`.
    """
    for split in range(len(survey.splits)):
        inside = np.flatnonzero(survey.split_of[indices] == split)
        if not len(inside):
            continue
        skip = np.full(len(queries), -1)
        skip[inside] = np.arange(len(inside))
        found = nearest(queries, keys[inside], k, skip)
        for row, column in zip(*np.nonzero(found.similarities >= limit), strict=True):
            i, j = int(indices[row]), int(indices[inside[found.indices[row, column]]])
            yield min(i, j), max(i, j), float(found.similarities[row, column])


def copy_findings(survey: Survey, pairs: Sequence[Pair]) -> list[Finding]:
    """Return a finding for each image that has a copy, and which of them to exclude.

    - "leak": a copy in a later split (train, val, test): the image of the earlier one is excluded.
    - "conflict": a copy with another label in the same split: both are excluded, since either may be wrong. With one in
      a later split, the image of the earlier one is excluded.
    - "duplicate": a copy with the same label in the same split: the later one is excluded.
    """
    partners: dict[int, list[tuple[int, Pair]]] = {}
    for pair in sorted(pairs, key=lambda pair: -pair.score):
        partners.setdefault(pair.first, []).append((pair.second, pair))
        partners.setdefault(pair.second, []).append((pair.first, pair))
    found: list[Finding] = []
    excluded: set[int] = set()

    def report(problem: str, image: int, others: Sequence[tuple[int, Pair]]) -> None:
        if others:
            other, pair = others[0]
            excluded.add(image)
            found.append(
                Finding(survey.refs[image], problem, pair.score, pair.how, survey.refs[other], True)  # type: ignore[arg-type]
            )

    for image, others in partners.items():
        later = [(j, pair) for j, pair in others if survey.split_of[j] > survey.split_of[image]]
        unlike = [
            (j, pair)
            for j, pair in others
            if survey.labels[j] != survey.labels[image] and survey.split_of[j] >= survey.split_of[image]
        ]
        report("leak", image, later)
        report("conflict", image, unlike)
    for image in sorted(partners):
        if image not in excluded:
            earlier = [
                (j, pair)
                for j, pair in partners[image]
                if j < image and survey.split_of[j] == survey.split_of[image] and j not in excluded
            ]
            report("duplicate", image, earlier)
    return found


def leaks(survey: Survey, pairs: Sequence[Pair]) -> dict[tuple[str, str], int]:
    """Return the number of images of each split that have a copy in an earlier one."""
    images: dict[tuple[int, int], set[int]] = {}
    for pair in pairs:
        a, b = (int(survey.split_of[i]) for i in (pair.first, pair.second))
        if a != b:
            images.setdefault((a, b), set()).add(pair.second)
    names = [split.name for split in survey.splits]
    return {(names[a], names[b]): len(found) for (a, b), found in sorted(images.items())}


def groups(number: int, pairs: Sequence[Pair]) -> np.ndarray:
    """Return a group for each of N images, int64 N: images that pairs connect are in one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    first, second = ([getattr(pair, name) for pair in pairs] for name in ("first", "second"))
    graph = coo_matrix((np.ones(len(pairs)), (first, second)), shape=(number, number))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)
