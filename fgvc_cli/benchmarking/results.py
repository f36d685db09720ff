"""Results of a benchmark and their JSON form."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from fgvc_cli.errors import FgvcError

T = TypeVar("T")

FORMAT = 2
"""Version of the JSON document; incremented for incompatible changes."""
RENAMED = {
    "multiply_adds": "macs",
    "multiply_adds_per_second": "macs_per_second",
    "occlusion": "sliding_window",
    "over_arithmetic": "time_vs_mac_bound",
}
"""Keys of format 1 by their present names."""


@dataclass(frozen=True)
class Timing:
    """Time of one measured operation.

    Attributes:
        median: milliseconds.
        low, high: lower and upper quartile, milliseconds.
        rounds: number of timed rounds.
        warm_up: seconds of warm-up before them, compilation and kernel selection included.
        waited: fraction of the rounds' time in which the thread was not running, because the CPU was busy with other
            work; None: unknown.
    """

    median: float
    low: float
    high: float
    rounds: int
    warm_up: float = 0.0
    waited: float | None = None


@dataclass(frozen=True)
class Work:
    """Measurement of one operation on a batch: an update, a prediction, an explanation.

    Attributes:
        timing: of the whole batch.
        images: in the batch.
        macs: multiply-accumulate operations (MACs) per image, forward and backward, of matrix products, convolutions
            and attention; None: not counted.
        peak_memory: largest number of bytes in tensors at one time, weights included; None: not measured.
        matrix_share: MACs per second as a fraction of the device's rate for large matrix products; None: unknown.
        ratio: throughput relative to the same operation of the baseline on this backbone; None: no baseline.
        time_vs_mac_bound: time divided by the time that the MACs would take at the baseline's MACs per second; None:
            no baseline.
    """

    timing: Timing
    images: int
    macs: int | None = None
    peak_memory: int | None = None
    matrix_share: float | None = None
    ratio: float | None = None
    time_vs_mac_bound: float | None = None

    @property
    def images_per_second(self) -> float:
        """Throughput at the median time."""
        return 1000 * self.images / self.timing.median

    def compared_with(self, baseline: Work) -> Work:
        """Return a copy with `ratio` and `time_vs_mac_bound` relative to the same operation of a baseline."""
        ratio = self.images_per_second / baseline.images_per_second
        bound = baseline.macs / self.macs / ratio if self.macs and baseline.macs else None
        return replace(self, ratio=ratio, time_vs_mac_bound=bound)


@dataclass(frozen=True)
class Row:
    """Measurements of one combination.

    Attributes:
        backbone, head, optimizer: names.
        optimizer_title: with its base optimizer: "sam over sgd".
        image_size: side length in pixels.
        batch_size: images in a batch.
        baseline: whether the other rows of its backbone are compared with this one.
        parameters: number of parameters by part ("backbone", "head").
        update: a training update: all objectives of the head, all passes of the optimizer.
        predict: a prediction, with all scores that the head averages.
        explain: saliency maps, by explainer.
        epoch: an epoch over real images, loading and augmentation included.
        bf16: the update in bf16, where `precision=auto` decides by its time (CPUs with bf16 units).
        failed: the reason, in one line, if something could not be measured; everything measured before is kept.
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
    bf16: Work | None = None
    failed: str | None = None

    @property
    def title(self) -> str:
        """The combination with its base optimizer: "swin_t + pim + sam over sgd"."""
        return f"{self.backbone} + {self.head} + {self.optimizer_title}"

    @property
    def identity(self) -> dict[str, Any]:
        """Names and sizes, which identify the row in a report."""
        names = {"backbone": self.backbone, "head": self.head, "optimizer": self.optimizer_title}
        return {**names, "image_size": self.image_size, "batch_size": self.batch_size}

    @property
    def bf16_vs_fp32(self) -> float | None:
        """Time of the update in bf16, relative to fp32."""
        if self.bf16 is None or self.update is None:
            return None
        return self.bf16.timing.median / self.update.timing.median

    @property
    def works(self) -> dict[str, Work]:
        """What was measured, by name: "update", "predict", "epoch", then the explainers."""
        works = {"update": self.update, "predict": self.predict, "epoch": self.epoch, **self.explain}
        return {name: work for name, work in works.items() if work is not None}

    def compared_with(self, baseline: Row) -> Row:
        """Return a copy whose measurements are compared with those of a baseline, where that has the same."""
        found = baseline.works
        works = {name: work.compared_with(found[name]) for name, work in self.works.items() if name in found}
        explain = {name: works.get(name, work) for name, work in self.explain.items()}
        others = {name: work for name, work in works.items() if name not in explain}
        return replace(self, explain=explain, **others)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Feed:
    """Throughput of the input pipeline in one case, without a model.

    Attributes:
        name: "no cache", "first epoch" (which fills the cache) or "later epochs" (which read from it).
        images_per_second: loaded, augmented, normalized and on the device, in whole batches.
        images: number of images read.
        note: where the time goes, and what was left out.
    """

    name: str
    images_per_second: float
    images: int
    note: str = ""


@dataclass(frozen=True)
class Report:
    """Results of one `fgvc bench`.

    Attributes:
        machine: "device", "device_name", "threads", "cores", "torch", "torchvision", "timm", "python", "fgvc", "cuda",
            "date"; "macs_per_second", the measured rate of large matrix products.
        settings: "image_size", "batch_size", "precision", "channels_last", "compile", "classes", "recipe", "set", ...
        rows: in the order of measurement.
        feeds: of the input pipeline.
        interrupted: whether it ended before all rows were measured.
    """

    machine: Mapping[str, Any]
    settings: Mapping[str, Any]
    rows: tuple[Row, ...] = ()
    feeds: tuple[Feed, ...] = ()
    interrupted: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document; each measurement also has its `images_per_second`."""
        document = {"format": FORMAT, **asdict(self)}
        for row, found in zip(document["rows"], self.rows, strict=True):
            for name, work in found.works.items():
                place = row["explain"] if name in found.explain else row
                place[name]["images_per_second"] = round(work.images_per_second, 3)
        return document


def report_from_json(document: Any, where: str) -> Report:
    """Read a report from its JSON document, of this format or format 1; `where` names the file in messages.

    Raises:
        FgvcError: the document is damaged, or is not a report of a known format.
    """
    if not isinstance(document, dict) or "rows" not in document or "machine" not in document:
        raise FgvcError(f"{where} is not a benchmark: choose a bench.json written by fgvc bench")
    version = document.get("format")
    if version not in (1, FORMAT):
        raise FgvcError(f"{where} has format {version}; this fgvc reads 1 to {FORMAT}: use the fgvc that wrote it")
    document = _renamed(document) if version == 1 else document
    try:
        machine, settings = dict(document["machine"]), dict(document["settings"])
        _check("macs_per_second", machine.get("macs_per_second"), float | None)
        _check("explainers", settings.get("explainers", {}), Mapping[str, Mapping[str, Any]])
        rows = tuple(_row(row) for row in document["rows"])
        feeds = tuple(_feed(feed) for feed in document["feeds"])
        return Report(machine, settings, rows, feeds, bool(document["interrupted"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FgvcError(f"{where} is damaged: {type(error).__name__} {error}. Measure again.") from error


def _renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {RENAMED.get(key, key): _renamed(item) for key, item in value.items()}
    return [_renamed(item) for item in value] if isinstance(value, list) else value


def _feed(document: Mapping[str, Any]) -> Feed:
    feed = _typed(Feed, document)
    if feed.images_per_second <= 0:
        raise ValueError(f"images_per_second is {feed.images_per_second}")
    return feed


def _row(document: Mapping[str, Any]) -> Row:
    explain = {name: _work(work) for name, work in document["explain"].items()}
    works = {name: _work(document[name]) for name in ("update", "predict", "epoch")}
    works["bf16"] = _work(document.get("bf16"))  # which earlier versions did not measure
    return _typed(Row, {**document, **works, "explain": explain})


def _work(document: Mapping[str, Any] | None) -> Any:
    if document is None:
        return None
    plain = {name: value for name, value in document.items() if name != "images_per_second"}
    work = _typed(Work, {**plain, "timing": _typed(Timing, document["timing"])})
    if work.images < 1 or work.timing.median <= 0:
        raise ValueError(f"{work.images} images in {work.timing.median} ms")
    return work


def _typed(record: type[T], values: Mapping[str, Any]) -> T:
    """Make a dataclass from values by field name.

    Raises:
        TypeError: a value does not have its field's type, a field without a default is missing, or there is no such
            field.
    """
    hints = typing.get_type_hints(record)
    for name, value in values.items():
        if name in hints:
            _check(f"{record.__name__}.{name}", value, hints[name])
    return record(**values)


def _check(name: str, value: object, hint: Any) -> None:
    if not _fits(value, hint):
        raise TypeError(f"{name} is {value!r:.40}")


def _fits(value: object, hint: Any) -> bool:
    """Return whether a value has a type: int, float (finite; or an int), a class, a union or mapping of these."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, member) for member in arguments)
    if origin is Mapping:
        key, item = arguments
        return isinstance(value, Mapping) and all(_fits(k, key) and _fits(v, item) for k, v in value.items())
    if hint in (int, float):
        number = isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
        return number and math.isfinite(typing.cast(float, value))
    return hint is Any or isinstance(value, hint)
