"""Which parts of CMAL each of its five objectives needs."""

from __future__ import annotations

from dataclasses import dataclass, replace

LEVELS = (0, 1, 2)
"""The experts e1, e2 and e3, shallow to deep."""


@dataclass(frozen=True)
class Part:
    """What is run for an objective.

    Attributes:
        experts: those that run; the backbone stops after the deepest map that they read.
        watching: those of them that run without gradient, because only their attention is wanted.
        scored: whether the experts' own classifiers run.
        concat: whether the concatenation's classifier runs.
        attends: whether the experts' maps are kept for attention.
    """

    experts: tuple[int, ...] = LEVELS
    watching: tuple[int, ...] = ()
    scored: bool = True
    concat: bool = False
    attends: bool = False


PARTS: dict[str | None, Part] = {
    None: Part(concat=True, attends=True),
    "e3": Part(watching=(0, 1), attends=True),
    "e2": Part(experts=(1,)),
    "e1": Part(experts=(0,)),
    "overall": Part(concat=True),
    "concat": Part(scored=False, concat=True),
}
"""By the name that an objective gives; None: all that a prediction needs."""


def full_passes() -> dict[str | None, Part]:
    """Return the parts if each runs the whole forward pass, as published: all batch-norm statistics move."""
    return {name: replace(part, experts=LEVELS, watching=(), scored=True, concat=True) for name, part in PARTS.items()}
