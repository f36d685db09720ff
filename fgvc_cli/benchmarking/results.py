"""Results of a benchmark as typed records, and their JSON form."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from fgvc_cli.errors import FgvcError

T = TypeVar("T")


def typed(record: type[T], values: Mapping[str, Any]) -> T:
    """Make a dataclass from values by field, after a look at their types.

    A number is finite, and an int will do for a float. Mappings are looked into.

    Raises:
        TypeError: a value is not of its field's type, a field without a default is missing, or there is no such field.
    """
    hints = typing.get_type_hints(record)
    for name, value in values.items():
        if name in hints and not fits(value, hints[name]):
            raise TypeError(f"{record.__name__}.{name} is {value!r:.40}")
    return record(**values)


def fits(value: object, hint: Any) -> bool:
    """Say whether a value is of a type: int, float, str, bool, a class, a union of them, or a mapping of these."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, member) for member in arguments)
    if origin is Mapping:
        key, item = arguments
        return isinstance(value, Mapping) and all(fits(k, key) and fits(v, item) for k, v in value.items())
    if hint in (int, float):
        number = isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
        return number and math.isfinite(typing.cast(float, value))
    return hint is Any or isinstance(value, hint)


FORMAT = 1
"""Of the JSON document; grows when an older program could not read it."""


@dataclass(frozen=True)
class Timing:
    """How long one piece of work takes.

    Attributes:
        median: milliseconds.
        low, high: the quartiles, milliseconds; half of the rounds lie between them.
        rounds: how often it was timed.
        warm_up: seconds that went before: compiling, choosing kernels.
        waited: share of the rounds' time in which a CPU had other work; None: not known.
    """

    median: float
    low: float
    high: float
    rounds: int
    warm_up: float = 0.0
    waited: float | None = None


@dataclass(frozen=True)
class Work:
    """One piece of work on a batch, measured: an update, a prediction, an explanation.

    Attributes:
        timing: of the whole batch.
        images: in the batch.
        multiply_adds: of an image, forward and backward, matrix products and convolutions alone; None: not counted.
        peak_memory: bytes that tensors take at the worst moment, weights included; None: not measured.
        matrix_share: share of the rate at which the device multiplies large matrices; None: not counted.
        ratio: images a second beside those of the same work of the baseline on the same backbone; None: no baseline.
        over_arithmetic: time beside what its multiply-adds would take at the rate of the baseline's; None: the same.
    """

    timing: Timing
    images: int
    multiply_adds: int | None = None
    peak_memory: int | None = None
    matrix_share: float | None = None
    ratio: float | None = None
    over_arithmetic: float | None = None

    @property
    def images_per_second(self) -> float:
        """Images a second, by the median."""
        return 1000 * self.images / self.timing.median


@dataclass(frozen=True)
class Row:
    """One combination.

    Attributes:
        backbone, head, optimizer: names, as a person types them.
        optimizer_title: with what it is built over: "sam over sgd".
        image_size: side of the images, pixels.
        batch_size: images in a batch.
        baseline: whether others on its backbone are compared with it.
        parameters: their numbers, by part ("backbone", "head").
        update: a whole training update: all of the head's objectives, all of the optimizer's passes.
        predict: a prediction, with all scores that the head averages.
        explain: heat maps, by the explainer's name.
        epoch: an epoch over real images, loading and augmentation included.
        failed: the reason in one line, if it could not be measured; what was measured before stays.
    """

    backbone: str
    head: str
    optimizer: str
    optimizer_title: str
    image_size: int
    batch_size: int
    baseline: bool = False
    parameters: Mapping[str, int] = field(default_factory=dict)
    update: Work | None = None
    predict: Work | None = None
    explain: Mapping[str, Work] = field(default_factory=dict)
    epoch: Work | None = None
    failed: str | None = None

    @property
    def name(self) -> str:
        """The combination in one word."""
        return f"{self.backbone} + {self.head} + {self.optimizer}"


@dataclass(frozen=True)
class Feed:
    """One way in which images come to the model, measured without a model.

    Attributes:
        name: "first epoch" (every image decoded), "later epochs" (from the cache), ...
        images_per_second: whole batches on the device, augmented and normalized.
        images: how many were read.
        note: anything a person should know of it.
    """

    name: str
    images_per_second: float
    images: int
    note: str = ""


@dataclass(frozen=True)
class Report:
    """A whole benchmark.

    Attributes:
        machine: what it ran on: "device", "device_name", "threads", "cores", "torch", "torchvision", "timm", "python",
            "fgvc", "cuda", "date"; and "multiply_adds_per_second", the measured rate of large matrix products.
        settings: what was asked for: "precision", "channels_last", "compile", "classes", "recipe", "set", ...
        rows: in the order in which they were measured.
        feeds: of the input pipeline.
        interrupted: whether a person ended it before all rows were measured.
    """

    machine: Mapping[str, Any]
    settings: Mapping[str, Any]
    rows: tuple[Row, ...] = ()
    feeds: tuple[Feed, ...] = ()
    interrupted: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document; `images_per_second` stands in it beside every timing."""
        document = {"format": FORMAT, **asdict(self)}
        for row, found in zip(document["rows"], self.rows, strict=True):
            for name in ("update", "predict", "epoch"):
                _add_rate(row[name], getattr(found, name))
            for name, work in found.explain.items():
                _add_rate(row["explain"][name], work)
        return document


def report_from_json(document: Any, where: str) -> Report:
    """Return the report that a JSON document holds.

    Args:
        document: as `Report.as_json` made it.
        where: names the file in an error.

    Raises:
        FgvcError: it is no such document, or one of a newer program.
    """
    if not isinstance(document, dict) or "rows" not in document or "machine" not in document:
        raise FgvcError(f"{where} is no result of fgvc bench: name a bench.json that it wrote.")
    if document.get("format") != FORMAT:
        raise FgvcError(
            f"{where} has format {document.get('format')}, and this fgvc reads {FORMAT}: use the fgvc that wrote it."
        )
    try:
        return Report(
            machine=_machine(document["machine"]),
            settings=_settings(document["settings"]),
            rows=tuple(_row(row) for row in document["rows"]),
            feeds=tuple(_feed(feed) for feed in document["feeds"]),
            interrupted=bool(document["interrupted"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FgvcError(f"{where} is damaged: {type(error).__name__} {error}. Measure again.") from error


def _machine(document: Any) -> dict[str, Any]:
    rate = "multiply_adds_per_second"
    if not fits(document.get(rate), float | None):
        raise TypeError(f"{rate} is {document[rate]!r:.40}")
    return dict(document)


def _settings(document: Any) -> dict[str, Any]:
    if not fits(document.get("explainers", {}), Mapping[str, Mapping[str, Any]]):
        raise TypeError(f"explainers is {document['explainers']!r:.40}")
    return dict(document)


def _feed(document: Mapping[str, Any]) -> Feed:
    feed = typed(Feed, document)
    if feed.images_per_second <= 0:
        raise ValueError(f"images_per_second is {feed.images_per_second}")
    return feed


def _row(document: Mapping[str, Any]) -> Row:
    explain = {name: _work(work) for name, work in document["explain"].items()}
    works = {name: _work(document[name]) for name in ("update", "predict", "epoch")}
    return typed(Row, {**document, **works, "explain": explain})


def _work(document: Mapping[str, Any] | None) -> Any:
    if document is None:
        return None
    plain = {name: value for name, value in document.items() if name != "images_per_second"}
    work = typed(Work, {**plain, "timing": typed(Timing, document["timing"])})
    if work.images < 1 or work.timing.median <= 0:
        raise ValueError(f"{work.images} images in {work.timing.median} ms")
    return work


def _add_rate(document: dict[str, Any] | None, work: Work | None) -> None:
    if document is not None and work is not None:
        document["images_per_second"] = round(work.images_per_second, 3)
