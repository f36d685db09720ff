"""Records from a file that anybody may have edited: each value has the type of its field, or there is no record."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def typed(record: type[T], values: Mapping[str, Any]) -> T:
    """Make a dataclass from values by field, after a look at their types.

    A number is finite, and an int will do for a float. Mappings are looked into.

    Raises:
        TypeError: a value is not of its field's type, a field without a default is missing, or there is no such field.
    """
    hints = typing.get_type_hints(record)
    for name, value in values.items():
        if name in hints and not fits(value, hints[name]):
            raise TypeError(f"{record.__name__}.{name} is {value!r:.40}")
    return record(**values)


def fits(value: object, hint: Any) -> bool:
    """Say whether a value is of a type: int, float, str, bool, a class, a union of them, or a mapping of these."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, member) for member in arguments)
    if origin is Mapping:
        key, item = arguments
        return isinstance(value, Mapping) and all(fits(k, key) and fits(v, item) for k, v in value.items())
    if hint in (int, float):
        number = isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
        return number and math.isfinite(typing.cast(float, value))
    return hint is Any or isinstance(value, hint)
