"""Select the example images of a dataset explanation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fgvc_cli.explaining.statistics import ExplainerMeasurements, Figures, GalleryImage, Reason, finite, per_image
from fgvc_cli.formatting import counted


def select_gallery(scored: Sequence[ExplainerMeasurements], each: int) -> list[GalleryImage]:
    """Select at most `each` distinct images of each kind for each run's first explainer that is not the baseline.

    - largest drop: occlusion reduces the probability of the true class most.
    - survived: the true class is predicted at most occlusion steps; ties are broken by the final probability. Images
      of which nothing is masked are excluded.
    - hit, miss: where the parts are known, the map points at a deciding part, or at none; the most confident
      predictions first.
    """
    firsts: dict[Path, ExplainerMeasurements] = {}
    for entry in scored:
        run = entry.ready.run
        if run not in firsts or (firsts[run].is_baseline and not entry.is_baseline):
            firsts[run] = entry
    return [image for entry in firsts.values() for image in _select(entry, each)]


def _select(scored: ExplainerMeasurements, each: int) -> list[GalleryImage]:
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
    return f"true class survives {counted(survived, 'step')}: {change}"
