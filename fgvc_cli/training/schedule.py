"""Learning-rate schedules, as a factor of the optimizer's own rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fgvc_cli.config.train_options import TrainOptions


@dataclass(frozen=True)
class Schedule:
    """The factor at each update of a training of `epochs` epochs with `updates` updates each."""

    options: TrainOptions
    updates: int

    @property
    def warmup(self) -> int:
        """Updates in which the rate rises."""
        return self.options.warmup_steps or round(self.options.warmup_epochs * self.updates)

    def notes(self) -> list[str]:
        """Return lines a person should know before training."""
        total = self.options.epochs * self.updates
        if self.warmup < total or not total:
            return []
        return [f"the warm-up takes {self.warmup} updates and the training {total}: the rate never falls"]

    def factor(self, update: int) -> float:
        """Return what the rates are multiplied by at an update, counted from 0 over the whole training."""
        options, warmup = self.options, self.warmup
        if update < warmup:
            return (update + 1) / warmup
        if options.schedule_unit == "epoch":
            update = max(warmup, update // self.updates * self.updates)
        if options.schedule == "constant":
            return 1.0
        if options.schedule == "step":
            return float(options.step_factor ** (update // self.updates // options.step_epochs))
        total = options.epochs * self.updates
        span = total if options.cosine_over == "all" else total - warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (update - warmup) / max(1, span))))
