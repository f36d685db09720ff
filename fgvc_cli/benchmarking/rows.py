"""Measure one combination after the other; a failure is recorded and the rest go on."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from fgvc_cli.benchmarking.combinations import BenchRequest, Combination, Plan
from fgvc_cli.benchmarking.measuring import (
    Subject,
    fitting_batch,
    free_memory,
    measure_explainer,
    measure_prediction,
    measure_update,
    same_subject,
)
from fgvc_cli.benchmarking.results import Row, Work
from fgvc_cli.benchmarking.timing import Meter, beside
from fgvc_cli.config.run_config import RunConfig
from fgvc_cli.devices import is_compile_error, is_out_of_memory
from fgvc_cli.errors import FgvcError, cause_of
from fgvc_cli.formatting import bytes_text

ASKED = re.compile(r"tried to allocate ([\d.]+) ?(bytes|[KMGT]i?B)", re.IGNORECASE)
"""In torch's message when memory runs out."""

TERMINATED = 128 + signal.SIGTERM
"""The exit code that `SystemExit` has where SIGTERM asks for an end."""


def let_through(error: BaseException) -> None:
    """Raise what asks the program to end; what a component raised by itself (`sys.exit()` too) is a reason."""
    if isinstance(error, SystemExit) and error.code == TERMINATED:
        raise error


def reason(error: BaseException, batch_size: int, image_size: int) -> str:
    """Say in one line what went wrong.

    Args:
        error: what was raised.
        batch_size, image_size: of what was measured, for what to do when memory ran out.
    """
    if isinstance(error, FgvcError):
        return " ".join(str(error).split())
    if is_out_of_memory(error):
        asked = _asked(error)
        return (
            f"out of memory with batches of {batch_size} images of {image_size} px{asked} (try a smaller --batch-size)"
        )
    if is_compile_error(error):
        return f"--compile failed: {cause_of(error)}"
    return cause_of(error)


def _asked(error: BaseException) -> str:
    """Return how much memory was asked for when there was too little, if torch says so."""
    found = ASKED.search(str(error))
    if found is None:
        return ""
    amount = bytes_text(float(found[1])) if found[2].lower() == "bytes" else f"{found[1]} {found[2]}"
    return f": {amount} more were asked for"


@dataclass
class _Classifier:
    """A backbone and a head in the making, and what is measured of them whatever the optimizer.

    Attributes:
        config: that it was built for first.
        refused: why it cannot be built.
        measured: whether predictions and explanations were.
        predict, explain: of which this came out.
        failed: why others did not.
    """

    config: RunConfig
    refused: str | None = None
    measured: bool = False
    predict: Work | None = None
    explain: dict[str, Work] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


class RowMaker:
    """Measures combinations one after the other; neighbors that share backbone and head share the classifier.

    Args:
        request: what to measure of each.
        plan: what it came to.
        meter: measures.
        images: the dataset and its splits, for epochs.
    """

    def __init__(self, request: BenchRequest, plan: Plan, meter: Meter, images: Any = None) -> None:
        self.request, self.plan, self.meter, self.images = request, plan, meter, images
        self._subject: Subject | None = None
        self._of: _Classifier | None = None
        self._baseline: Row | None = None

    def make(self, combination: Combination) -> Row:
        """Measure a combination; whatever goes wrong is a reason in its row."""
        config = combination.config
        row = Row(
            combination.backbone,
            combination.head,
            combination.optimizer,
            combination.optimizer if config is None else config.optimizer.title,
            0 if config is None else config.train.image_size,
            0 if config is None else config.train.batch_size,
            combination.baseline,
        )
        if config is None:
            return replace(row, failed=combination.failed)
        if self._baseline is not None and self._baseline.backbone != row.backbone:
            self._baseline = None
        row = self._measured(row, config)
        if row.baseline:
            self._baseline = row
        return self._compared(row)

    def _measured(self, row: Row, config: RunConfig) -> Row:
        failed: list[str] = []
        of = self._of_classifier(config)
        if of.refused is None and self._subject is None:
            of.refused = self._build(config)
        if self._subject is None:
            return replace(row, failed=of.refused)
        row = replace(row, parameters=self._subject.parameters)
        row = self._with_update(row, config, failed)
        if not of.measured:
            self._measure_classifier(of, row)
        row = replace(row, predict=of.predict, explain=dict(of.explain))
        failed += of.failed
        if self.request.epoch:
            row = self._with_epoch(row, config, failed)
        return replace(row, failed="; ".join(dict.fromkeys(failed)) or None)

    def _of_classifier(self, config: RunConfig) -> _Classifier:
        """Return what is known of the classifier of a configuration; one that does not serve any more is dropped."""
        if self._of is None or not same_subject(self._of.config, config):
            self._drop()
            self._of = _Classifier(config)
        return self._of

    def _build(self, config: RunConfig) -> str | None:
        """Build the classifier; return why, if that cannot be."""
        try:
            self._subject = Subject(config, self.request.classes, self.plan.device)
        except (Exception, SystemExit) as error:
            let_through(error)
            refused = reason(error, config.train.batch_size, config.train.image_size)
        else:
            return None
        self._drop()
        return refused

    def _drop(self) -> None:
        """Let go of the classifier and all that was compiled for it."""
        if self._subject is not None and self._subject.config.train.compile:
            torch._dynamo.reset()
        self._subject = None
        free_memory(self.plan.device)

    def _with_update(self, row: Row, config: RunConfig, failed: list[str]) -> Row:
        subject = self._subject
        assert subject is not None
        if self.plan.largest:
            found = self._tried(lambda: fitting_batch(subject, config), row, "", failed)
            if found is None:
                return replace(row, batch_size=0)
            row = replace(row, batch_size=found)
        update = self._tried(lambda: measure_update(subject, config, row.batch_size, self.meter), row, "", failed)
        return replace(row, update=update)

    def _measure_classifier(self, of: _Classifier, row: Row) -> None:
        """Measure what does not depend on the optimizer, in batches as the row has them."""
        subject, images = self._subject, row.batch_size
        assert subject is not None
        if not images:
            return
        of.measured = True
        of.predict = self._tried(lambda: measure_prediction(subject, images, self.meter), row, "predict: ", of.failed)
        for explainer in self.plan.explainers:
            explain = partial(measure_explainer, subject, explainer, images, self.meter)
            work = self._tried(explain, row, f"{explainer.name}: ", of.failed)
            if work is not None:
                of.explain[explainer.name] = work

    def _with_epoch(self, row: Row, config: RunConfig, failed: list[str]) -> Row:
        """Measure an epoch; it builds a classifier of its own, so that there must be room for it."""
        from fgvc_cli.benchmarking.dry_run import measure_epoch

        self._drop()
        if not row.batch_size:
            return row
        its = config.with_train(batch_size=row.batch_size)
        epoch = self._tried(lambda: measure_epoch(its, self.plan.seconds, self.images), row, "epoch: ", failed)
        return replace(row, epoch=epoch)

    def _tried(self, measure: Callable[[], Any], row: Row, what: str, failed: list[str]) -> Any:
        """Return what is measured, or None and the reason among `failed`."""
        try:
            return measure()
        except (Exception, SystemExit) as error:
            let_through(error)
            failed.append(what + reason(error, row.batch_size, row.image_size))
        free_memory(self.plan.device)  # by now nothing holds on to what failed
        return None

    def _compared(self, row: Row) -> Row:
        """Set a row beside its backbone's baseline."""
        baseline = self._baseline
        if baseline is None:
            return row
        return replace(
            row,
            update=beside(row.update, baseline.update),
            predict=beside(row.predict, baseline.predict),
            explain={name: beside(work, baseline.explain.get(name)) for name, work in row.explain.items()},
            epoch=beside(row.epoch, baseline.epoch),
        )
