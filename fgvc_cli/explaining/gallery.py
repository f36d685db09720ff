"""Name the files of panels, and select the example images of a dataset explanation."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from fgvc_cli.errors import UsageError
from fgvc_cli.explaining.statistics import Figures, GalleryImage, Reason, Scored, finite, per_image
from fgvc_cli.files import check_writable

PANEL_SUFFIX = ".explain.png"
LONGEST_NAME = 200
"""Maximum length of a file name in bytes, without the suffix: file systems take 255, temporary suffixes included."""


def without_panels(found: Sequence[Path], named: Collection[Path]) -> list[Path]:
    """Drop the panels of earlier calls, unless they were named explicitly."""
    return [path for path in found if path in named or not path.name.lower().endswith(PANEL_SUFFIX)]


def panel_files(images: Sequence[Path], out: Path | None, force: bool) -> list[Path]:
    """Return the panel file of each image: `NAME.explain.png`, in the current folder or in `out`.

    Images with the same name are distinguished by the folders that they are in.

    Raises:
        UsageError: a panel already exists and `force` is not set, or `out` is a file.
        FgvcError: `out` cannot be created or written to.
    """
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"`out={out}` is a file; name a folder")
    panels = [(out or Path()) / f"{name}{PANEL_SUFFIX}" for name in _distinct_names(images)]
    existing = [panel for panel in panels if panel.exists()]
    if existing and not force:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise UsageError(f"{existing[0]} already exists{more}; overwrite it with `force`, or choose another `out`")
    check_writable(out or Path(), "Pictures")
    return panels


def _distinct_names(images: Sequence[Path]) -> list[str]:
    """Name each image by its stem, by as many parent folders as necessary, or else by its full name and a number."""
    candidates = [list(_candidates(path)) for path in images]
    chosen = [0] * len(images)
    while True:
        names = [options[k] for options, k in zip(candidates, chosen, strict=True)]
        counts = Counter(name.lower() for name in names)  # some file systems ignore case
        twice = [i for i, name in enumerate(names) if counts[name.lower()] > 1 and chosen[i] < len(candidates[i]) - 1]
        if not twice:
            return unique_names(names)
        for i in twice:
            chosen[i] += 1


def _candidates(path: Path) -> Iterator[str]:
    """Yield names for an image, from the shortest to the longest."""
    folders = [part for part in path.absolute().parent.parts if part != path.anchor]
    for count in range(len(folders) + 1):
        above = folders[len(folders) - count :]
        yield "-".join([*above, path.stem])
        if count in (0, len(folders)):
            yield "-".join([*above, path.name])


def unique_names(names: Sequence[str]) -> list[str]:
    """Shorten names to what file systems take, and number duplicates, ignoring case."""
    taken: set[str] = set()
    unique = []
    for name in names:
        short = os.fsencode(name)[:LONGEST_NAME].decode(errors="ignore")
        short = name if len(os.fsencode(name)) <= LONGEST_NAME else short
        candidate, count = short, 1
        while candidate.lower() in taken:
            count += 1
            candidate = f"{short}-{count}"
        taken.add(candidate.lower())
        unique.append(candidate)
    return unique


def select_gallery(scored: Sequence[Scored], each: int) -> list[GalleryImage]:
    """Select example images of each run, explained by the first explainer that is not the baseline, without duplicates.

    - largest drop: occlusion reduces the probability of the true class most.
    - survived: the true class is predicted at most occlusion steps; ties are broken by the final probability. Images
      of which nothing is masked are excluded.
    - hit, miss: where the parts are known, the map points at a deciding part, or at none; the most confident
      predictions first.

    Args:
        scored: of all runs and explainers.
        each: maximum number of images of each kind.
    """
    firsts: dict[Path, Scored] = {}
    for entry in scored:
        run = entry.ready.run
        if run not in firsts or (firsts[run].is_baseline and not entry.is_baseline):
            firsts[run] = entry
    return [image for entry in firsts.values() for image in _select(entry, each)]


def _select(scored: Scored, each: int) -> list[GalleryImage]:
    measured, names = scored.measured, scored.class_names
    figures, rows = per_image(measured), finite(measured)
    before, after, hit = figures.true_probability_before, figures.true_probability_after, figures.pointing
    predicted, labels = measured.predicted.numpy(), measured.labels.numpy()
    survived = np.cumprod(predicted[:, 1:] == labels[:, None], axis=1).sum(axis=1)  # steps until the first change
    kinds: list[tuple[Reason, np.ndarray, np.ndarray]] = [
        ("largest drop", rows & (before > after), before - after),
        ("survived", rows & (figures.right_before == 1) & (figures.covered > 0) & (survived > 0), survived + after),
        ("hit", rows & (hit >= 0.5), figures.probability_before),
        ("miss", rows & (hit == 0) & (figures.marked > 0), figures.probability_before),
    ]
    chosen: dict[int, Reason] = {}
    for reason, candidates, rank in kinds:
        free = [i for i in np.flatnonzero(candidates).tolist() if i not in chosen]
        chosen |= dict.fromkeys(sorted(free, key=lambda i: -rank[i])[:each], reason)
    found = []
    for row, reason in chosen.items():
        index = int(measured.indices[row])
        image = scored.split.images[index]
        found.append(
            GalleryImage(
                scored.split.keys[index],
                image if isinstance(image, Path) else None,
                scored.ready.run,
                scored.explainer.name,
                names[labels[row]],
                names[predicted[row, 0]],
                reason,
                _reason_text(reason, figures.map(lambda values: float(values[row])), int(survived[row])),  # noqa: B023
            )
        )
    return found


def _reason_text(reason: Reason, figures: Figures[float], survived: int) -> str:
    if reason in ("hit", "miss"):
        where = "at a deciding part" if reason == "hit" else "at no deciding part"
        return f"points {where}, {100 * figures.probability_before:.0f} % confident"
    before, after = 100 * figures.true_probability_before, 100 * figures.true_probability_after
    change = f"from {before:.0f} to {after:.0f} % with {100 * figures.covered:.0f} % masked"
    if reason == "largest drop":
        return f"true class {change}"
    return f"true class survives {survived} step{'' if survived == 1 else 's'}: {change}"
