"""One update: where a head's objectives meet an optimizer.

The head yields objectives, the optimizer decides how often each is evaluated, and `ObjectiveClosure` is what an
evaluation is. It holds every trap of evaluating twice in one place: autocast is entered anew each time (around both,
its weight cache would hand the second pass the old weights), dropout draws the same numbers, and batch-norm
statistics stay as the first pass left them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgvc_cli.contracts import Evaluation, Head, Loss, Objective, Optimizer
from fgvc_cli.runs.results import TrainMetrics
from fgvc_cli.training.distributed import ALONE, Evaluator, Ranks

MicroBatch = tuple[Tensor, Tensor]
"""Images B,3,S,S (normalized) and targets (B class indices, or B,K probabilities)."""


@dataclass(frozen=True)
class Step:
    """What an optimizer step leaves to be measured; the outputs, which may be large, are not kept.

    Attributes:
        name: the objective's.
        losses: of its first evaluation, one a micro-batch.
        found_inf: scalar on the device: 1.0 if it was not finite (and nothing moved), else 0.0.
    """

    name: str
    losses: list[Loss]
    found_inf: Tensor


@dataclass
class Update:
    """Minimizes a head's objectives on a batch.

    Attributes:
        model: backbone and head as one module (compiled or not).
        head: says what to minimize.
        optimizer: minimizes it.
        autocast: makes the context of a forward pass.
        clip_norm: largest norm of the gradient; 0: not clipped.
        ranks: the processes that make the update together, each on batches of its own.
    """

    model: nn.Module
    head: Head
    optimizer: Optimizer
    autocast: Callable[[], AbstractContextManager[object]]
    clip_norm: float = 0.0
    ranks: Ranks = ALONE
    parameters: list[nn.Parameter] = field(init=False)
    buffers: list[list[Tensor]] = field(init=False)
    evaluate: Evaluator = field(init=False)
    _moved: set[nn.Parameter] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.buffers = _by_type(b for b in self.model.buffers() if b.numel())
        self.evaluate = Evaluator(self.model, self.ranks, self.buffers)

    def __call__(self, batches: Sequence[MicroBatch]) -> list[Step]:
        """Go through the head's objectives; each is one optimizer step over all micro-batches."""
        generators = [self.head.objectives(images, targets) for images, targets in batches]
        objectives = [self._first(generator) for generator in generators]
        done = []
        while objectives:
            closure = ObjectiveClosure(self, objectives)
            evaluation = self.optimizer.step(closure)
            done.append(Step(objectives[0].name, evaluation.losses, closure.found_inf))
            objectives = _advance(generators, [detached(output) for output in evaluation.outputs])
            del evaluation  # maps may be large: the head has taken what it wants of them
        self.evaluate.settle(whole=len(done) == 1 and closure.reached_all)
        return done

    def _first(self, generator: Iterator[Objective]) -> Objective:
        objective = next(generator, None)
        if objective is None:
            raise RuntimeError(f"{type(self.head).__name__} yielded no objective: there is nothing to minimize")
        return objective

    @property
    def moved(self) -> list[str]:
        """Names of the parameters that have had a gradient: those that coast."""
        return [name for name, parameter in self.model.named_parameters() if parameter in self._moved]

    @moved.setter
    def moved(self, names: Iterable[str]) -> None:
        parameters = dict(self.model.named_parameters())
        self._moved = {parameters[name] for name in names}


class ObjectiveClosure:
    """Evaluates one objective (over its micro-batches) and leaves its gradient in the parameters."""

    def __init__(self, update: Update, objectives: Sequence[Objective]) -> None:
        self.update, self.objectives = update, objectives
        images = sum(len(objective.images) for objective in objectives)
        self.shares = [len(objective.images) / images for objective in objectives]
        self.found_inf = torch.zeros((), device=objectives[0].images.device)
        self.reached_all = False
        self._draws: list[Tensor] | None = None
        self._statistics: list[list[Tensor]] | None = None

    def __call__(self) -> Evaluation:
        """Evaluate for the update.

        The gradient is averaged over the processes and clipped; idle parameters coast if the objective says so.
        """
        evaluation = self._evaluate(reduce=True)
        reached = [parameter for parameter in self.update.parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in reached if p.grad is not None])
        if self.update.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(reached, self.update.clip_norm, norm)
        self._settle_idle(reached)  # last: zeros need neither a norm nor clipping
        self._gate(norm, evaluation)
        return evaluation

    def ascent(self) -> Evaluation:
        """Evaluate for a look around: the plain gradient, this process's own."""
        return self._evaluate(reduce=False)

    def _evaluate(self, reduce: bool) -> Evaluation:
        with _Replay(self):
            for parameter in self.update.parameters:
                parameter.grad = None
            outputs, losses = [], []
            for objective, share in zip(self.objectives, self.shares, strict=True):
                last = objective is self.objectives[-1]  # whose backward pass averages what all have added up
                with self.update.evaluate.reduced(reduce and last):
                    value, output, loss = self._forward(objective)
                    (value * share if len(self.objectives) > 1 else value).backward()
                outputs.append(output)
                losses.append(loss)
        return Evaluation(outputs, losses)

    def _forward(self, objective: Objective) -> tuple[Tensor, Any, Loss]:
        with self.update.autocast():
            return self.update.evaluate(objective)

    def _settle_idle(self, reached: Sequence[nn.Parameter]) -> None:
        """Where the objective lets them coast, give zeros to parameters without a gradient that once had one."""
        update = self.update
        self.reached_all = len(reached) == len(update.parameters)
        if self.objectives[0].missing_grad == "zero" and update.optimizer.moves_without_grad:
            _give_zeros([p for p in update.parameters if p.grad is None and p in update._moved])
        update._moved.update(reached)

    def _gate(self, norm: Tensor, evaluation: Evaluation) -> None:
        finite = torch.isfinite(norm)
        for loss in evaluation.losses:
            finite = finite & torch.isfinite(loss.value.detach())
        self.found_inf = self.update.ranks.worst(1.0 - finite.float())


class _Replay:
    """Around an evaluation: a later one draws the numbers of the first and leaves the buffers as the first did."""

    def __init__(self, closure: ObjectiveClosure) -> None:
        self.closure = closure
        self.device = closure.found_inf.device
        self.buffers = closure.update.buffers

    def __enter__(self) -> None:
        if self.closure._draws is None:
            self.closure._draws = random_state(self.device)
            return
        set_random_state(self.device, self.closure._draws)
        self.closure._statistics = [[torch.empty_like(buffer) for buffer in group] for group in self.buffers]
        self._copy(self.buffers, self.closure._statistics)

    def __exit__(self, *_: object) -> None:
        if self.closure._statistics is not None:
            self._copy(self.closure._statistics, self.buffers)
            self.closure._statistics = None

    @staticmethod
    @torch.no_grad()
    def _copy(source: Sequence[list[Tensor]], target: Sequence[list[Tensor]]) -> None:
        """Copy in one launch for many: a network has a hundred buffers and more."""
        for from_group, to_group in zip(source, target, strict=True):
            torch._foreach_copy_(to_group, from_group)


def _give_zeros(parameters: Sequence[nn.Parameter]) -> None:
    """Give parameters a gradient of 0, filled in a launch or two: a head may leave a hundred of them idle."""
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    if parameters:
        torch._foreach_zero_([p.grad for p in parameters if p.grad is not None])


def _by_type(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Group tensors by their type, as multi-tensor operations want them."""
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())


def random_state(device: torch.device) -> list[Tensor]:
    """Return the states of torch's generators that draw on the CPU and on a device."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def set_random_state(device: torch.device, states: Sequence[Tensor]) -> None:
    """Set the generators to states that `random_state` returned."""
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)


def detached(output: Any) -> Any:
    """Return a head's output with its tensors cut from the graph; tuples, lists and dicts keep their form."""
    if isinstance(output, Tensor):
        return output.detach()
    if isinstance(output, dict):
        return {key: detached(value) for key, value in output.items()}
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(detached(value) for value in output))
    if isinstance(output, tuple | list):
        return type(output)(detached(value) for value in output)
    return output


def _advance(generators: Sequence[Any], outputs: Sequence[Any]) -> list[Objective]:
    """Send each micro-batch's output to its generator; return the next objectives, or nothing at the end."""
    following = []
    for generator, output in zip(generators, outputs, strict=True):
        try:
            following.append(generator.send(output))
        except StopIteration:
            continue
    if following and len(following) < len(generators):
        raise RuntimeError("a head yielded different numbers of objectives for the micro-batches of one update")
    return following


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
