"""What every optimizer must keep: a state that a resumed run goes on from, bit for bit."""

from __future__ import annotations

import json
from typing import Any

import torch

from fgvc_cli.contracts import Optimizer
from fgvc_cli.runs.tensors import pack, unpack
from fgvc_cli.testing.check import Checks, ContractBroken, expect, some
from fgvc_cli.testing.optimizer_subject import OptimizerSubject
from fgvc_cli.testing.tiny.bowl import Bowl, BowlClosure

STATE: Checks[OptimizerSubject] = Checks()

BEFORE, AFTER = 3, 3
"""Steps before and after the interruption."""


@STATE("its state can be saved", "Nothing is pickled: a state is nested dicts and lists of tensors, numbers and text.")
def plain(optimizer: OptimizerSubject) -> None:
    """What state_dict returns has a form in safetensors and JSON."""
    bowl, made = optimizer.on_bowl()
    _steps(bowl, made, 0, 2)
    _saved(made)


@STATE("it goes on where it stopped", "A resumed run must end as if it had never been interrupted, bit for bit.")
def resumes(optimizer: OptimizerSubject) -> None:
    """Another one that loads its state takes the same steps."""
    bowl, made = optimizer.on_bowl()
    made.set_rate(0.7)
    _steps(bowl, made, 0, BEFORE)
    other_bowl, other = optimizer.on_bowl()
    other_bowl.set(bowl.values())
    other.load_state_dict(_saved(made))
    for each in (made, other):  # as the schedule does before every step
        each.set_rate(0.5)
    _steps(bowl, made, BEFORE, AFTER)
    _steps(other_bowl, other, BEFORE, AFTER)
    expected, found = bowl.values(), other_bowl.values()
    differing = [name for name in expected if not torch.equal(expected[name], found[name])]
    expect(
        not differing,
        "the same steps from an optimizer that loads the state",
        f"{some(differing)} end elsewhere",
        "put into state_dict all that a step depends on, and draw random choices with torch",
    )


def _steps(bowl: Bowl, optimizer: Optimizer, start: int, count: int) -> None:
    """Step, each time from a seed of its own, as a resumed run's generators are put back."""
    for step in range(start, start + count):
        torch.manual_seed(step)
        optimizer.step(BowlClosure(bowl))


def _saved(optimizer: Optimizer) -> dict[str, Any]:
    """Return the state as a file would give it back."""
    try:
        document, tensors = _packed(optimizer.state_dict())
    except TypeError as error:
        raise ContractBroken("a state of plain values", str(error), "turn the rest into those") from error
    loaded: dict[str, Any] = unpack(
        json.loads(json.dumps(document)), {name: value.clone().contiguous() for name, value in tensors.items()}
    )
    return loaded


def _packed(state: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    tensors: dict[str, torch.Tensor] = {}
    return pack(state, tensors, "optimizer"), tensors
