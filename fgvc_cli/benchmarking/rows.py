"""Measure combinations one by one; a failure is recorded in its row and does not stop the others."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from fgvc_cli.benchmarking.combinations import BenchRequest, Combination, Plan
from fgvc_cli.benchmarking.measuring import (
    RandomClassifier,
    fitting_batch,
    free_memory,
    measure_bf16,
    measure_explainer,
    measure_prediction,
    measure_update,
    same_classifier,
)
from fgvc_cli.benchmarking.results import Row, Work
from fgvc_cli.benchmarking.timing import Meter
from fgvc_cli.config.run_config import RunConfig
from fgvc_cli.devices import is_compile_error, is_out_of_memory
from fgvc_cli.errors import STOPS, FgvcError, cause_of
from fgvc_cli.formatting import bytes_text

REQUESTED = re.compile(r"tried to allocate ([\d.]+) ?(bytes|[KMGT]i?B)", re.IGNORECASE)
"""The size of a failed allocation in torch's message."""


def reason(error: BaseException, batch_size: int, image_size: int) -> str:
    """Describe in one line why a combination could not be measured at a batch size and image size."""
    if not isinstance(error, FgvcError) and is_out_of_memory(error):
        text = f"out of memory with batches of {batch_size} images of {image_size} px"
        if found := REQUESTED.search(str(error)):
            size = bytes_text(float(found[1])) if found[2].lower() == "bytes" else f"{found[1]} {found[2]}"
            text += f", allocating {size} more"
        return f"{text} (try a smaller `batch_size`)"
    return f"`compile` failed: {cause_of(error)}" if is_compile_error(error) else cause_of(error)


@dataclass
class _Shared:
    """Results that combinations share if only their optimizers differ, and why some of them failed."""

    config: RunConfig
    refused: list[str] = field(default_factory=list)
    measured: bool = False
    predict: Work | None = None
    explain: dict[str, Work] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


class RowMaker:
    """Measures combinations; consecutive ones with the same backbone and head share the classifier."""

    def __init__(self, request: BenchRequest, plan: Plan, meter: Meter, images: Any = None) -> None:
        self.request, self.plan, self.meter, self.images = request, plan, meter, images
        self._classifier: RandomClassifier | None = None
        self._shared: _Shared | None = None
        self._baseline: Row | None = None

    def make(self, combination: Combination) -> Row:
        """Measure a combination; whatever fails is described in the row."""
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
        row = self._measure(row, config)
        if row.baseline:
            self._baseline = row
        if self._baseline is None or self._baseline.backbone != row.backbone:
            return row
        return row.compared_with(self._baseline)

    def _measure(self, row: Row, config: RunConfig) -> Row:
        if self._shared is None or not same_classifier(self._shared.config, config):
            self._drop_classifier()
            self._shared = _Shared(config)
        shared = self._shared
        if self._classifier is None and not shared.refused:
            build = partial(RandomClassifier, config, self.request.classes, self.plan.device)
            self._classifier = self._attempt(build, row, "", shared.refused)
        if self._classifier is None:
            return replace(row, failed="; ".join(shared.refused))
        failed: list[str] = []
        row = self._with_works(row, config, self._classifier, shared, failed)
        if self.request.epoch:
            self._drop_classifier()  # an epoch builds its own, which needs the memory
            row = self._with_epoch(row, config, failed)
        return replace(row, failed="; ".join(dict.fromkeys(failed)) or None)

    def _with_works(
        self, row: Row, config: RunConfig, classifier: RandomClassifier, shared: _Shared, failed: list[str]
    ) -> Row:
        """Measure an update, and what does not depend on the optimizer unless it is measured already."""
        row = replace(row, parameters=classifier.parameters)
        if self.plan.largest_batch:
            found = self._attempt(lambda: fitting_batch(classifier, config), row, "", failed)
            row = replace(row, batch_size=found or 0)
        images = row.batch_size
        if images:
            update = partial(measure_update, classifier, config, images, self.meter)
            row = replace(row, update=self._attempt(update, row, "", failed))
        if row.update:
            in_bf16 = partial(measure_bf16, classifier, config, images, self.meter)
            row = replace(row, bf16=self._attempt(in_bf16, row, "bf16: ", failed))
        if images and not shared.measured:
            shared.measured = True
            predict = partial(measure_prediction, classifier, images, self.meter)
            shared.predict = self._attempt(predict, row, "predict: ", shared.failed)
            for explainer in self.plan.explainers:
                explain = partial(measure_explainer, classifier, explainer, images, self.meter)
                if work := self._attempt(explain, row, f"{explainer.name}: ", shared.failed):
                    shared.explain[explainer.name] = work
        failed += shared.failed
        return replace(row, predict=shared.predict, explain=dict(shared.explain))

    def _with_epoch(self, row: Row, config: RunConfig, failed: list[str]) -> Row:
        from fgvc_cli.benchmarking.dry_run import measure_epoch

        if not row.batch_size:
            return row
        config = config.with_train(batch_size=row.batch_size)
        epoch = partial(measure_epoch, config, self.plan.seconds, self.images)
        return replace(row, epoch=self._attempt(epoch, row, "epoch: ", failed))

    def _attempt(self, measure: Callable[[], Any], row: Row, prefix: str, failed: list[str]) -> Any:
        """Return a measurement, or None after adding the reason to `failed`; SIGTERM is re-raised."""
        try:
            return measure()
        except STOPS:
            raise
        except (Exception, SystemExit) as error:  # a component may call sys.exit()
            failed.append(prefix + reason(error, row.batch_size, row.image_size))
        free_memory(self.plan.device)  # after the traceback, which refers to tensors, was freed
        return None

    def _drop_classifier(self) -> None:
        """Free the classifier and everything compiled for it."""
        if self._classifier is not None and self._classifier.config.train.compile:
            torch._dynamo.reset()
        self._classifier = None
        free_memory(self.plan.device)
