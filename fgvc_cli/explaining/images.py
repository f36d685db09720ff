"""Explain images one by one, batched over images."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgvc_cli.contracts import Split
from fgvc_cli.data.loading import ImageBatch
from fgvc_cli.errors import UsageError
from fgvc_cli.evaluation.predict import find_inputs
from fgvc_cli.explaining.explainers import NamedExplainer, make_explainers
from fgvc_cli.explaining.explanation import ExplainedImage, Explanation, Sight, Subject
from fgvc_cli.explaining.masking import Cover, Look, filling, looks
from fgvc_cli.explaining.request import ExplainRequest
from fgvc_cli.explaining.selection import class_index
from fgvc_cli.files import check_writable
from fgvc_cli.registry import Registry
from fgvc_cli.runs.folder import MODEL_FILE
from fgvc_cli.scoring.model import ReadyClassifier, load

logger = logging.getLogger(__name__)

PICTURE = ".explain.png"
"""How the names of pictures end."""
SAMPLES = "samples"
LONGEST_NAME = 200
"""Bytes of a picture's name without its ending: file systems take 255 with it, and with what is added while writing."""


def true_class(path: Path, class_names: Collection[str]) -> str | None:
    """Return the class that an image's place names, or None.

    That is the innermost folder that has the name of a class: of those that the path names, and the one that the file
    is in. Samples that training left in a run carry it in their own names.
    """
    folder = path.absolute().parent
    for name in (folder.name, *reversed(path.parent.parts)):
        if name in class_names:
            return name
    stem, _, number = path.stem.rpartition("-")
    is_sample = folder.name == SAMPLES and (folder.parent / MODEL_FILE).is_file()
    return stem if is_sample and number.isdigit() and stem in class_names else None


def without_pictures(found: Sequence[Path], named: Collection[Path]) -> list[Path]:
    """Leave out the pictures that this command made, unless they were named one by one."""
    return [path for path in found if path in named or not path.name.lower().endswith(PICTURE)]


def picture_files(images: Sequence[Path], out: Path | None, force: bool) -> list[Path]:
    """Return where the picture of each image goes: `NAME.explain.png`, in the current folder or in `out`.

    Images of one name are told apart by the folders that they are in.

    Raises:
        UsageError: a picture is there already, without `force`; or `out` is a file.
        FgvcError: `out` cannot be made or written to.
    """
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: name a folder.")
    pictures = [(out or Path()) / f"{name}{PICTURE}" for name in _different_names(images)]
    there = [picture for picture in pictures if picture.exists()]
    if there and not force:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise UsageError(f"{there[0]} exists{more}: replace it with --force, or choose another folder with --out.")
    check_writable(out or Path(), "Pictures")
    return pictures


def _different_names(images: Sequence[Path]) -> list[str]:
    """Name each image by its stem, by as many folders above it as it takes, or else by its whole name and a number."""
    candidates = [list(_candidates(path)) for path in images]
    chosen = [0] * len(images)
    while True:
        names = [options[k] for options, k in zip(candidates, chosen, strict=True)]
        counts = Counter(name.lower() for name in names)  # some file systems do not tell upper from lower case
        twice = [i for i, name in enumerate(names) if counts[name.lower()] > 1 and chosen[i] < len(candidates[i]) - 1]
        if not twice:
            return told_apart(names)
        for i in twice:
            chosen[i] += 1


def _candidates(path: Path) -> Iterator[str]:
    """Give names for an image, from the shortest to the longest."""
    folders = [part for part in path.absolute().parent.parts if part != path.anchor]
    for count in range(len(folders) + 1):
        above = folders[len(folders) - count :]
        yield "-".join([*above, path.stem])
        if count in (0, len(folders)):
            yield "-".join([*above, path.name])


def told_apart(names: Sequence[str]) -> list[str]:
    """Number names that come again, upper and lower case being one, after cutting off what no file system takes."""
    taken: set[str] = set()
    different = []
    for name in names:
        candidate, count = _cut(name), 1
        while candidate.lower() in taken:
            count += 1
            candidate = f"{_cut(name)}-{count}"
        taken.add(candidate.lower())
        different.append(candidate)
    return different


def _cut(name: str) -> str:
    return os.fsencode(name)[:LONGEST_NAME].decode(errors="ignore") if len(os.fsencode(name)) > LONGEST_NAME else name


PREDICTED, TRUE = "predicted", "true"
"""What `target` may be besides the name of a class."""


@dataclass
class ExplainingImages:
    """Goes through images in batches; no more than a few batches are in memory, however many images there are.

    Attributes:
        runs: the classifiers, with one batch size.
        explainers: each explains every run.
        subjects: the images, of different names.
        target: the class that maps explain: "predicted", "true" or the name of a class.
        cover: how the most marked part is covered; None: it is not.
        steps: how often more is covered; 0 without `cover`.
        failures: why an image was left out, by name; complete once all have been taken.

    Raises:
        UsageError: an explainer cannot explain a run, or a run does not know the target class.
    """

    runs: Sequence[ReadyClassifier]
    explainers: Sequence[NamedExplainer]
    subjects: Sequence[Subject]
    target: str = PREDICTED
    cover: Cover | None = None
    steps: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for ready in self.runs:
            for explainer in self.explainers:
                explainer.check(ready.classifier)
        if self.target == TRUE:
            self._leave_out_unlabeled()
        elif self.target != PREDICTED:
            for ready in self.runs:
                class_index(self.target, ready.classifier.class_names, "--target")

    def __iter__(self) -> Iterator[list[ExplainedImage]]:
        """Give the explained images batch by batch, in their order; those that cannot be read are left out."""
        for indices, pixels in self._batches():
            subjects = [self.subjects[i] for i in indices]
            explanations = [
                self._explanations(ready, explainer, seen, subjects)
                for ready, seen in zip(self.runs, pixels, strict=True)
                for explainer in self.explainers
            ]
            explained = [ExplainedImage(s, [of[i] for of in explanations]) for i, s in enumerate(subjects)]
            yield [image for image in explained if self._is_finite(image)]

    def _leave_out_unlabeled(self) -> None:
        for subject in self.subjects:
            if subject.true is None:
                self.failures[subject.name] = (
                    "its true class is not known; it would be in a folder named after one of the run's classes"
                )
        self.subjects = [subject for subject in self.subjects if subject.true is not None]

    def _batches(self) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Give the positions of some images that every run could read, and their pixels for each run."""
        names = [subject.name for subject in self.subjects]
        split = Split("images", [subject.source for subject in self.subjects], [0] * len(names), names)
        loaders = [ready.loader(split) for ready in self.runs]
        streams = [iter(loader) for loader in loaders]
        waiting: list[ImageBatch | None] = [None] * len(loaders)
        while True:
            for k, (loader, stream) in enumerate(zip(loaders, streams, strict=True)):
                loader.failures.update(loaders[0].failures)  # so that it does not warn of the same images again
                waiting[k] = waiting[k] or next(stream, None)
            self.failures.update(
                {key: failure.reason for loader in loaders for key, failure in loader.failures.items()}
            )
            batches = [batch for batch in waiting if batch is not None]
            if len(batches) < len(loaders):
                return
            # A loader leaves out a batch of which it can read nothing: they may not all be at the same one.
            places = [
                int(batch.indices[0]) // loader.batch_size for batch, loader in zip(batches, loaders, strict=True)
            ]
            waiting = [batch if place > min(places) else None for batch, place in zip(batches, places, strict=True)]
            indices, pixels = _common(batches)
            if indices:
                yield indices, pixels

    def _explanations(
        self, ready: ReadyClassifier, explainer: NamedExplainer, pixels: Tensor, subjects: Sequence[Subject]
    ) -> list[Explanation]:
        """Explain what one run says of a batch."""
        names = ready.classifier.class_names
        targets = self._targets(names, subjects)
        cover = self.cover or Cover()
        of_looks = [
            _sights(look, names, subjects)
            for look in looks(explainer, ready, pixels, targets, cover, self.steps if self.cover else 0)
        ]
        fills = filling(pixels, cover.fill).permute(0, 2, 3, 1).cpu().numpy()
        preprocessing = ready.classifier.preprocessing
        return [
            Explanation(str(ready.run), explainer.name, preprocessing, fill, list(sights))
            for fill, sights in zip(fills, zip(*of_looks, strict=True), strict=True)
        ]

    def _targets(self, class_names: Sequence[str], subjects: Sequence[Subject]) -> Tensor | None:
        """Return the class that each map is to explain, or None for the predicted one."""
        if self.target == PREDICTED:
            return None
        wanted = [subject.true or "" if self.target == TRUE else self.target for subject in subjects]
        return torch.tensor([class_index(name, class_names, "--target") for name in wanted])

    def _is_finite(self, image: ExplainedImage) -> bool:
        if all(np.isfinite(sight.probability) for e in image.explanations for sight in e.sights):
            return True
        self.failures[image.subject.name] = "the classifier's scores are not finite"
        logger.warning(f"left out: {image.subject.name}: {self.failures[image.subject.name]}.")
        return False


def _common(batches: Sequence[ImageBatch]) -> tuple[list[int], list[Tensor]]:
    """Return the positions that all batches have, and the pixels of these images in each."""
    held = [batch.indices.tolist() for batch in batches]
    common = sorted(set(held[0]).intersection(*held[1:]))
    pixels = [b.pixels[[list_.index(i) for i in common]] for b, list_ in zip(batches, held, strict=True)]
    return common, pixels


def _sights(look: Look, class_names: Sequence[str], subjects: Sequence[Subject]) -> list[Sight]:
    """Take a batch's look apart, image by image."""
    found = []
    for i, subject in enumerate(subjects):
        probabilities = look.probabilities[i].numpy()
        predicted, explained = int(probabilities.argmax()), int(look.targets[i])
        true = class_names.index(subject.true) if subject.true in class_names else None
        found.append(
            Sight(
                covered=float(look.covered[i].float().mean()),
                predicted=class_names[predicted],
                probability=float(probabilities[predicted]),
                explained=class_names[explained],
                explained_probability=float(probabilities[explained]),
                true_probability=None if true is None else float(probabilities[true]),
                map=look.maps[i].numpy(),
                mask=look.covered[i].numpy(),
            )
        )
    return found


@dataclass(frozen=True)
class PreparedImages:
    """Images that are ready to be explained.

    Attributes:
        explaining: does it; knows already which inputs gave no image.
        pictures: where each image's picture goes, by the image's name.
        description: what was asked for, for the JSON document.
        notes: what a person should know before it starts.
    """

    explaining: ExplainingImages
    pictures: dict[str, Path]
    description: dict[str, Any]
    notes: list[str]


def prepare_images(paths: Sequence[Path], request: ExplainRequest, occlude: bool, registry: Registry) -> PreparedImages:
    """Find the images, load the runs, and check that everything can be done before anything is.

    Args:
        paths: files and folders.
        request: what is wanted.
        occlude: whether the most marked part is covered.
        registry: finds explainers.

    Raises:
        UsageError: there is no such explainer, option or class, an explainer cannot explain a run, or a picture is
            there already.
        FgvcError: there is no image, no run, or no way to write pictures.
    """
    explainers = make_explainers(request.explainers, request.settings, registry)
    inputs = find_inputs(paths)
    images = without_pictures(inputs.images, set(paths))
    pictures = picture_files(images, request.out, request.force)
    models = request.models()
    runs = [load(model, request.computing) for model in models]
    class_names = runs[0].classifier.class_names
    subjects = [Subject(str(path), path, true_class(path, class_names)) for path in images]
    cover, steps = (request.cover, request.steps) if occlude else (None, 0)
    explaining = ExplainingImages(runs, explainers, subjects, request.target, cover, steps, dict(inputs.failures))
    occlusion = None if cover is None else {**vars(cover), "steps": steps}
    left_out = len(inputs.images) - len(images)
    return PreparedImages(
        explaining,
        {str(image): picture for image, picture in zip(images, pictures, strict=True)},
        {
            "runs": [str(ready.run) for ready in runs],
            "explainers": [{"name": e.name, "options": dict(e.options)} for e in explainers],
            "target": request.target,
            "occlusion": occlusion,
        },
        [
            *(f"run        {ready.run}" for ready in runs),
            *dict.fromkeys(line for ready in runs for e in explainers for line in e.notes(ready.classifier)),
            *([f"{left_out} pictures called *{PICTURE} are not explained again"] if left_out else []),
        ],
    )
