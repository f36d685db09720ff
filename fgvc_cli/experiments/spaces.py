"""The search space of a study: settings with limits or choices in place of a value."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fgvc_cli.config.layering import Layer
from fgvc_cli.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

KEYS = ("low", "high", "log", "step", "choices")
"""Keys of a table that stands for a space."""
OF_SPLITS = (
    "seed",
    "val_seed",
    "val_by",
    "val_fraction",
    "group_by",
    "folds",
    "fold",
    "train_on",
    "exclude",
    "score_test",
)
"""Settings of `train` that decide what a trial is scored on."""


@dataclass(frozen=True)
class Space:
    """The values of one setting to search.

    Attributes:
        path: section and name, such as ("optimizer", "lr").
        low, high: limits of a number, included; integers if both are.
        log: whether it is drawn on a logarithmic scale.
        step: distance between values; None: 1 for integers, else any.
        choices: values to choose from, in place of limits.
    """

    path: tuple[str, ...]
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None
    choices: tuple[str | int | float | bool, ...] = ()

    @property
    def name(self) -> str:
        """The dotted name of the setting."""
        return ".".join(self.path)

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that a setting must take for the whole space to be valid: the limits, or all choices."""
        return self.choices or (self.low, self.high)

    @property
    def text(self) -> str:
        """The space in words: "0.0001 to 0.1, log"."""
        if self.choices:
            return " | ".join(map(str, self.choices))
        return f"{self.low} to {self.high}" + ", log" * self.log + (f", step {self.step}" if self.step else "")

    @property
    def distribution(self) -> BaseDistribution:
        """The space as Optuna describes it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=self.log, step=int(self.step or 1))
        return FloatDistribution(float(self.low), float(self.high), log=self.log, step=self.step)

    @classmethod
    def parse(cls, path: tuple[str, ...], table: Mapping[str, Any]) -> Space:
        """Read the table of a space.

        Raises:
            UsageError: a key is missing, unknown or invalid, or the setting decides what trials are scored on.
        """
        what = f"search space of `{'.'.join(path)}`"
        if len(path) < 2:
            raise UsageError(f"{what}: a space stands for the value of one setting, such as `{path[0]}.lr`")
        for key in table:
            if key not in KEYS:
                raise UsageError(f"{what}: unknown key '{key}'.{did_you_mean(key, KEYS)} Keys: {', '.join(KEYS)}")
        if path[0] in ("dataset", "tracker") or (path[0] == "train" and path[1] in OF_SPLITS):
            raise UsageError(f"{what}: it decides what is trained and scored on, so that trials could not be compared")
        if "choices" in table:
            return cls(path, choices=_choices(table, what))
        low, high, step, log = (table.get(key) for key in ("low", "high", "step", "log"))
        numbers = {"low": low, "high": high, **({} if step is None else {"step": step})}
        for key, value in numbers.items():
            if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
                raise UsageError(f"{what}: {key}={value}: expected a finite number; give low and high, or choices")
        assert isinstance(low, int | float) and isinstance(high, int | float)
        if low >= high:
            raise UsageError(f"{what}: low={low} must be less than high={high}")
        if not isinstance(log, bool | None):
            raise UsageError(f"{what}: log={log}: expected true or false")
        if log and (low <= 0 or step is not None):
            raise UsageError(
                f"{what}: log=true needs low above 0 and no step; low is {low}, step is {step or 'not set'}"
            )
        whole = isinstance(low, int) and isinstance(high, int)
        if step is not None and (step <= 0 or step > high - low or (whole and not isinstance(step, int))):
            raise UsageError(f"{what}: step={step}: expected {'an integer' if whole else 'a number'} up to high - low")
        return cls(path, low, high, bool(log), step)


def _choices(table: Mapping[str, Any], what: str) -> tuple[Any, ...]:
    choices = table["choices"]
    if len(table) > 1:
        raise UsageError(f"{what}: give choices, or low and high")
    if not isinstance(choices, list) or not choices or not all(isinstance(c, str | int | float) for c in choices):
        raise UsageError(f"{what}: choices={choices}: expected a list of texts or numbers")
    return tuple(dict.fromkeys(choices))


def spaces_of(layer: Layer) -> list[Space]:
    """Return the spaces in a layer of settings."""
    return [Space.parse(path, table) for path, table in _tables(layer)]


def with_values(layer: Layer, value: Callable[[tuple[str, ...]], Any]) -> Layer:
    """Return a layer with a value in place of each space."""

    def replaced(table: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        return {
            key: value((*path, key)) if _is_space(below) else
            replaced(below, (*path, key)) if isinstance(below, Mapping) else below
            for key, below in table.items()
        }  # fmt: skip

    return replaced(layer, ())


def with_first_values(layer: Layer) -> Layer:
    """Return a layer with the lower limit or the first choice in place of each space."""
    first = {space.path: space.ends[0] for space in spaces_of(layer)}
    return with_values(layer, lambda path: first[path])


def _tables(
    layer: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    for key, below in layer.items():
        if _is_space(below):
            yield (*path, key), below
        elif isinstance(below, Mapping):
            yield from _tables(below, (*path, key))


def _is_space(value: Any) -> bool:
    return isinstance(value, Mapping) and "name" not in value and bool({"low", "high", "choices"} & value.keys())
