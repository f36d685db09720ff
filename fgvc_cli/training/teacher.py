"""Knowledge distillation: the predictions of another run as part of the targets."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.contracts import Classifier, Head
from fgvc_cli.contracts.targets import with_teacher
from fgvc_cli.data.splits import quoted_names
from fgvc_cli.data.staging import probabilities
from fgvc_cli.devices import Precision, autocast
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.runs.model_file import load_classifier, model_file


@dataclass(frozen=True)
class Teacher:
    """A trained classifier whose predictions a training imitates.

    Attributes:
        classifier: in evaluation mode, on the device of the training.
        student: the classifier that is trained, whose images it gets.
        columns: index of each of the student's classes among the teacher's; None if they are the same.
        options: of the training: weight and temperature.
        precision: for autocast.
        digest: SHA-256 of its model file.
    """

    classifier: Classifier
    student: Classifier
    columns: Tensor | None
    options: TrainOptions
    precision: Precision
    digest: str

    @torch.no_grad()  # not inference mode, whose tensors cannot enter a loss
    def __call__(self, images: Tensor, targets: Tensor, joined: bool = True) -> Tensor:
        """Return the targets of a batch with the teacher's predictions, see `with_teacher`.

        Args:
            images: B,3,S,S, augmented and normalized for the student.
            targets: class indices B, or probabilities B,K.
            joined: see `with_teacher`.
        """
        if targets.ndim == 1:
            targets = probabilities(targets, len(self.student.class_names), 0.0)
        with autocast(self.student.device, self.precision):
            scores = self.classifier.scores(self.adapted(images)).float()
        if self.columns is not None:
            scores = scores.index_select(1, self.columns)
        return with_teacher(targets, scores, self.options.teacher_weight, self.options.teacher_temperature, joined)

    def adapted(self, images: Tensor) -> Tensor:
        """Return the same images with the teacher's normalization and image size (bilinear, antialiased)."""
        ours, theirs = self.student.preprocessing, self.classifier.preprocessing
        if (ours.mean, ours.std) != (theirs.mean, theirs.std):
            mean, std, their_mean, their_std = (
                torch.tensor(values, device=images.device).view(3, 1, 1)
                for values in (ours.mean, ours.std, theirs.mean, theirs.std)
            )
            images = images * (std / their_std) + (mean - their_mean) / their_std
        if ours.image_size != theirs.image_size:
            size = (theirs.image_size, theirs.image_size)
            images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        return images

    @property
    def note(self) -> str:
        """One line on it for the user."""
        info, options = self.classifier.backbone.info, self.options
        return (
            f"teacher {options.teacher}: {info.name} at {info.image_size} px, weight {options.teacher_weight:g}, "
            f"temperature {options.teacher_temperature:g}"
        )


def load_teacher(options: TrainOptions, student: Classifier, head_name: str, precision: Precision) -> Teacher | None:
    """Load the teacher of a training, if it has one; its classes are matched by name.

    Raises:
        UsageError: it has other classes, or the student's head (called `head_name`) does not support the temperature.
        FgvcError: there is no such run, or it is damaged.
    """
    if options.teacher is None:
        return None
    _check_head(student.head, head_name, options)
    try:
        file = model_file(Path(options.teacher))
        classifier: Classifier = load_classifier(file, student.device)
    except FgvcError as error:
        raise FgvcError(f"`train.teacher={options.teacher}`: {error}") from error
    columns = _columns(classifier.class_names, student.class_names, options.teacher)
    if classifier.backbone.info.channels_last:
        classifier = classifier.to(memory_format=torch.channels_last)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    moved = None if columns is None else columns.to(student.device)
    return Teacher(classifier.requires_grad_(False), student, moved, options, precision, digest)


def _check_head(head: Head, name: str, options: TrainOptions) -> None:
    if options.teacher_temperature != 1 and not head.distills:
        raise UsageError(
            f"`train.teacher_temperature={options.teacher_temperature:g}`: head {name} does not support a temperature "
            "(`Head.distills`); use `train.teacher_temperature=1`"
        )


def _columns(theirs: tuple[str, ...], ours: tuple[str, ...], teacher: str) -> Tensor | None:
    """Return the index of each of our classes among the teacher's; None if they are the same in the same order."""
    missing, extra = [n for n in ours if n not in set(theirs)], [n for n in theirs if n not in set(ours)]
    if missing or extra:
        differences = [f"does not have {quoted_names(missing)}"] * bool(missing)
        differences += [f"has {quoted_names(extra)}, which the dataset does not"] * bool(extra)
        raise UsageError(
            f"`train.teacher={teacher}` {' and '.join(differences)}; a teacher needs the same classes, in any order"
        )
    return None if theirs == ours else torch.tensor([theirs.index(name) for name in ours])
