"""Training in several processes, with torchrun and DistributedDataParallel."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from fgvc_cli.contracts import Loss, Model, Objective
from fgvc_cli.data.order import Shard
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.launch import Launch, launched, report_from_here

Value = TypeVar("Value")

TIMEOUT = timedelta(hours=12)
"""How long a process waits for another: longer than any download, dataset generation or scoring by the first process. A
process that dies is noticed at once, by its closed connection."""

LAST_TURN = 2

FAILED = "fgvc/failed"
"""Key in the store of torchrun: the number of processes that failed."""

LOST = ("Connection closed by peer", "Connection reset", "Broken pipe", "Connection refused", "NCCL", "gloo")
"""Fragments of torch's messages when another process has exited."""


@dataclass(frozen=True)
class Ranks:
    """Rank of this process, and communication with the others.

    Attributes:
        launch: ranks and numbers of processes.
    """

    launch: Launch = field(default_factory=Launch)

    @property
    def rank(self) -> int:
        """Rank of this process, from 0."""
        return self.launch.rank

    @property
    def count(self) -> int:
        """Number of processes."""
        return self.launch.count

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        """The part of each epoch that this process trains on."""
        return Shard(self.rank, self.count)

    def device(self, device: torch.device) -> torch.device:
        """Return the device of this process: on GPUs, the one of its local rank.

        Raises:
            UsageError: one device was given for all, or the machine has too few.
        """
        if self.count == 1 or device.type == "cpu":
            return device
        if device.type != "cuda" or device.index is not None:
            raise UsageError(
                f"`device={device}`: {self.launch.local_count} processes cannot share one device; use `device=cuda` "
                "(one GPU each) or `device=cpu`"
            )
        gpus = torch.cuda.device_count()
        if self.launch.local_rank >= gpus:
            raise UsageError(
                f"torchrun started {self.launch.local_count} processes on a machine with {gpus} "
                f"{'GPU' if gpus == 1 else 'GPUs'}; start {gpus} per machine, or use `device=cpu`"
            )
        own = torch.device("cuda", self.launch.local_rank)
        torch.cuda.set_device(own)
        return own

    def maximum(self, value: int) -> int:
        """Return the maximum over the processes."""
        if self.count == 1:
            return value
        found = torch.tensor(value)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def all_true(self, yes: bool) -> bool:
        """Return whether all processes pass True."""
        return self.maximum(int(not yes)) == 0

    def barrier(self) -> None:
        """Wait for all processes (a barrier)."""
        self.maximum(0)

    def broadcast(self, make: Callable[[], Value]) -> Value:
        """Return the result of the first process; the others wait for it."""
        if self.count == 1:
            return make()
        objects: list[Any] = [make() if self.first else None]
        dist.broadcast_object_list(objects, src=0)
        made: Value = objects[0]
        return made

    def all_gather(self, value: Value) -> list[Value]:
        """Return the values of all processes by rank; tensors in them must be on the CPU."""
        if self.count == 1:
            return [value]
        objects: list[Any] = [None] * self.count
        dist.all_gather_object(objects, value)
        return objects

    @contextmanager
    def first_process_first(self) -> Iterator[None]:
        """Run the block in the first process alone, then in the first of every other machine, then in all others.

        The later ones find what was created: a cache, a generated dataset.
        """
        turn = 0 if self.first else 1 if self.launch.local_rank == 0 else LAST_TURN
        for _ in range(turn):
            self.barrier()
        yield
        for _ in range(LAST_TURN - turn):
            self.barrier()

    def reduce_found_inf(self, found_inf: Tensor) -> Tensor:
        """Return the maximum over the processes of a scalar on the device, without waiting for the device."""
        if self.count > 1:
            dist.all_reduce(found_inf, dist.ReduceOp.MAX)
        return found_inf

    @torch.no_grad()
    def average_buffers(self, groups: Sequence[list[Tensor]]) -> None:
        """Average buffers in place: batch-norm statistics, which each process computes from its own images.

        In double precision, so that equal values do not change; integer buffers are equal anyway.
        """
        for group in groups if self.count > 1 else ():
            if group[0].is_floating_point():
                flat = torch.cat([buffer.flatten() for buffer in group]).double()
                dist.all_reduce(flat)
                parts = (flat / self.count).split([buffer.numel() for buffer in group])
                torch._foreach_copy_(group, [p.view_as(b) for p, b in zip(parts, group, strict=True)])

    @torch.no_grad()
    def broadcast_buffers(self, groups: Sequence[list[Tensor]]) -> None:
        """Copy the buffers of the first process to all."""
        if self.count > 1:
            of_first = self.broadcast(lambda: [[buffer.detach().cpu() for buffer in group] for group in groups])
            for group, values in zip(groups, of_first, strict=True):
                torch._foreach_copy_(group, [value.to(group[0].device) for value in values])


SINGLE_PROCESS = Ranks()


@contextmanager
def process_group() -> Iterator[Ranks]:
    """Join the processes that torchrun started while the block runs; without torchrun, return `SINGLE_PROCESS`.

    If processes fail, the first one raises its error. The others, which fail because of it, exit silently.

    Raises:
        FgvcError: another process exited unexpectedly, or the processes cannot connect.
    """
    launch = launched()
    if launch.count == 1:
        yield SINGLE_PROCESS
        return
    store = _join()
    ranks = Ranks(launch)
    try:
        yield ranks
        ranks.barrier()
    except Exception as error:
        _on_signals(signal.SIG_IGN)  # torchrun stops all processes when one exits; the one that reports must finish
        if not _is_first_to_fail(store, ranks):
            _on_signals(signal.SIG_DFL)
            raise SystemExit(getattr(error, "exit_code", 1)) from None
        report_from_here()
        if isinstance(error, RuntimeError) and any(word in str(error) for word in LOST):
            raise FgvcError(
                "Another process of the training exited unexpectedly: it was killed, most likely because memory ran "
                "out, or its machine cannot be reached"
            ) from error
        raise
    dist.destroy_process_group()


def _join() -> Store:
    """Connect to the other processes: gloo for tensors on the CPU, nccl for those on GPUs."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        store, rank, count = next(rendezvous("env://", timeout=TIMEOUT))
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise FgvcError(f"The processes cannot connect at {address}: {str(error).splitlines()[0]}") from error
    return store


def _is_first_to_fail(store: Store, ranks: Ranks) -> bool:
    try:
        return int(store.add(FAILED, 1)) == 1
    except RuntimeError:  # torchrun has exited, and its store with it
        return ranks.first


def _on_signals(action: signal.Handlers) -> None:
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, action)


class Evaluator:
    """Evaluates objectives of a model; in several processes, averages the gradients.

    `DistributedDataParallel` wraps not the model but the model with its loss (`_Objectives`), so that it can find the
    parameters that the loss does not reach. Buffers are left to `Ranks.average_buffers`.

    By default, any objective may leave any parameter without a gradient, and torch searches the graph for them.
    `skip_unused_search` stops that for a head with a single objective that reaches all parameters.

    Args:
        model: backbone and head as one module.
        ranks: the processes.
        buffers: of the model, by type.
        forward: computes the head's output with the parameters of the model.
    """

    def __init__(self, model: nn.Module, ranks: Ranks, buffers: Sequence[list[Tensor]], forward: Model) -> None:
        self.model, self.ranks, self.forward = model, ranks, forward
        ranks.broadcast_buffers(buffers)
        self.wrap()

    def __call__(self, objective: Objective) -> tuple[Tensor, Any, Loss]:
        """Return the loss value for the backward pass, the output of the head, and the loss with its parts."""
        value, result = self._wrapped(objective)
        return value, result.output, result.loss

    def reduced(self, reduce: bool) -> AbstractContextManager[object]:
        """Return a context for a forward and backward pass: whether that averages the gradients."""
        if reduce or not isinstance(self._wrapped, DistributedDataParallel):
            return nullcontext()
        context: AbstractContextManager[object] = self._wrapped.no_sync()
        return context

    def wrap(self, partial: bool = True) -> None:
        """Wrap the model for the parameters that train now.

        Args:
            partial: whether an objective may leave some of them without a gradient.
        """
        self.partial = partial
        several = self.ranks.count > 1
        # This drops the old wrapper with its hooks.
        self._wrapped: nn.Module = _Objectives(self.model, self.forward, spare=partial and several)
        if several:
            self._wrapped = DistributedDataParallel(self._wrapped, find_unused_parameters=partial)

    def skip_unused_search(self, whole: bool) -> None:
        """Stop searching for unused parameters if the update had one objective that reached all of them.

        All processes agree: a parameter has no gradient if no process has one for it.
        """
        if whole and self.partial and self.ranks.count > 1:
            self.wrap(partial=False)


class _Objectives(nn.Module):
    """Module from an objective to its loss, for torch's wrapper.

    It exposes the parameters and hides the buffers. `spare` adds a parameter that is never reached: without one, torch
    warns that its search for unused parameters is useless whenever an objective reaches all of them.
    """

    def __init__(self, model: nn.Module, forward: Model, spare: bool) -> None:
        super().__init__()
        self._forward = (forward,)  # in a tuple: not a submodule
        self.shown = nn.ParameterList(model.parameters())
        if spare:
            device = next(model.parameters()).device
            self.spare = nn.Parameter(torch.zeros(1, device=device))

    def forward(self, objective: Objective) -> tuple[Tensor, _Result]:
        """Return the scalar to minimize, and the rest in an object that the search for parameters does not enter."""
        output = self._forward[0](objective.images, objective.part)
        loss = objective.loss(output)
        return loss.value, _Result(output, loss)


class _Result:
    """Output and loss of an evaluation; not a dataclass, because the search enters those."""

    def __init__(self, output: Any, loss: Loss) -> None:
        self.output, self.loss = output, loss
