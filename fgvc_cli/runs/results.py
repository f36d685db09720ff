"""Metrics of a training: lines of `metrics.jsonl`, `summary.json`, and metrics of a split.

Accuracies and other fractions are in [0, 1], losses are mean cross entropies in nats.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainMetrics:
    """Means over the augmented training images of an epoch, each computed before the update on its batch.

    Attributes:
        images: number of images.
        objectives: "objective" is the minimized loss, summed over the head's objectives; "objective.<name>" one of
            several, and "objective.<part>" (or "objective.<name>.<part>") a named part of it.
        loss, top1: of the first objective that has scores; None if none has.
        top5: of the same objective; None with five classes or fewer.
    """

    images: int
    objectives: Mapping[str, float | None] = field(default_factory=dict)
    loss: float | None = None
    top1: float | None = None
    top5: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the form that `metrics.jsonl` and `summary.json` have: sorted means, then the number of images."""
        means = {**self.objectives, **_given(loss=self.loss, top1=self.top1, top5=self.top5)}
        return {**dict(sorted(means.items())), "images": self.images}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TrainMetrics:
        """Undo `as_json`."""
        objectives = {name: value for name, value in document.items() if name.partition(".")[0] == "objective"}
        own = {name: document.get(name) for name in ("loss", "top1", "top5")}
        return cls(document["images"], objectives, **own)


@dataclass(frozen=True)
class ValMetrics:
    """Metrics of the validation split after an epoch.

    Attributes:
        images: number of images.
        loss: None if it is not finite.
        top1: accuracy.
        top5: None with five classes or fewer.
    """

    images: int
    loss: float | None
    top1: float
    top5: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the form that `metrics.jsonl` and `summary.json` have."""
        return {"loss": self.loss, "top1": self.top1, **_given(top5=self.top5), "images": self.images}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ValMetrics:
        """Undo `as_json`."""
        return cls(document["images"], document["loss"], document["top1"], document.get("top5"))


@dataclass(frozen=True)
class EpochMetrics:
    """A line of `metrics.jsonl`.

    Attributes:
        epoch: from 1.
        train, val: metrics of the splits; `val` is None without validation images.
        rates: learning rates at the end of the epoch, by parameter group.
        processes: number of processes that trained together.
        images_per_second: training throughput.
        seconds: wall time, validation included.
    """

    epoch: int
    train: TrainMetrics
    val: ValMetrics | None
    rates: Mapping[str, float] = field(default_factory=dict)
    processes: int = 1
    images_per_second: float = 0.0
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the line as a JSON object."""
        return {
            "epoch": self.epoch,
            "train": self.train.as_json(),
            "val": None if self.val is None else self.val.as_json(),
            "rates": dict(self.rates),
            "processes": self.processes,
            "images_per_second": self.images_per_second,
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> EpochMetrics:
        """Undo `as_json`.

        Raises:
            KeyError, TypeError, ValueError: something is missing or has another type.
        """
        val = document["val"]
        optional = {name: document[name] for name in ("rates", "processes", "images_per_second", "seconds")
                    if name in document}  # fmt: skip
        return cls(
            int(document["epoch"]),
            TrainMetrics.from_json(document["train"]),
            None if val is None else ValMetrics.from_json(val),
            **optional,
        )


@dataclass(frozen=True)
class EpochAverage:
    """Result of averaging the weights of the last epochs (`train.average_epochs`).

    Attributes:
        epochs: number of epochs averaged.
        val: metrics of the average on the validation split; None without one.
        saved: whether it is better than every single epoch, and is the model of the run.
    """

    epochs: int
    val: ValMetrics | None
    saved: bool

    def as_json(self) -> dict[str, Any]:
        """Return the form that `summary.json` has."""
        return {"epochs": self.epochs, "val": None if self.val is None else self.val.as_json(), "saved": self.saved}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> EpochAverage:
        """Undo `as_json`."""
        val = document["val"]
        return cls(document["epochs"], None if val is None else ValMetrics.from_json(val), document["saved"])


@dataclass(frozen=True)
class Averages:
    """Averages over the classes that a split has images of; None without a scored image."""

    precision: float | None = None
    recall: float | None = None
    f1: float | None = None


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class; those of a class without images are None.

    Attributes:
        name: of the class.
        images: number of its images.
        precision, recall, f1: of the class against all others.
        top1: fraction of its images that are classified correctly, which is its recall.
    """

    name: str
    images: int
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    top1: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form, in which the name is "class"."""
        return {"class": self.name, **{key: value for key, value in asdict(self).items() if key != "name"}}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ClassMetrics:
        """Undo `as_json`."""
        averages = {name: document.get(name) for name in CLASS_COLUMNS[2:]}
        return cls(document["class"], document["images"], **averages)


CLASS_COLUMNS = ("class", "images", "precision", "recall", "f1", "top1")
"""Columns of `per_class.csv`, and keys of a class in `summary.json`."""


@dataclass(frozen=True, kw_only=True)
class SplitMetrics:
    """Metrics of a classifier on a split, per image over the whole split. Those without a scored image are None.

    Attributes:
        images: number of images that were scored.
        failed: number of images that could not be read; they enter no metric.
        not_finite: number of images whose scores were not finite; they count as wrong.
        classes: K, the number of classes that the classifier knows.
        classes_present: number of classes that the split has images of.
        top1: accuracy.
        top5: fraction of images whose true class is among the five most probable; None with five classes or fewer.
        loss: mean cross entropy; None if it is not finite.
        macro, weighted: precision, recall and F1 averaged over the classes that the split has images of, equally and
            by their number of images. A class that is absent from the split enters neither average (though images
            wrongly assigned to it count against their own class); one that is never predicted has a precision of 0.
        calibration_error: expected calibration error, 15 bins.
        chance: "uniform" is 1 / K, "majority" the fraction of the split's most frequent class.
        per_class: one entry for every class, in the classifier's order.
    """

    images: int
    failed: int = 0
    not_finite: int = 0
    classes: int = 0
    classes_present: int = 0
    top1: float | None = None
    top5: float | None = None
    loss: float | None = None
    macro: Averages = Averages()
    weighted: Averages = Averages()
    calibration_error: float | None = None
    chance: Mapping[str, float | None] = field(default_factory=dict)
    per_class: Sequence[ClassMetrics] = ()

    @property
    def macro_f1(self) -> float | None:
        """F1 averaged over classes."""
        return self.macro.f1

    def as_json(self) -> dict[str, Any]:
        """Return the form that `summary.json` has."""
        return {
            **{name: getattr(self, name) for name in _PLAIN_METRICS},
            "macro": asdict(self.macro),
            "weighted": asdict(self.weighted),
            "calibration_error": self.calibration_error,
            "chance": dict(self.chance),
            "per_class": [row.as_json() for row in self.per_class],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> SplitMetrics:
        """Undo `as_json`; other keys are ignored."""
        return SplitMetrics(**split_metrics_arguments(document))


_PLAIN_METRICS = ("images", "failed", "not_finite", "classes", "classes_present", "top1", "top5", "loss")


def split_metrics_arguments(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `SplitMetrics` from its JSON form."""
    found = {name: document[name] for name in (*_PLAIN_METRICS, "calibration_error", "chance") if name in document}
    averages = {name: Averages(**document[name]) for name in ("macro", "weighted") if name in document}
    per_class = tuple(ClassMetrics.from_json(row) for row in document.get("per_class", ()))
    return {**found, **averages, "per_class": per_class}


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """`summary.json` of a run.

    Attributes:
        run: name of the run folder.
        classes: K, the number of classes.
        chance: 1 / K.
        dataset: the dataset: name, folder or file, fingerprint.
        data: identity of its classes and images, see `fgvc_cli.data.identity`; None in runs of older versions.
        splits: number of images and origin by split.
        components: name, distribution, version and options by kind.
        recipe: name of the recipe.
        weights: what the weights were initialized from, and why.
        epochs: number of epochs trained; 0 for a run created from a weights file.
        best_epoch: epoch whose weights are saved, from 1; 0 if the initial weights are better than those of all epochs.
        stopped_early: whether early stopping ended the training.
        train, val: metrics of the best epoch; if an average of epochs is saved, `val` is of that.
        test: metrics of the saved weights on the test split; None without one.
        average: the average of the last epochs; None without `train.average_epochs`.
        start: validation metrics of the initial weights, with `train.head_init=probe`; else None.
        parameters: number of parameters of "backbone", "head" and "total".
        seconds: training time.
        images_per_second: median throughput of the epochs.
        unreadable: why an image could not be read, by split and key.
        device, processes, precision, seed: of the training.
        versions: of the packages that a result may depend on.
    """

    run: str
    classes: int
    chance: float
    dataset: Mapping[str, Any]
    splits: Mapping[str, Mapping[str, Any]]
    components: Mapping[str, Any]
    recipe: str | None
    weights: str
    epochs: int
    best_epoch: int
    stopped_early: bool
    train: TrainMetrics | None
    val: ValMetrics | None
    test: SplitMetrics | None
    parameters: Mapping[str, int]
    seconds: float
    images_per_second: float | None
    unreadable: Mapping[str, str]
    device: str
    processes: int
    precision: str
    seed: int
    versions: Mapping[str, str]
    data: Mapping[str, Any] | None = None
    average: EpochAverage | None = None
    start: ValMetrics | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the form that `summary.json` has."""
        document = copy.deepcopy({name: getattr(self, name) for name in self.__dataclass_fields__})
        for name in _NESTED:
            if document[name] is not None:
                document[name] = document[name].as_json()
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TrainingSummary:
        """Undo `as_json`; unknown keys are ignored.

        Raises:
            KeyError, TypeError, AttributeError: something is missing or has another type.
        """
        optional = {"data", "average", "start"} - document.keys()  # runs of older versions
        known = {name: document[name] for name in cls.__dataclass_fields__ if name not in optional}
        for name, metrics in _NESTED.items():
            if known.get(name) is not None:
                known[name] = metrics.from_json(known[name])
        return cls(**known)


_NESTED: Mapping[str, Any] = {
    "train": TrainMetrics,
    "val": ValMetrics,
    "test": SplitMetrics,
    "average": EpochAverage,
    "start": ValMetrics,
}


def _given(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
