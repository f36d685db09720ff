"""Training on several devices: torchrun and DistributedDataParallel."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
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

from fgvc_cli.contracts import Loss, Objective
from fgvc_cli.data.order import Shard
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.launch import Launch, launched, report_from_here

Value = TypeVar("Value")

PATIENCE = timedelta(hours=12)
"""How long a process waits for another: longer than any drawing, download or scoring of the first process. One that
dies is noticed at once, by its closed connection."""

LAST_TURN = 2

FAILED = "fgvc/failed"
"""Counts, in the store that torchrun keeps for the processes, how many of them have failed."""

LOST = ("Connection closed by peer", "Connection reset", "Broken pipe", "Connection refused", "NCCL", "gloo")
"""What torch says, among much else, when another process is gone."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the training.

    Attributes:
        launch: which of how many it is.
    """

    launch: Launch = field(default_factory=Launch)

    @property
    def rank(self) -> int:
        """Which process this is, from 0."""
        return self.launch.rank

    @property
    def count(self) -> int:
        """How many there are."""
        return self.launch.count

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        """Which part of each epoch is this process's."""
        return Shard(self.rank, self.count)

    def device(self, device: torch.device) -> torch.device:
        """Return the device of this process: on GPUs, the one of its number on its machine.

        Raises:
            UsageError: one device was named for all, or the machine has too few.
        """
        if self.count == 1 or device.type == "cpu":
            return device
        if device.type != "cuda" or device.index is not None:
            raise UsageError(
                f"--device {device}: {self.launch.local_count} processes cannot share one device. Use --device cuda "
                "(each takes a GPU of its own) or --device cpu."
            )
        gpus = torch.cuda.device_count()
        if self.launch.local_rank >= gpus:
            raise UsageError(
                f"torchrun started {self.launch.local_count} processes on a machine with {gpus} "
                f"{'GPU' if gpus == 1 else 'GPUs'}: use --nproc-per-node {gpus}, or --device cpu."
            )
        own = torch.device("cuda", self.launch.local_rank)
        torch.cuda.set_device(own)
        return own

    def greatest(self, value: int) -> int:
        """Return the greatest value that any process gives."""
        if self.count == 1:
            return value
        told = torch.tensor(value)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return int(told)

    def agree(self, yes: bool) -> bool:
        """Say whether all processes say yes."""
        return self.greatest(int(not yes)) == 0

    def wait(self) -> None:
        """Wait until every process is here."""
        self.greatest(0)

    def from_first(self, make: Callable[[], Value]) -> Value:
        """Return what the first process makes; the others wait for it."""
        if self.count == 1:
            return make()
        held: list[Any] = [make() if self.first else None]
        dist.broadcast_object_list(held, src=0)
        made: Value = held[0]
        return made

    def gathered(self, value: Value) -> list[Value]:
        """Return the values of all processes, by rank; tensors in them must be on the CPU."""
        if self.count == 1:
            return [value]
        held: list[Any] = [None] * self.count
        dist.all_gather_object(held, value)
        return held

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the first process through alone, then the first of each other machine, then all others.

        Those that come later find what was made: a cache, a drawn dataset.
        """
        turn = 0 if self.first else 1 if self.launch.local_rank == 0 else LAST_TURN
        for _ in range(turn):
            self.wait()
        yield
        for _ in range(LAST_TURN - turn):
            self.wait()

    def worst(self, found_inf: Tensor) -> Tensor:
        """Return the greatest of the processes' scalars, on the device; nothing here waits for it."""
        if self.count > 1:
            dist.all_reduce(found_inf, dist.ReduceOp.MAX)
        return found_inf

    @torch.no_grad()
    def average(self, groups: Sequence[list[Tensor]]) -> None:
        """Average buffers in place: the batch-norm statistics, which each process has gathered from its own images.

        In double, so that what is the same everywhere stays as it is; integers are left alone, for they count alike.
        """
        for group in groups if self.count > 1 else ():
            if group[0].is_floating_point():
                flat = torch.cat([buffer.flatten() for buffer in group]).double()
                dist.all_reduce(flat)
                parts = (flat / self.count).split([buffer.numel() for buffer in group])
                torch._foreach_copy_(group, [p.view_as(b) for p, b in zip(parts, group, strict=True)])

    @torch.no_grad()
    def spread(self, groups: Sequence[list[Tensor]]) -> None:
        """Give every process the buffers of the first."""
        if self.count > 1:
            for group, first in zip(groups, self.from_first(lambda: _on_cpu(groups)), strict=True):
                torch._foreach_copy_(group, [value.to(group[0].device) for value in first])


ALONE = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that torchrun started, and leave them when the block ends; without torchrun, be alone.

    If processes fail, the first to do so raises its error. The others, which fail because of it, end silently.

    Raises:
        FgvcError: another process is gone without a word, or the processes do not find each other.
    """
    launch = launched()
    if launch.count == 1:
        yield ALONE
        return
    store = _join()
    ranks = Ranks(launch)
    try:
        yield ranks
        ranks.wait()
    except Exception as error:
        _on_signals(signal.SIG_IGN)  # torchrun ends all processes when one ends; the one that speaks must get to it
        if not _is_first_to_fail(store, ranks):
            _on_signals(signal.SIG_DFL)
            raise SystemExit(getattr(error, "exit_code", 1)) from None
        report_from_here()
        if _is_lost(error):
            raise FgvcError(
                "Another process of the training is gone without a word: it was killed, most likely because memory "
                "ran out, or its machine cannot be reached. (--debug shows what torch says.)"
            ) from error
        raise
    dist.destroy_process_group()


def _join() -> Store:
    """Find the other processes: gloo carries what lies on the CPU, nccl what lies on GPUs."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        store, rank, count = next(rendezvous("env://", timeout=PATIENCE))
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise FgvcError(f"The processes do not find each other at {address}: {str(error).splitlines()[0]}") from error
    return store


def _is_first_to_fail(store: Store, ranks: Ranks) -> bool:
    try:
        return int(store.add(FAILED, 1)) == 1
    except RuntimeError:  # torchrun is gone, and its store with it
        return ranks.first


def _on_signals(action: signal.Handlers) -> None:
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, action)


def _is_lost(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error) for word in LOST)


class Evaluator:
    """Puts objectives through a model; over several processes, averages the gradients.

    What `DistributedDataParallel` wraps is not the model but "a model and a loss" (`_Objectives`): the parameters
    that the loss does not reach can then be told apart, and the buffers are left to `Ranks.average`.

    Unless it is known better, any objective may leave any parameter without a gradient, and torch searches the graph
    for them. `settle` ends that for a head with one objective that reaches everything.

    Args:
        model: backbone and head as one module.
        ranks: the processes.
        buffers: of the model, by type.
    """

    def __init__(self, model: nn.Module, ranks: Ranks, buffers: Sequence[list[Tensor]]) -> None:
        self.model, self.ranks = model, ranks
        self.partial = True
        self._wrapped: nn.Module = _Objectives(model, spare=False)
        if ranks.count > 1:
            ranks.spread(buffers)
            self._wrapped = self._reducing()

    def __call__(self, objective: Objective) -> tuple[Tensor, Any, Loss]:
        """Return the loss to start the backward pass from, the head's output and all that its loss function said."""
        value, said = self._wrapped(objective)
        return value, said.output, said.loss

    def reduced(self, reduce: bool) -> AbstractContextManager[object]:
        """Around a forward and its backward pass: whether this backward pass averages the gradients."""
        if reduce or not isinstance(self._wrapped, DistributedDataParallel):
            return nullcontext()
        context: AbstractContextManager[object] = self._wrapped.no_sync()
        return context

    def settle(self, whole: bool) -> None:
        """Hear, after an update, whether it was one objective that gave every parameter a gradient.

        It is the same in every process: a parameter is without a gradient if no process has one for it.
        """
        if whole and self.partial and self.ranks.count > 1:
            self.partial = False
            self._wrapped = nn.Identity()  # the old wrapper goes, and its hooks with it
            self._wrapped = self._reducing()

    def _reducing(self) -> nn.Module:
        objectives = _Objectives(self.model, spare=self.partial)
        return DistributedDataParallel(objectives, find_unused_parameters=self.partial)


class _Objectives(nn.Module):
    """Objective -> its loss, as torch's wrapper wants a module.

    It shows the parameters and hides the buffers. `spare`: have a parameter that nothing ever reaches, without which
    torch prints that its search for such parameters is in vain whenever an objective reaches everything.
    """

    def __init__(self, model: nn.Module, spare: bool) -> None:
        super().__init__()
        self._model = (model,)
        self.shown = nn.ParameterList(model.parameters())
        if spare:
            device = next(model.parameters()).device
            self.spare = nn.Parameter(torch.zeros(1, device=device))

    def forward(self, objective: Objective) -> tuple[Tensor, _Said]:
        """Return the scalar to minimize, and the rest where the search for parameters does not look."""
        output = self._model[0](objective.images, objective.part)
        loss = objective.loss(output)
        return loss.value, _Said(output, loss)


class _Said:
    """What an evaluation leaves beside the loss's value; no dataclass, for the search looks into those."""

    def __init__(self, output: Any, loss: Loss) -> None:
        self.output, self.loss = output, loss


def _on_cpu(groups: Iterable[Iterable[Tensor]]) -> list[list[Tensor]]:
    return [[tensor.detach().cpu() for tensor in group] for group in groups]
