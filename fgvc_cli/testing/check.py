"""Contract checks and their results. Free of torch."""

from __future__ import annotations

import sys
import traceback
import unittest
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from fgvc_cli.errors import STOPS, cause_of

T = TypeVar("T")

Status = Literal["passed", "failed", "advice", "not applicable"]

LIBRARIES = {"fgvc_cli", "torch", "torchvision", "timm", "numpy", "PIL", *sys.stdlib_module_names}
"""Packages that are not the plugin author's code."""


class ContractError(AssertionError):
    """A component violates its contract.

    Args:
        expected: what the contract requires, as a noun phrase: "scores of shape (3, 5)".
        found: what was found instead, as a clause: "predict returned (3, 4)".
        fix: what the author can do, as an imperative: "return scores B,K".
        trace: traceback of the error in the component, if only its text is known.
    """

    def __init__(self, expected: str, found: str, fix: str, trace: str = "") -> None:
        super().__init__(expected, found, fix)
        self.expected, self.found, self.fix, self.trace = expected, found, fix, trace

    def __str__(self) -> str:
        return f"Expected {self.expected}; {self.found}. {self.fix[:1].upper()}{self.fix[1:]}."


class ContractWarning(UserWarning):
    """A component fulfills its contract but could be faster or easier to use."""


class NotApplicable(unittest.SkipTest):
    """A check does not apply to a component. Test runners report it as skipped."""


@dataclass(frozen=True)
class CheckResult:
    """Result of a check.

    Attributes:
        status: "passed", "failed", "advice" (an advisory check failed) or "not applicable".
        reason: why the check failed and what to do, or why it does not apply, in one line; empty if it passed.
        found: what was found; checks that fail for the same cause have the same.
        trace: traceback of the error in the component, if there was one.
    """

    status: Status
    reason: str = ""
    found: str = ""
    trace: str = ""


@dataclass(frozen=True)
class Check:
    """One requirement of a contract; call it to check it.

    Attributes:
        title: the requirement, as a statement about the component; `str(check)` returns it.
        about: why it matters, in one line.
        run: the check; raises `ContractError` or `NotApplicable`.
        advisory: whether a violation costs only speed or convenience. Calling such a check warns instead of raising.
    """

    title: str
    about: str
    run: Callable[[], None] = field(repr=False)
    advisory: bool = False

    def __str__(self) -> str:
        return self.title

    def __call__(self) -> None:
        """Run the check.

        Raises:
            ContractError: the component violates the contract, or raised an error.
            NotApplicable: the check does not apply to the component.
        """
        try:
            self._run()
        except ContractError as error:
            if not self.advisory:
                raise
            warnings.warn(f"{self.title}: {error}", ContractWarning, stacklevel=2)

    def result(self) -> CheckResult:
        """Run the check and return its result instead of raising."""
        try:
            self._run()
        except NotApplicable as error:
            return CheckResult("not applicable", str(error))
        except ContractError as error:
            raised = error.__cause__
            trace = error.trace if raised is None else "".join(traceback.format_exception(raised))
            return CheckResult("advice" if self.advisory else "failed", str(error), error.found, trace)
        return CheckResult("passed")

    def _run(self) -> None:
        try:
            self.run()
        except (ContractError, NotApplicable, *STOPS):
            raise
        except BaseException as error:  # a component may raise anything, SystemExit included
            found = f"{cause_of(error)} was raised{where_raised(error)}"
            raise ContractError("no error", found, "fix it there") from error


class Checks(Generic[T]):
    """The checks of a kind, in the order of their definition.

    Args:
        prepare: turns what is checked into the argument of each check.
        wrap: wraps the run of each check, for example to fix the random seed.
    """

    def __init__(
        self,
        prepare: Callable[[Any], T],
        wrap: Callable[[Callable[[], None]], Callable[[], None]] = lambda run: run,
    ) -> None:
        self._prepare, self._wrap = prepare, wrap
        self._entries: list[tuple[str, str, Callable[[T], None], bool]] = []

    def __call__(
        self, title: str, about: str, *, advisory: bool = False
    ) -> Callable[[Callable[[T], None]], Callable[[T], None]]:
        """Add the decorated function as a check; see `Check` for the arguments."""

        def add(function: Callable[[T], None]) -> Callable[[T], None]:
            self._entries.append((title, about, function, advisory))
            return function

        return add

    def of(self, component: Any) -> list[Check]:
        """Return the checks of a component or plugin."""
        prepared = self._prepare(component)
        return [
            Check(title, about, self._wrap(lambda function=function: function(prepared)), advisory)  # type: ignore[misc]
            for title, about, function, advisory in self._entries
        ]


def expect(condition: bool, expected: str, found: str, fix: str) -> None:
    """Raise `ContractError` with these texts unless a condition holds."""
    if not condition:
        raise ContractError(expected, found, fix)


def expect_lines(notes: Any, method: str = "notes") -> None:
    """Raise `ContractError` unless the result of a method is a list of single lines."""
    fits = isinstance(notes, list) and all(isinstance(line, str) and "\n" not in line for line in notes)
    expect(fits, f"a list of lines from {method}()", f"it returned {notes!r}", "return strings without line breaks")


def some(names: Sequence[str], most: int = 3) -> str:
    """Join the first names: "a, b, c and 2 more"."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def where_raised(error: BaseException) -> str:
    """Return the innermost line of the author's code in an error's traceback, as " (file:line)"."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] not in LIBRARIES:
            return f" ({frame.f_code.co_filename}:{line})"
    return ""
