"""The state of a training: everything needed to resume bit for bit, in one file."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from fgvc_cli.contracts import Classifier, Optimizer
from fgvc_cli.data.identity import DataIdentity
from fgvc_cli.devices import Precision
from fgvc_cli.errors import FgvcError, Terminated
from fgvc_cli.runs import model_file
from fgvc_cli.runs.folder import Run
from fgvc_cli.runs.model_file import load_state
from fgvc_cli.runs.results import ValMetrics
from fgvc_cli.training.averaging import WeightAverage
from fgvc_cli.training.distributed import Ranks
from fgvc_cli.training.update import Update, random_state, set_random_state


class Interrupted(FgvcError):  # noqa: N818, an interruption is not an error
    """Training was interrupted by a signal; its state is saved.

    Attributes:
        run: the run folder, from which to resume.
        signal: number of the signal.
    """

    def __init__(self, message: str, run: Path, signal: int) -> None:
        super().__init__(message)
        self.run, self.signal, self.exit_code = run, signal, 128 + signal


class Interrupt:
    """Whether a signal was received.

    Attributes:
        number: of the signal, or 0.
    """

    number = 0

    def __bool__(self) -> bool:
        return self.number != 0

    def check(self, doing: str, run: Path) -> None:
        """Raise `Interrupted` if a signal was received; `doing` is what it interrupts."""
        if self:
            raise Interrupted(f"Interrupted while {doing}", run, self.number)


_in_launcher = False


def expect_repeated_sigterm() -> None:
    """Let this process, which a launcher started, ignore every SIGTERM but the first while it trains."""
    global _in_launcher
    _in_launcher = True


@contextmanager
def catch_signals() -> Iterator[Interrupt]:
    """Record SIGINT and SIGTERM while the block runs instead of exiting.

    A second signal raises `Terminated`, and a third has its default effect.

    In a process of a launcher, a second SIGTERM has no effect: several of those that stop it may send one.

    Outside the main thread, signals cannot be handled and keep their effect.
    """
    interrupt = Interrupt()

    def receive(number: int, _: FrameType | None) -> None:
        if interrupt and number == signal.SIGTERM and _in_launcher:
            return
        if interrupt:
            sys.unraisablehook = lambda _: None  # it may be raised in a finalizer, which would print a traceback
            for each in before:
                signal.signal(each, signal.SIG_DFL)
            raise Terminated(number)
        interrupt.number = number

    try:
        before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        yield interrupt
        return
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


FORMAT = 1


@dataclass
class Best:
    """The best epoch so far on validation data, or the last one without any; epoch -1 is the start, if scored."""

    epoch: int = -1
    top1: float = -1.0
    loss: float = float("inf")

    @classmethod
    def of(cls, epoch: int, val: ValMetrics | None) -> Best:
        """Return the result of an epoch (from 0) with its validation metrics."""
        if val is None:
            return cls(epoch)
        return cls(epoch, val.top1, float("inf") if val.loss is None else val.loss)

    def better_than(self, other: Best) -> bool:
        """Return whether this, which is later, is to be kept; without validation data always."""
        return self.top1 < 0 or (self.top1, -self.loss) > (other.top1, -other.loss)


@dataclass
class Progress:
    """Progress of a training.

    Attributes:
        epoch: number of finished epochs.
        batch: number of finished batches in the next one.
        best: the epoch whose weights are in `model.safetensors`.
        patience_best: epoch and validation top-1 of the last improvement that counts for early stopping.
        seconds: training time so far.
        unreadable: why an image could not be read, by split and key ("train/robin/1.jpg").
        metrics: of the unfinished epoch, as `RunningMetrics.state` returns them; empty between epochs.
        weights: one line on what the weights were initialized from, and why.
        teacher: SHA-256 of the teacher's model file; "" without one.
        data: identity of the data, as JSON; see `fgvc_cli.data.identity`.
        start: validation metrics of the initial weights, as JSON; empty if they were not scored.
        processes: number of processes that saved the state; not part of it.
        precision: that it is trained in; "" in states of earlier versions.
    """

    epoch: int = 0
    batch: int = 0
    best: Best = field(default_factory=Best)
    patience_best: tuple[int, float] = (-1, -1.0)
    seconds: float = 0.0
    unreadable: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    weights: str = ""
    teacher: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)
    processes: int = 1
    precision: str = ""

    def note_unreadable(self, split: str, reasons: Mapping[str, str]) -> None:
        """Add unreadable images of a split; another split may have the same keys."""
        self.unreadable.update({f"{split}/{key}": reason for key, reason in reasons.items()})


def save_state(
    path: Path,
    classifier: Classifier,
    optimizer: Optimizer,
    update: Update,
    progress: Progress,
    averages: Mapping[str, WeightAverage] | None = None,
) -> None:
    """Write the state atomically.

    Every process calls this; the first writes the shared state and what is specific to each process.
    """
    of_all = update.ranks.all_gather(_process_state(classifier, update, progress))
    if update.ranks.first:
        _write(path, classifier, optimizer, update, progress, averages or {}, of_all[1:])
    update.ranks.barrier()


def _process_state(classifier: Classifier, update: Update, progress: Progress) -> dict[str, Any]:
    """Return the state that is specific to this process, on the CPU; within an epoch this includes its buffers."""
    if update.ranks.first:
        return {}
    metrics = dict(progress.metrics)
    if metrics:
        metrics["sums"] = {name: value.cpu() for name, value in metrics["sums"].items()}
    buffers = [buffer.cpu() for group in update.buffers for buffer in group] if progress.batch else []
    return {"random": random_state(classifier.device), "metrics": metrics, "buffers": buffers}


def _write(
    path: Path,
    classifier: Classifier,
    optimizer: Optimizer,
    update: Update,
    progress: Progress,
    averages: Mapping[str, WeightAverage],
    others: Sequence[dict[str, Any]],
) -> None:
    found: dict[str, Tensor] = {f"model.{name}": value for name, value in classifier.state_dict().items()}
    best = asdict(progress.best)
    best["loss"] = best["loss"] if best["loss"] < float("inf") else None
    document = {
        "format": FORMAT,
        "optimizer": model_file.pack(optimizer.state_dict(), found, "optimizer"),
        "random": model_file.pack(random_state(classifier.device), found, "random"),
        "metrics": model_file.pack(progress.metrics, found, "metrics"),
        "others": model_file.pack(others, found, "others"),
        "moved": update.moved,
        "averages": {name: model_file.pack(a.state(), found, f"average.{name}") for name, a in averages.items()},
        "progress": {**{k: v for k, v in asdict(progress).items() if k not in ("metrics", "processes")}, "best": best},
    }
    model_file.save(path, found, document)


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    """Turn the errors that a state of other types and keys causes into an `FgvcError` that names the file."""
    try:
        yield
    except FgvcError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise FgvcError(f"{path} is damaged ({type(error).__name__}: {error}); restore it, or train again") from error


def saved_weights(path: Path) -> str:
    """Return the line in a saved state on what the weights were initialized from.

    Raises:
        FgvcError: the file is damaged.
    """
    with _damage_reported(path):
        return str(model_file.load_document(path)["progress"]["weights"])


def recorded_precision(run: Run) -> Precision | None:
    """Return the precision that a run has been trained in so far; None without a state that says so.

    Raises:
        FgvcError: the file is damaged.
    """
    if not run.state_file.is_file():
        return None
    with _damage_reported(run.state_file):
        found = model_file.load_document(run.state_file)["progress"].get("precision")
    return found if found in ("fp32", "bf16") else None


def recorded_data(run: Run) -> DataIdentity | None:
    """Return the identity of the data that a run was trained on; None if nothing recorded it.

    Raises:
        FgvcError: the state or the model file is damaged.
    """
    if run.state_file.is_file():
        with _damage_reported(run.state_file):
            progress = model_file.load_document(run.state_file)["progress"]
            if progress.get("data"):
                return DataIdentity.recorded(progress)
    return DataIdentity.recorded(model_file.read_metadata(run.model_file)) if run.model_file.is_file() else None


def load_state_file(
    path: Path,
    classifier: Classifier,
    optimizer: Optimizer,
    update: Update,
    averages: Mapping[str, WeightAverage] | None = None,
) -> Progress:
    """Load a saved state into a classifier, its optimizer and torch's generators, and return its progress.

    Raises:
        FgvcError: the file is damaged or does not match.
    """
    with _damage_reported(path):
        return _load_state(path, classifier, optimizer, update, averages or {})


def _load_state(
    path: Path, classifier: Classifier, optimizer: Optimizer, update: Update, averages: Mapping[str, WeightAverage]
) -> Progress:
    found, document = model_file.load(path)
    if document.get("format") != FORMAT:
        raise FgvcError(f"{path} was written by another version of fgvc: resume with that version")
    others = model_file.unpack(document.get("others", {"list": []}), found)
    model = {name.removeprefix("model."): value for name, value in found.items() if name.startswith("model.")}
    load_state(classifier, model, path)
    optimizer.load_state_dict(model_file.unpack(document["optimizer"], found))
    for name, average in averages.items():
        average.load(model_file.unpack(document["averages"][name], found))
    own = _load_process_state(document, found, others, update)
    if own["random"]:
        set_random_state(classifier.device, [s.to(torch.uint8) for s in own["random"]])
    update.moved = document["moved"]
    values = document["progress"]
    best = Best(
        **{**values["best"], "loss": float("inf") if values["best"]["loss"] is None else values["best"]["loss"]}
    )
    epoch, top1 = values["patience_best"]
    restored = {"best": best, "patience_best": (epoch, top1), "metrics": own["metrics"], "processes": 1 + len(others)}
    return Progress(**{**values, **restored})


def _load_process_state(
    document: Mapping[str, Any], found: Mapping[str, Tensor], others: Sequence[dict[str, Any]], update: Update
) -> dict[str, Any]:
    """Return the state specific to this process, and load its buffers.

    If the number of processes changed, none has a state: the first takes the metrics of all and the others none, and
    buffers are averaged over the former processes, as after an epoch.
    """
    if 1 + len(others) != update.ranks.count:
        first = {name: model_file.unpack(document[name], found) for name in ("random", "metrics")}
        _average_buffers(update.buffers, [each["buffers"] for each in others if each["buffers"]])
        return {
            "random": [],
            "metrics": _total([first["metrics"], *(each["metrics"] for each in others)], update.ranks),
        }
    if update.ranks.first:
        return {name: model_file.unpack(document[name], found) for name in ("random", "metrics")}
    own = others[update.ranks.rank - 1]
    buffers = [buffer for group in update.buffers for buffer in group]
    for buffer, value in zip(buffers, own["buffers"], strict=bool(own["buffers"])):
        buffer.copy_(value)
    return own


@torch.no_grad()
def _average_buffers(groups: Sequence[list[Tensor]], others: Sequence[Sequence[Tensor]]) -> None:
    """Average buffers with those of other processes; integer buffers are equal anyway."""
    for index, buffer in enumerate(buffer for group in groups for buffer in group):
        if buffer.is_floating_point() and others:
            values = [buffer.cpu().double(), *(other[index].double() for other in others)]
            buffer.copy_(torch.stack(values).mean(0))


def _total(metrics: Sequence[dict[str, Any]], ranks: Ranks) -> dict[str, Any]:
    """Return the sum of the unfinished metrics of all processes in the first one, and metrics of nothing in others."""
    known = [each for each in metrics if each]
    if not known:
        return {}
    if not ranks.first:
        return {"images": 0, "sums": {}}
    names = dict.fromkeys(name for each in known for name in each["sums"])
    sums = {name: sum(each["sums"][name] for each in known if name in each["sums"]) for name in names}
    return {"images": sum(each["images"] for each in known), "sums": sums}
