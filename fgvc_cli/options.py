"""Options of components and of training: frozen dataclasses, read from TOML by the type of each field.

    @dataclass(frozen=True)
    class BilinearOptions:
        width: int = option(8192, "dimension of the compact bilinear vector", minimum=1)

The same setting is `--set head.width=4096` on the command line and `width = 4096` under `[head]` in a file.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union

from fgvc_cli.errors import UsageError, did_you_mean

T = TypeVar("T")


@dataclass(frozen=True)
class NoOptions:
    """The options of a component that has none."""


@dataclass(frozen=True)
class OptionInfo:
    """Description of one option.

    Attributes:
        name: of the field.
        type: as text, such as "int", "a or b" or "list of int".
        default: value without a setting.
        help: one line.
        choices: values of a `Literal`; empty for other types.
        minimum, maximum: bounds of a number, or of each number of a list; None without a bound.
    """

    name: str
    type: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


LARGEST = 2**63 - 1
"""Largest integer that torch and NumPy take, and default bound of every option."""


def option(default: Any, help: str, *, minimum: float | None = None, maximum: float | None = None) -> Any:
    """Return a dataclass field with a default and a help text.

    Args:
        default: value without a setting; must be immutable.
        help: one line that says what the option does, with the unit.
        minimum: lower bound of a number, or of each number of a list.
        maximum: upper bound; of integers, `LARGEST` if None.
    """
    return dataclasses.field(default=default, metadata={"help": help, "minimum": minimum, "maximum": maximum})


def describe(options: type) -> list[OptionInfo]:
    """Describe the options of an options dataclass, in the order of definition."""
    return list(_described(options))


_hints: Callable[[type], dict[str, Any]] = functools.cache(typing.get_type_hints)


@functools.cache
def _described(options: type) -> tuple[OptionInfo, ...]:
    hints = _hints(options)
    return tuple(
        OptionInfo(
            field.name,
            type_text(hints[field.name]),
            field.default,
            field.metadata.get("help", ""),
            typing.get_args(hints[field.name]) if typing.get_origin(hints[field.name]) is Literal else (),
            field.metadata.get("minimum"),
            field.metadata.get("maximum"),
        )
        for field in dataclasses.fields(options)
    )


def option_names(options: type) -> list[str]:
    """Return the names of the options of an options dataclass."""
    return [field.name for field in dataclasses.fields(options)]


def build(options: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build an options dataclass from settings.

    Args:
        options: the dataclass.
        values: TOML values by option name; options without a value keep their defaults.
        where: prefix of option names in messages, such as "head" for `head.fpn_size`.

    Raises:
        UsageError: an option does not exist, or a value has the wrong type or is out of bounds.
    """
    infos, hints = {info.name: info for info in describe(options)}, _hints(options)
    converted = {}
    for name, value in values.items():
        if name not in infos:
            known = ", ".join(infos) or "none"
            raise UsageError(f"{where}.{name}: no such option.{did_you_mean(name, infos)} Options of {where}: {known}")
        fits, converted[name] = _convert(value, hints[name])
        if not fits:
            words = typing.get_args(hints[name]) if typing.get_origin(hints[name]) is Literal else ()
            hint = did_you_mean(value, map(str, words)) if isinstance(value, str) else ""
            raise UsageError(f"{where}.{name}={value_text(value)}: expected {infos[name].type}{hint and '.' + hint}")
        if required := _violated(converted[name], infos[name]):
            raise UsageError(f"{where}.{name}={value_text(value)}: must be {required}")
    try:
        return options(**converted)
    except ValueError as error:  # a dataclass may check its options against each other
        raise UsageError(f"{where}: {error}") from None


def parse_setting(text: str) -> tuple[str, str, Any]:
    """Split `kind.option=value` into its three parts; the value is parsed as TOML, or else taken as plain text.

    Raises:
        UsageError: the text does not have this form.
    """
    key, equals, raw = text.partition("=")
    kind, dot, name = key.strip().partition(".")
    if not (equals and dot and kind and name):
        raise UsageError(f"setting '{text}': write kind.option=value, for example `head.fpn_size=1024`")
    try:
        value = tomllib.loads(f"value = {raw.strip()}")["value"]
    except tomllib.TOMLDecodeError:  # a bare word or a path
        value = raw.strip()
    return kind, name, value


def type_text(hint: Any) -> str:
    """Return the type of a field as text."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " or ".join(str(a) for a in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join("none" if a is type(None) else type_text(a) for a in arguments)
    if origin is tuple:
        return f"list of {type_text(arguments[0])}"
    return {int: "int", float: "float", bool: "true or false", str: "text"}.get(hint, str(hint))


def value_text(value: Any) -> str:
    """Return a value as it is written after `kind.option=`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(value_text, value))}]"
    return "none" if value is None else str(value)


def as_toml(options: Any) -> dict[str, Any]:
    """Return an options dataclass as TOML values; `None`, which TOML lacks, becomes "none"."""
    values = {name: getattr(options, name) for name in option_names(type(options))}
    return {n: "none" if v is None else list(v) if isinstance(v, tuple) else v for n, v in values.items()}


def _violated(value: Any, info: OptionInfo) -> str:
    """Return the condition that a number, or one in a list, does not meet; empty if there is none."""
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if isinstance(number, float) and not math.isfinite(number):
            return "a finite number"
        low, high = info.minimum, info.maximum
        if (low is not None and number < low) or (high is not None and number > high):
            bounds = [(f"at least {low}", low), (f"at most {high}", high)]
            return " and ".join(text for text, bound in bounds if bound is not None)
        if isinstance(number, int) and abs(number) > LARGEST:
            return f"at most {LARGEST}"
    return ""


def _convert(value: Any, hint: Any) -> tuple[bool, Any]:
    """Return whether a TOML value fits a type, and the value as that type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if isinstance(value, int | float) and str(value) in arguments:  # a word of digits, which TOML reads as a number
            return True, str(value)
        return value in arguments and type(value) in {type(a) for a in arguments}, value
    if origin in (Union, types.UnionType):
        for member in sorted(arguments, key=lambda a: a is not type(None)):  # "none" is None before it is text
            fits, converted = _convert(value, member)
            if fits:
                return True, converted
        return False, value
    if origin is tuple:
        items = [_convert(v, arguments[0]) for v in value] if isinstance(value, list | tuple) else None
        return (False, value) if items is None else (all(f for f, _ in items), tuple(v for _, v in items))
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number, float(value) if is_number else value
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    if hint is type(None):
        return value is None or value == "none", None
    if hint is str and isinstance(value, int | float) and not isinstance(value, bool):
        return True, str(value)
    return isinstance(value, hint), value
