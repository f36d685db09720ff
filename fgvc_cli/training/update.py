"""One update: the objectives of a head, minimized by an optimizer.

The head yields objectives, the optimizer decides how often each is evaluated, and `ObjectiveClosure` evaluates them. It
handles everything that matters when a closure is evaluated twice: autocast is entered for each evaluation (around both,
its weight cache would give the second pass the old weights), dropout draws the same numbers, and batch-norm statistics
stay as the first pass left them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgvc_cli.contracts import Evaluation, Head, Loss, Model, Objective, Optimizer
from fgvc_cli.enforcement import attributed_to, violation
from fgvc_cli.runs.results import TrainMetrics
from fgvc_cli.training.distributed import SINGLE_PROCESS, Evaluator, Ranks

MicroBatch = tuple[Tensor, Tensor]
"""Images B,3,S,S (normalized) and targets (B class indices, or B,K probabilities)."""


@dataclass(frozen=True)
class Step:
    """Result of an optimizer step, without the outputs, which may be large.

    Attributes:
        name: of the objective.
        losses: of its first evaluation, one per micro-batch.
        found_inf: scalar on the device: 1.0 if it was not finite (and the step was skipped), else 0.0.
    """

    name: str
    losses: list[Loss]
    found_inf: Tensor


@dataclass
class Update:
    """Minimizes a head's objectives on a batch.

    Attributes:
        model: backbone and head as one module (compiled or not).
        head: yields the objectives.
        optimizer: minimizes them.
        autocast: returns the context for a forward pass.
        clip_norm: maximum norm of the gradient; 0: no clipping.
        ranks: the processes that share the update, each with its own batches.
        forward: what computes the head's output; None: the model.
    """

    model: nn.Module
    head: Head
    optimizer: Optimizer
    autocast: Callable[[], AbstractContextManager[object]]
    clip_norm: float = 0.0
    ranks: Ranks = SINGLE_PROCESS
    forward: Model | None = None
    parameters: list[nn.Parameter] = field(init=False)
    buffers: list[list[Tensor]] = field(init=False)
    evaluate: Evaluator = field(init=False)
    _moved: set[nn.Parameter] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.buffers = _by_type(b for b in self.model.buffers() if b.numel())
        self.evaluate = Evaluator(self.model, self.ranks, self.buffers, self.forward or self.model)

    def take_parameters(self) -> None:
        """Take the parameters that train now, after some were frozen or unfrozen."""
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.evaluate.wrap()

    def __call__(self, batches: Sequence[MicroBatch]) -> list[Step]:
        """Minimize the objectives of the head one by one, each in one optimizer step over all micro-batches."""
        generators = [self.head.objectives(images, targets) for images, targets in batches]
        objectives = [self._first(generator) for generator in generators]
        done = []
        while objectives:
            closure = ObjectiveClosure(self, objectives)
            evaluation = self.optimizer.step(closure)
            done.append(Step(objectives[0].name, evaluation.losses, closure.found_inf))
            objectives = self._following(generators, [detached(output) for output in evaluation.outputs])
            del evaluation  # free the feature maps, which may be large
        self.evaluate.skip_unused_search(whole=len(done) == 1 and closure.reached_all)
        return done

    def _first(self, generator: Iterator[Objective]) -> Objective:
        objective = next(generator, None)
        if objective is None:
            raise violation(self.head, "objectives()", "at least one objective", "none")
        return objective

    def _following(self, generators: Sequence[Any], outputs: Sequence[Any]) -> list[Objective]:
        """Send the output of each micro-batch to its generator, and return the next objectives, if any."""
        following = []
        for generator, output in zip(generators, outputs, strict=True):
            try:
                following.append(generator.send(output))
            except StopIteration:
                continue
        if following and len(following) < len(generators):
            expected = "as many objectives for each micro-batch of an update"
            raise violation(self.head, "objectives()", expected, "different numbers")
        return following

    @property
    def moved(self) -> list[str]:
        """Names of the parameters that have had a gradient, which get zeros if an objective asks for that."""
        return [name for name, parameter in self.model.named_parameters() if parameter in self._moved]

    @moved.setter
    def moved(self, names: Iterable[str]) -> None:
        parameters = dict(self.model.named_parameters())
        self._moved = {parameters[name] for name in names}


class ObjectiveClosure:
    """Evaluates one objective over its micro-batches and leaves the gradient in the parameters."""

    def __init__(self, update: Update, objectives: Sequence[Objective]) -> None:
        self.update, self.objectives = update, objectives
        images = sum(len(objective.images) for objective in objectives)
        self.shares = [len(objective.images) / images for objective in objectives]
        self.found_inf = torch.zeros((), device=objectives[0].images.device)
        self.reached_all = False
        self._draws: list[Tensor] | None = None
        self._statistics: list[list[Tensor]] | None = None

    def __call__(self) -> Evaluation:
        """Evaluate for the update: the gradient is averaged over the processes and clipped.

        Parameters without a gradient get zeros if the objective asks for that.
        """
        evaluation = self._evaluate(reduce=True)
        reached = [parameter for parameter in self.update.parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in reached if p.grad is not None])
        if self.update.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(reached, self.update.clip_norm, norm)
        self._fill_missing_grads(reached)  # last: zeros change neither norm nor clipping
        self._gate(norm, evaluation)
        return evaluation

    def ascent(self) -> Evaluation:
        """Evaluate for the ascent step of SAM: the gradient of this process, not averaged and not clipped."""
        return self._evaluate(reduce=False)

    def _evaluate(self, reduce: bool) -> Evaluation:
        with _Replay(self):
            for parameter in self.update.parameters:
                parameter.grad = None
            outputs, losses = [], []
            for objective, share in zip(self.objectives, self.shares, strict=True):
                last = objective is self.objectives[-1]  # its backward pass averages the accumulated gradient
                with self.update.evaluate.reduced(reduce and last):
                    with self.update.autocast():
                        value, output, loss = self.update.evaluate(objective)
                    with attributed_to(self.update.head, "the backward pass of its loss"):
                        (value * share if len(self.objectives) > 1 else value).backward()
                outputs.append(output)
                losses.append(loss)
        return Evaluation(outputs, losses)

    def _fill_missing_grads(self, reached: Sequence[nn.Parameter]) -> None:
        """Give zeros to parameters without a gradient that once had one, if the objective asks for that."""
        update = self.update
        self.reached_all = len(reached) == len(update.parameters)
        if self.objectives[0].missing_grad == "zero" and update.optimizer.moves_without_grad:
            _give_zeros([p for p in update.parameters if p.grad is None and p in update._moved])
        update._moved.update(reached)

    def _gate(self, norm: Tensor, evaluation: Evaluation) -> None:
        finite = torch.isfinite(norm)
        for loss in evaluation.losses:
            finite = finite & torch.isfinite(loss.value.detach())
        self.found_inf = self.update.ranks.reduce_found_inf(1.0 - finite.float())


class _Replay:
    """Context of an evaluation: a repeated one draws the same random numbers and restores the buffers."""

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
        """Copy with one kernel launch per dtype: a network has a hundred buffers or more."""
        for from_group, to_group in zip(source, target, strict=True):
            torch._foreach_copy_(to_group, from_group)


def _give_zeros(parameters: Sequence[nn.Parameter]) -> None:
    """Set gradients to zero with one kernel launch: a head may leave a hundred parameters without a gradient."""
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    if parameters:
        torch._foreach_zero_([p.grad for p in parameters if p.grad is not None])


def _by_type(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Group tensors by dtype, for multi-tensor operations."""
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())


def random_state(device: torch.device) -> list[Tensor]:
    """Return the states of torch's random generators of the CPU and of a device."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def set_random_state(device: torch.device, states: Sequence[Tensor]) -> None:
    """Restore the states that `random_state` returned."""
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)


def detached(output: Any) -> Any:
    """Return the output of a head with its tensors detached; tuples, lists and dicts keep their structure."""
    if isinstance(output, Tensor):
        return output.detach()
    if isinstance(output, dict):
        return {key: detached(value) for key, value in output.items()}
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(detached(value) for value in output))
    if isinstance(output, tuple | list):
        return type(output)(detached(value) for value in output)
    return output


class RunningMetrics:
    """Training metrics of an epoch, summed on the device; see `TrainMetrics` for their names."""

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
        """Return the metrics over all processes; waits for them and for the device."""
        if ranks.count == 1:
            return self
        total = RunningMetrics(self.device)
        for images, sums in ranks.all_gather((self.images, {name: value.cpu() for name, value in self.sums.items()})):
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
        """Return the state for `load`."""
        return {"images": self.images, "sums": dict(self.sums)}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
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
