"""Draw the images to hold out of a split, alone or in groups."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from fgvc_cli.contracts import Split
from fgvc_cli.errors import FgvcError

NEVER = -1
"""Part of groups that are never held out, because a class has no images outside of them."""


def held_out_by_name(split: Split, fraction: float, seed: int) -> np.ndarray:
    """Return which images to hold out, by a hash of each image's group, or without groups of its key: bool N.

    An image is held out if its hash, uniform in [0, 1), is below the fraction; no other group matters, with two
    exceptions: the group of a class with the largest hash is kept, and if that leaves nothing to hold out, the one with
    the smallest hash is held out.

    Raises:
        FgvcError: no class has a second group.
    """
    names, labels = split.groups or split.keys, np.asarray(split.labels)
    drawn = np.array([_uniform(name, seed) for name in names])
    last = np.zeros(len(drawn), dtype=bool)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        last[of_class[np.argmax(drawn[of_class])]] = True
    last = np.isin(drawn, drawn[last]) if split.groups else last
    if last.all():
        raise _none_to_hold_out(split)
    held_out: np.ndarray = (drawn < fraction) & ~last
    if not held_out.any():
        held_out = drawn == np.where(last, 1.0, drawn).min()
    return held_out


def held_out_by_position(split: Split, fraction: float, seed: int) -> np.ndarray:
    """Return which images to hold out, stratified by class as closely as whole images or groups allow: bool N.

    Raises:
        FgvcError: no class has a second image or group.
    """
    labels = np.asarray(split.labels)
    if split.groups is not None:
        held_out = parts_of(split, [1 - fraction, fraction], seed) == 1
        if not held_out.any():
            return held_out_by_name(split, 0.0, seed)
        return held_out
    rng = np.random.Generator(np.random.PCG64(seed))
    counts = _held_out_by_class(np.bincount(labels), fraction, rng)
    if counts.sum() == 0:
        raise _none_to_hold_out(split)
    held_out = np.zeros(len(labels), dtype=bool)
    for label, count in enumerate(counts):
        held_out[rng.permutation(np.flatnonzero(labels == label))[:count]] = True
    return held_out


def parts_of(split: Split, shares: Sequence[float], seed: int) -> np.ndarray:
    """Return the part of each image: int N, stratified by class as closely as whole groups allow.

    Groups (without groups: images) are dealt in order of size, then of a hash of their names, each to the part in which
    the sum of squares of the classes' and of all images' relative deviations from its share grows least. The result
    follows from seed, names and labels, independent of their order and of the versions of other libraries.

    Args:
        split: to draw from.
        shares: fraction of the images in each part; they sum to 1.
        seed: of the draw.

    Returns:
        Indices into `shares`; `NEVER` for a group of each class that would otherwise be in one part as a whole.
    """
    names, labels = split.groups or split.keys, np.asarray(split.labels)
    members: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        members[name].append(index)
    order = sorted(members, key=lambda name: (-len(members[name]), _uniform(name, seed), name))
    sizes = np.bincount(labels)
    share = np.asarray(shares)
    counts, totals = np.zeros((len(share), len(sizes))), np.zeros(len(share))  # of the images in each part
    present = np.count_nonzero(sizes)
    part_of = np.empty(len(labels), dtype=np.int64)
    for name in order:
        classes, number = np.unique(labels[members[name]], return_counts=True)
        weights, size = number / sizes[classes] ** 2, len(members[name])
        growth = (2 * counts[:, classes] + number) @ weights + present * size * (2 * totals + size) / len(labels) ** 2
        part = int(np.argmin(np.round(growth / share, 12)))
        counts[part, classes] += number
        totals[part] += size
        part_of[members[name]] = part
    for label in np.flatnonzero(sizes):
        of_class = np.flatnonzero(labels == label)
        if len(np.unique(part_of[of_class])) == 1 and part_of[of_class[0]] != NEVER:
            last = max({names[index] for index in of_class.tolist()}, key=lambda name: (_uniform(name, seed), name))
            part_of[members[last]] = NEVER
    return part_of


def _none_to_hold_out(split: Split) -> FgvcError:
    if split.groups is None:
        return FgvcError("No class has a second image to hold out for validation. Add images, or a val split")
    return FgvcError("No class has a second group (`group_by`) to hold out for validation. Add groups, or a val split")


def _uniform(key: str, seed: int) -> float:
    """Return a number in [0, 1) that follows from a key and a seed; a name is the same in every Unicode form."""
    name = unicodedata.normalize("NFC", key).encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(name, digest_size=8, key=str(seed).encode()).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def _held_out_by_class(sizes: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Return the number of images to hold out per class: largest remainder method, ties broken at random."""
    spare = np.maximum(sizes - 1, 0)
    exact = np.round(sizes * fraction, 9)  # 0.07 * 100 is 7, without a remainder
    counts = np.minimum(np.floor(exact).astype(np.int64), spare)
    total = max(1, round(float(sizes.sum() * fraction)))
    shuffled = rng.permutation(len(sizes))
    by_remainder = shuffled[np.argsort(-(exact - counts)[shuffled], kind="stable")]
    for label in by_remainder:
        if counts.sum() >= total:
            break
        counts[label] += counts[label] < min(exact[label], spare[label])
    return counts
