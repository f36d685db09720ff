"""Axes: round figures, and where they stand."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
"""What one step of an axis may be, times a power of ten."""


@dataclass(frozen=True)
class Tick:
    """A figure at an axis.

    Attributes:
        at: where it stands, in [0, 1] from the beginning of the axis to its end.
        text: the figure.
    """

    at: float
    text: str


@dataclass(frozen=True)
class Scale:
    """The values that an axis spans, `low` below `high`."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Return where a value stands, in [0, 1] from the beginning of the axis to its end."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int, whole: bool = False) -> list[Tick]:
        """Return round figures on the axis.

        Args:
            most: how many at most.
            whole: whether they are whole numbers.
        """
        step = _step(self.high - self.low, most, whole)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        digits += round(step * 10**digits, 9) % 1 != 0  # a step of 2.5 needs one more
        return [Tick(self.at(i * step), f"{i * step:.{digits}f}") for i in range(first, last + 1)]


def spanning(values: Iterable[float], least: float | None = None, room: float = 0.05) -> Scale:
    """Return a scale that holds all values.

    Args:
        values: finite numbers.
        least: where the axis begins; None: a little below the smallest value.
        room: share of the span that stays free at its ends.
    """
    found = list(values)
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    low = low if least is None else min(low, least)
    spare = room * (high - low) or room * abs(high) or 1.0
    return Scale(low - (0.0 if least is not None else spare), high + spare)


def _step(span: float, most: int, whole: bool) -> float:
    """Return the smallest round step that makes `most` figures at most."""
    least = span / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(least))
    step = next(size * power for size in (*STEPS, 20.0) if size * power >= least * (1 - 1e-9))
    return max(1.0, math.ceil(step)) if whole else step
