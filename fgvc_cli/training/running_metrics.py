"""Training metrics of an epoch, accumulated on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fgvc_cli.runs.results import TrainMetrics
from fgvc_cli.training.distributed import Ranks
from fgvc_cli.training.update import Step


class RunningMetrics:
    """What an epoch's images were like so far: augmented, in training mode, before each update.

    "objective" is what was minimized, summed over a head's objectives; "objective.<name>" is one of several, and
    "objective.<part>" (or "objective.<name>.<part>") a named part. "loss"
    (the cross entropy of the scores, which compares with validation's), "top1" and "top5" are of the first objective
    that has scores.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.images = 0
        self.sums: dict[str, Tensor] = {}

    def add(self, steps: Sequence[Step], labels: Sequence[Tensor]) -> None:
        """Add an update: its step for each objective, and the class indices B of each micro-batch."""
        self.images += sum(len(b) for b in labels)
        for step in steps:
            within = f"objective.{step.name}" if step.name else "objective"
            for loss, batch in zip(step.losses, labels, strict=True):
                value = loss.value.detach() * len(batch)
                for name in {"objective", within}:
                    self._sum(name, value)
                for name, part in loss.parts.items():
                    self._sum(f"{within}.{name}", part.detach() * len(batch))
        scored = next((s for s in steps if s.losses[0].scores is not None), None)
        for loss, batch in zip(scored.losses if scored else (), labels, strict=False):
            if loss.scores is not None:
                self._score(loss.scores.detach().float(), batch)

    def over_all(self, ranks: Ranks) -> RunningMetrics:
        """Return the metrics of all processes together; waits for the device and for them."""
        if ranks.count == 1:
            return self
        total = RunningMetrics(self.device)
        for images, sums in ranks.gathered((self.images, {name: value.cpu() for name, value in self.sums.items()})):
            total.images += images
            for name, value in sums.items():
                total._sum(name, value.to(self.device))
        return total

    def means(self) -> dict[str, float]:
        """Return the means by name, "top5" only with more than 5 classes; waits for the device."""
        names = sorted(self.sums)
        values = torch.stack([self.sums[name] for name in names]).tolist() if names else []
        return {name: value / max(1, self.images) for name, value in zip(names, values, strict=True)}

    def summary(self) -> TrainMetrics:
        """Return the means as they are recorded; waits for the device."""
        return TrainMetrics.from_json({**self.means(), "images": self.images})

    def state(self) -> dict[str, Any]:
        """Return what `load` needs to go on."""
        return {"images": self.images, "sums": dict(self.sums)}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.images = state["images"]
        self.sums = {name: value.to(self.device) for name, value in state["sums"].items()}

    def _score(self, scores: Tensor, labels: Tensor) -> None:
        self._sum("loss", F.cross_entropy(scores, labels, reduction="sum"))
        deep = min(5, scores.shape[1])
        hits = scores.topk(deep, dim=1).indices == labels[:, None]
        self._sum("top1", hits[:, 0].sum())
        if scores.shape[1] > 5:
            self._sum("top5", hits.sum())

    def _sum(self, name: str, value: Tensor) -> None:
        value = value.double() if self.device.type != "mps" else value.float()
        self.sums[name] = self.sums[name] + value if name in self.sums else value
