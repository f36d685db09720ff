"""Attribute an error, or a value that breaks a contract, to the component that caused it."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from torch import Tensor

from fgvc_cli.devices import is_out_of_memory
from fgvc_cli.errors import STOPS, FgvcError, cause_of
from fgvc_cli.registry import Component

LIBRARY = ("fgvc_cli.contracts", "fgvc_cli.enforcement", "fgvc_cli.options", "fgvc_cli.registry")
"""Modules of the host whose code runs on behalf of a component: its base classes, and what calls its target."""


Check = Callable[..., Any]
"""Called with the instance, what its method returned, and the method's arguments. Returns what the host gets; raises
`Broken`."""


class ComponentError(FgvcError):
    """A component raised an error or broke its contract."""


class Broken(Exception):  # noqa: N818, it never leaves this package
    """A value breaks the contract; `attributed` says whose.

    Args:
        expected: what the contract requires, as a noun phrase: "scores of shape (3, 5)".
        came: what came instead, as a noun phrase.
    """

    def __init__(self, expected: str, came: str) -> None:
        super().__init__(expected, came)
        self.expected, self.came = expected, came

    def of(self, component: Component, call: str) -> ComponentError:
        """Return the error that names the component and its call."""
        return ComponentError(
            f"{component.title} breaks its contract: {call}: expected {self.expected}, got {self.came}. "
            "Please report this to its author"
        )


class attributed(AbstractContextManager[None]):  # noqa: N801, used as a function
    """Context in which errors are attributed to a component.

    Errors for the user (`FgvcError`), interruptions, exhausted memory and disks, and what the host raises when the
    component calls it back (an optimizer its closure) pass unchanged.

    Args:
        component: that is called.
        call: what is called, such as "step()".

    Raises:
        ComponentError: the block raised anything else.
    """

    __slots__ = ("call", "component")

    def __init__(self, component: Component, call: str) -> None:
        self.component, self.call = component, call

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            attribute(error, self.component, self.call)


def attribute(error: BaseException, component: Component, call: str) -> None:
    """Raise an error as one of a component; return if it passes unchanged (see `attributed`).

    For calls of every update: a `try` block costs nothing, unlike a context.
    """
    if isinstance(error, (FgvcError, GeneratorExit, *STOPS)):
        return
    if isinstance(error, Broken):
        raise error.of(component, call) from None
    if is_out_of_memory(error) or _is_disk_full(error) or _is_raised_by_host(error.__traceback__, component):
        return
    raise ComponentError(
        f"{component.title} failed in {call}: {cause_of(error)} (`debug` shows the traceback). Please "
        "report this to its author"
    ) from error


@dataclass(frozen=True)
class Record:
    """What is known of a checked instance.

    Attributes:
        component: that it was built from.
        facts: numbers that it was built for, such as "classes".
    """

    component: Component
    facts: dict[str, int] = field(default_factory=dict)


RECORD = "_fgvc_record"
"""Attribute of a checked instance, with its `Record`."""


def record_of(instance: Any) -> Record | None:
    """Return the record of a checked instance; None if it is not checked."""
    return getattr(instance, RECORD, None)


def attributed_to(instance: Any, call: str) -> AbstractContextManager[None]:
    """Return the context `attributed` for a checked instance; one without effect for any other."""
    record = record_of(instance)
    return nullcontext() if record is None else attributed(record.component, call)


def violation(instance: Any, call: str, expected: str, came: str) -> FgvcError:
    """Return the error for a component that breaks its contract, named by its class if it is not checked."""
    record, broken = record_of(instance), Broken(expected, came)
    if record is not None:
        return broken.of(record.component, call)
    return ComponentError(f"{type(instance).__name__} breaks its contract: {call}: expected {expected}, got {came}")


def described(value: Any) -> str:
    """Describe a value as a noun phrase: tensors and arrays by type and shape, text and numbers as they are."""
    if isinstance(value, Tensor | np.ndarray):
        kind = "tensor" if isinstance(value, Tensor) else "array"
        return f"a {str(value.dtype).removeprefix('torch.')} {kind} of shape {tuple(value.shape)}"
    if value is None or isinstance(value, str | int | float):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    if isinstance(value, list | tuple | dict | set):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def expect_type(value: Any, types: Any, expected: str) -> None:
    """Raise `Broken` unless a value is of a type."""
    if not isinstance(value, types):
        raise Broken(expected, described(value))


def _is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _is_raised_by_host(trace: TracebackType | None, component: Component) -> bool:
    """Return whether the innermost code of either the component's package or the host is the host's."""
    package = component.spec.target.partition(":")[0].partition(".")[0]
    for frame, _ in reversed(list(traceback.walk_tb(trace))[1:]):  # the first one has the block
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] == package:
            return False
        if name.startswith("fgvc_cli.") and not name.startswith(LIBRARY):
            return True
    return False
