"""Pick and draw the most telling images of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fgvc_cli.data.images import ImageError
from fgvc_cli.explaining.dataset import Study, StudyRequest
from fgvc_cli.explaining.explainers import make_explainers
from fgvc_cli.explaining.explanation import Subject
from fgvc_cli.explaining.images import PICTURE, ExplainingImages, told_apart
from fgvc_cli.explaining.panels import write_panel
from fgvc_cli.explaining.statistics import Scored, by_image, finite
from fgvc_cli.progress import progress
from fgvc_cli.registry import Registry
from fgvc_cli.scoring.model import load, run_of

Reason = Literal["largest drop", "survived", "hit", "miss"]


@dataclass(frozen=True)
class Telling:
    """An image that is worth a look, and why.

    Attributes:
        key: the image's name in the split.
        file: where it is; None where the data set holds it in memory.
        run: the run that looked at it.
        explainer: whose map it is.
        true, predicted: class names.
        reason: why it was chosen.
        words: the same as a sentence with figures.
    """

    key: str
    file: Path | None
    run: Path
    explainer: str
    true: str
    predicted: str
    reason: Reason
    words: str

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        file = None if self.file is None else str(self.file)
        return {**asdict(self), "file": file, "run": str(self.run)}


def most_telling(scored: Sequence[Scored], each: int) -> list[Telling]:
    """Return the most telling images of each run, by the first explainer that was asked for; none comes twice.

    - largest drop: the probability of the true class falls most when the most marked part is covered.
    - survived: the true class is predicted at first, and through most coverings (of something: a map that marks nothing
      covers nothing); of equals the one with the highest probability in the end.
    - hit, miss: where the parts are known, the map points at a deciding part, or at none of them; the surest first.

    Args:
        scored: of all runs and explainers.
        each: how many images of each kind, at most.
    """
    firsts: dict[Path, Scored] = {}
    for entry in scored:
        if entry.run not in firsts or (firsts[entry.run].is_baseline and not entry.is_baseline):
            firsts[entry.run] = entry
    return [telling for entry in firsts.values() for telling in _of_run(entry, each)]


def _of_run(scored: Scored, each: int) -> list[Telling]:
    figures, rows = by_image(scored.measured), finite(scored.measured)
    before, after = figures["true_probability_before"], figures["true_probability_after"]
    right, hit = figures["right_before"] == 1, figures["pointing"]
    kinds: list[tuple[Reason, np.ndarray, np.ndarray]] = [
        ("largest drop", rows & (before > after), before - after),
        ("survived", rows & right & (figures["covered"] > 0) & (_survived(scored) > 0), _survived(scored) + after),
        ("hit", rows & (hit >= 0.5), figures["probability_before"]),
        ("miss", rows & (hit == 0) & (figures["marked"] > 0), figures["probability_before"]),
    ]
    chosen: dict[int, Reason] = {}
    for reason, candidates, rank in kinds:
        free = [i for i in np.flatnonzero(candidates).tolist() if i not in chosen]
        best = sorted(free, key=lambda i: -rank[i])[:each]
        chosen.update(dict.fromkeys(best, reason))
    return [_telling(scored, figures, int(row), reason) for row, reason in chosen.items()]


def _survived(scored: Scored) -> np.ndarray:
    """Return through how many coverings the true class stays predicted without a break, int64 N."""
    predicted, labels = scored.measured.array("predicted"), scored.measured.array("labels")
    return np.cumprod(predicted[:, 1:] == labels[:, None], axis=1).sum(axis=1)


def _telling(scored: Scored, figures: dict[str, np.ndarray], row: int, reason: Reason) -> Telling:
    measured, split, names = scored.measured, scored.split, scored.class_names
    index = int(measured.indices[row])
    image = split.images[index]
    true, predicted = names[int(measured.labels[row])], names[int(measured.predicted[row, 0])]
    return Telling(
        split.keys[index],
        image if isinstance(image, Path) else None,
        scored.run,
        scored.explainer.name,
        true,
        predicted,
        reason,
        _words(reason, {name: float(values[row]) for name, values in figures.items()}, int(_survived(scored)[row])),
    )


def _words(reason: Reason, figures: dict[str, float], survived: int) -> str:
    before, after = figures["true_probability_before"], figures["true_probability_after"]
    covered = f"with {100 * figures['covered']:.0f} % covered"
    if reason == "largest drop":
        return f"true class from {100 * before:.0f} to {100 * after:.0f} % {covered}"
    if reason == "survived":
        times = f"{survived} covering{'' if survived == 1 else 's'}"
        return f"true class survives {times}: from {100 * before:.0f} to {100 * after:.0f} % {covered}"
    where = "at a deciding part" if reason == "hit" else "at no deciding part"
    return f"points {where}, {100 * figures['probability_before']:.0f} % sure"


GALLERY = "gallery"


def draw_gallery(study: Study, request: StudyRequest, registry: Registry) -> list[Path]:
    """Draw a panel of each telling image that is a file, into the study's folder; earlier ones there are replaced.

    Args:
        study: its gallery is drawn.
        request: what the study was asked: the panels are made alike.
        registry: finds explainers.

    Returns:
        The pictures, called after their reason and the image.
    """
    folder = study.folder / GALLERY
    for old in folder.glob(f"*{PICTURE}"):
        old.unlink()
    names = told_apart([_name(telling, request) for telling in study.gallery])
    places = {(t.run, str(t.file)): folder / f"{name}{PICTURE}" for t, name in zip(study.gallery, names, strict=True)}
    drawn: list[Path] = []
    with progress("pictures", len(study.gallery)) as bar:
        for model in request.models:
            for name in request.explainers:
                chosen = [t for t in study.gallery if t.file and (t.run, t.explainer) == (run_of(model), name)]
                if not chosen:
                    continue
                explaining = _explaining(chosen, model, name, request, registry)
                for batch in explaining:
                    for image in batch:
                        place = places[run_of(model), image.subject.name]
                        try:
                            write_panel(place, image, request.cover)
                        except ImageError:  # it was read a moment ago, and is gone now
                            continue
                        drawn.append(place)
                        bar.advance()
    return drawn


def _explaining(
    chosen: Sequence[Telling], model: Path, explainer: str, request: StudyRequest, registry: Registry
) -> ExplainingImages:
    explainers = make_explainers([explainer], _settings(explainer, request, registry), registry)
    subjects = [Subject(str(t.file), t.file, t.true) for t in chosen if t.file is not None]
    ready = load(model, request.computing)
    return ExplainingImages([ready], explainers, subjects, request.target, request.cover, request.steps)


def _settings(explainer: str, request: StudyRequest, registry: Registry) -> dict[str, object]:
    """Return those of the settings that this explainer has; the others are of those it is compared with."""
    from dataclasses import fields

    known = {field.name for field in fields(registry.find("explainer", explainer).options_type())}
    return {name: value for name, value in request.settings.items() if name in known}


def _name(telling: Telling, request: StudyRequest) -> str:
    key = Path(telling.key).with_suffix("").as_posix().replace("/", "-")
    run = f"{telling.run.absolute().name}-" if len(request.models) > 1 else ""
    return f"{telling.reason.replace(' ', '-')}-{run}{key}"
