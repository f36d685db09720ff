"""What each of two processes does in `test_parallel.py`: `python two_processes.py FOLDER` under torchrun's environment.

Each writes what it found to FOLDER/rank<N>.pt.
"""

from __future__ import annotations

import copy
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn import functional as F

from fgvc_cli.contracts import Head, Loss, Objective, ParameterGroup, Reads, TorchOptimizer
from fgvc_cli.errors import FgvcError
from fgvc_cli.training.distributed import SINGLE_PROCESS, process_group
from fgvc_cli.training.state import Progress, load_state_file, save_state
from fgvc_cli.training.update import RunningMetrics, Update
from fgvc_optimizers.options import SamOptions, SgdOptions
from fgvc_optimizers.sam import Sam
from fgvc_optimizers.sgd import Sgd

STEPS = 5


class Whole(nn.Module):
    """A trunk, and three experts on it of which an objective may need one."""

    def __init__(self, norm=False, drop=0.0):
        super().__init__()
        self.device = torch.device("cpu")
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4) if norm else nn.Tanh(), nn.Dropout(drop))
        self.experts = nn.ModuleDict({name: nn.Linear(4, 3) for name in "abc"})

    def forward(self, images, part=None):
        pooled = self.trunk(images).mean((2, 3))
        return {name: expert(pooled) for name, expert in self.experts.items()}  # those that the loss leaves out, too


class Experts(Head):
    """One objective for each name in `parts`; None: one of all experts."""

    def __init__(self, parts=(None,), missing_grad="skip", extra=0.0):
        nn.Module.__init__(self)
        self.parts, self.missing_grad, self.extra = parts, missing_grad, extra

    def reads(self, part=None):
        return Reads()

    def forward(self, features, part=None):
        raise NotImplementedError

    def objectives(self, images, targets):
        for part in self.parts:
            yield Objective(images, self.loss_of(part, targets), part, missing_grad=self.missing_grad, name=part or "")

    def loss_of(self, part, targets):
        def loss(output):
            used = [scores for name, scores in output.items() if part in (None, name)]
            return Loss(sum(F.cross_entropy(scores, targets) for scores in used) + self.extra, used[0])

        return loss


class Momentum(TorchOptimizer):
    def make(self, groups, options):
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=0.01)


def groups_of(model):
    return [
        ParameterGroup("backbone", dict(model.trunk.named_parameters())),
        ParameterGroup("head", dict(model.experts.named_parameters())),
    ]


def momentum(model):
    return Momentum(groups_of(model), SimpleNamespace(lr=0.1, head_lr=0.2))


def sam(model):
    return Sam(groups_of(model), SamOptions(), Sgd(groups_of(model), SgdOptions(lr=0.1)))


def make(ranks, head, optimizer=momentum, clip_norm=0.0, **model):
    torch.manual_seed(7 + ranks.rank)  # other initial weights in each process: the first's must win
    net = Whole(**model)
    return net, Update(net, head, optimizer(net), nullcontext, clip_norm, ranks)


def batch(step, images=12):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(images, 3, 6, 6, generator=generator), torch.randint(0, 3, (images,), generator=generator)


def own(ranks, step, micro=1):
    """This process's half of a batch, in micro-batches."""
    images, targets = batch(step)
    size = len(images) // ranks.count
    part = slice(ranks.rank * size, (ranks.rank + 1) * size)
    return list(zip(images[part].chunk(micro), targets[part].chunk(micro), strict=True))


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def trained(ranks, parts, missing_grad="skip", micro=1, clip_norm=0.0, first_parts=None, frozen=0):
    """Train a few steps; the first with other objectives, if they are given, or with a frozen trunk."""
    model, update = make(ranks, Experts(first_parts or parts, missing_grad), clip_norm=clip_norm)
    for step in range(STEPS):
        if step in {0, frozen} and frozen:
            model.trunk.requires_grad_(step > 0)
            update.take_parameters()
        update(own(ranks, step, micro))
        update.head.parts = parts
    return {"weights": weights(model), "moved": update.moved, "searching": update.evaluate.partial}


def as_one(ranks):
    """The same training by all processes and by one."""
    cases = {
        "plain": {"parts": (None,)},
        "accumulated": {"parts": (None,), "micro": 3},
        "clipped": {"parts": (None,), "clip_norm": 0.05},
        "skip": {"parts": ("a", "b", None, "a")},
        "zero": {"parts": ("a", "b", None, "a"), "missing_grad": "zero"},
        "zero, one never reached": {"parts": ("a", "b"), "missing_grad": "zero", "micro": 2},
        "zero, one reached once": {"parts": ("a",), "first_parts": ("a", "b"), "missing_grad": "zero"},
        "skip, one reached once": {"parts": ("a",), "first_parts": ("a", "b")},
        "unfrozen": {"parts": (None,), "frozen": 3},
        "zero, unfrozen": {"parts": ("a", None), "missing_grad": "zero", "frozen": 2},
    }
    return {name: (trained(ranks, **case), trained(SINGLE_PROCESS, **case)) for name, case in cases.items()}


def uphill(ranks):
    """SAM's two gradients: what the optimizer saw, and what this process alone finds at the same weights."""
    model, update = make(ranks, Experts(), sam)
    found = []

    class Watched:
        """The closure, with a copy of the gradients that each evaluation leaves."""

        def __init__(self, closure):
            self.closure = closure

        @property
        def found_inf(self):
            return self.closure.found_inf

        def ascent(self):
            return self.noted(self.closure.ascent)

        def __call__(self):
            return self.noted(self.closure)

        def noted(self, evaluate):
            alone = copy.deepcopy(model)
            images, targets = (torch.cat(parts) for parts in zip(*own(ranks, len(found)), strict=True))
            update.head.loss_of(None, targets)(alone(images)).value.backward()
            evaluation = evaluate()
            found[-1].append([[p.grad.clone() for p in m.parameters()] for m in (model, alone)])
            return evaluation

    real = update.optimizer.step
    update.optimizer.step = lambda closure: real(Watched(closure))
    for step in range(3):
        found.append([])
        update(own(ranks, step + 1, micro=2))
    return {"gradients": found, "weights": weights(model)}


def reductions(ranks):
    """How often gradients go from process to process in an update of two passes over three micro-batches."""
    _, update = make(ranks, Experts(), sam)
    update(own(ranks, 0))  # from the next one on it is known that nothing is left out
    counted = []

    def count(group, bucket):
        counted.append(bucket.index())
        return allreduce_hook(group, bucket)

    update.evaluate._wrapped.register_comm_hook(None, count)
    update(own(ranks, 1, micro=3))
    return len(counted)


def not_finite(ranks):
    """A step in which the second process alone has a loss that is not finite, its gradient being finite."""
    results = {}
    for name, optimizer in (("momentum", momentum), ("sam", sam)):
        model, update = make(ranks, Experts(), optimizer)
        update(own(ranks, 0))
        before = weights(model)
        update.head.extra = float("inf") * ranks.rank if ranks.rank else 0.0
        found_inf = update(own(ranks, 1))[0].found_inf.item()
        results[name] = {"bad": found_inf, "same": all(torch.equal(p, before[n]) for n, p in model.named_parameters())}
    return results


def replayed(ranks):
    """Dropout and statistics of SAM's two passes, and the statistics before and after they are averaged."""
    model, update = make(ranks, Experts(("a", None)), sam, norm=True, drop=0.5)
    torch.manual_seed(ranks.rank)
    masks = []
    model.trunk[2].register_forward_hook(lambda _m, _i, out: masks.append(out == 0))
    update(own(ranks, 0))
    mean = model.trunk[1].running_mean
    before = mean.clone()
    ranks.average_buffers(update.buffers)
    return {"masks": masks, "tracked": model.trunk[1].num_batches_tracked.item(), "own": before, "average": mean}


def begun(ranks):
    """Weights and statistics of a training that only the first process has loaded weights for."""
    torch.manual_seed(7 + ranks.rank)
    net = Whole(norm=True)
    net.trunk[1].running_mean.fill_(3.0 if ranks.first else 0.0)
    Update(net, Experts(), momentum(net), nullcontext, 0.0, ranks)
    return {name: value.clone() for name, value in net.state_dict().items()}


def resumed(ranks, folder):
    """A training that is saved within an epoch goes on as if it had not been."""
    path = folder / "state.safetensors"
    model, update = make(ranks, Experts(), sam, norm=True, drop=0.5)
    torch.manual_seed(ranks.rank)
    metrics = RunningMetrics(torch.device("cpu"))
    metrics.add(update(own(ranks, 0)), [own(ranks, 0)[0][1]])
    save_state(path, model, update.optimizer, update, Progress(batch=1, metrics=metrics.state()))
    update(own(ranks, 1))
    straight = {**weights(model), **{name: b.clone() for name, b in model.named_buffers()}}
    other, again = make(ranks, Experts(), sam, norm=True, drop=0.5)
    progress = load_state_file(path, other, again.optimizer, again)
    own_buffers = [b.clone() for b in other.buffers()]
    again(own(ranks, 1))
    gone_on = {**weights(other), **dict(other.named_buffers())}
    loaded = RunningMetrics(torch.device("cpu"))
    loaded.load(progress.metrics)
    lone = _lone()
    alone = load_state_file(path, *lone)
    return {
        "straight": straight,
        "gone_on": gone_on,
        "metrics": (metrics.sums, loaded.sums),
        "own": own_buffers,
        "alone": (alone.processes, alone.metrics, [b.clone() for b in lone[0].buffers()]),
    }


def _lone():
    model, update = make(SINGLE_PROCESS, Experts(), sam, norm=True)
    return model, update.optimizer, update


def agreement(ranks, folder):
    order = folder / "order"
    with ranks.first_process_first(), order.open("a") as file:
        file.write(str(ranks.rank))
    metrics = RunningMetrics(torch.device("cpu"))
    metrics.images, metrics.sums = 1 + ranks.rank, {"loss": torch.tensor(3.0 * ranks.rank)}
    return {
        "order": order.read_text(),
        "greatest": ranks.maximum(ranks.rank * 15),
        "agree": (ranks.all_true(True), ranks.all_true(ranks.first)),
        "from_first": ranks.broadcast(lambda: {"made by": ranks.rank}),
        "gathered": ranks.all_gather(ranks.rank),
        "means": metrics.over_all(ranks).means(),
        "device": str(ranks.device(torch.device("cpu"))),
    }


def main(folder):
    results = {}
    rank = None
    try:
        with process_group() as ranks:
            rank = ranks.rank
            results["agreement"] = agreement(ranks, folder)
            results["as_one"] = as_one(ranks)
            results["uphill"] = uphill(ranks)
            results["reductions"] = reductions(ranks)
            results["not_finite"] = not_finite(ranks)
            results["replayed"] = replayed(ranks)
            results["begun"] = begun(ranks)
            results["resumed"] = resumed(ranks, folder)
            if not ranks.first:
                raise FgvcError("this process alone cannot go on")
            ranks.barrier()
    except BaseException as error:
        results["ended"] = (type(error).__name__, str(error))
    torch.save(results, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
