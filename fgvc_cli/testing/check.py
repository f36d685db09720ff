"""One contract check, and its possible outcomes."""

from __future__ import annotations

import sys
import traceback
import unittest
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from fgvc_cli.errors import cause_of

S = TypeVar("S")

Status = Literal["kept", "broken", "advice", "not applicable"]

NOT_THE_AUTHORS = {"fgvc_cli", "torch", "torchvision", "timm", "numpy", "PIL", *sys.stdlib_module_names}
"""Packages in which a traceback ends without that being where the mistake is."""


class ContractBroken(AssertionError):  # noqa: N818  it says what is so, not what went wrong
    """A component does not keep its contract.

    Args:
        expected: what the contract asks for, as a noun: "scores of shape (3, 5)".
        found: what was found instead, as a clause: "predict returned (3, 4)".
        mend: what the author can do, as an order: "return B,K scores".
        trace: where it was raised, if that is known as text alone.
    """

    def __init__(self, expected: str, found: str, mend: str, trace: str = "") -> None:
        super().__init__(expected, found, mend)
        self.expected, self.found, self.mend, self.trace = expected, found, mend, trace

    def __str__(self) -> str:
        return f"Expected {self.expected}; {self.found}. {self.mend[:1].upper()}{self.mend[1:]}."


class ContractAdvice(UserWarning):
    """A component keeps its contract and could do better."""


class NotApplicable(unittest.SkipTest):
    """A check does not concern this component. Test runners show what raises it as skipped."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Outcome:
    """What came of a check.

    Attributes:
        status: "kept", "broken", "advice" (kept, but it could be better) or "not applicable".
        reason: one line on what is wrong and what to do, or why the check does not apply; empty where it was kept.
        found: what was found; checks that fail for one cause found the same.
        trace: where the component raised, if it did.
    """

    status: Status
    reason: str = ""
    found: str = ""
    trace: str = ""


@dataclass(frozen=True)
class Check:
    """One thing that a component must keep; call it to find out.

    Attributes:
        title: a sentence that is true of a component which keeps it; `str(check)` is this.
        about: one line on why it matters.
        run: finds out; raises `ContractBroken` or `NotApplicable`.
        advisory: whether not to keep it costs only speed or comfort. Called, such a check warns instead of failing.
    """

    title: str
    about: str
    run: Callable[[], None] = field(repr=False)
    advisory: bool = False

    def __str__(self) -> str:
        return self.title

    def __call__(self) -> None:
        """Find out whether the component keeps this.

        Raises:
            ContractBroken: it does not; also where it raises something of its own.
            NotApplicable: the check does not concern it.
        """
        try:
            self._run()
        except ContractBroken as broken:
            if not self.advisory:
                raise
            warnings.warn(f"{self.title}: {broken}", ContractAdvice, stacklevel=2)

    def outcome(self) -> Outcome:
        """Find out, and return what came of it instead of raising."""
        try:
            self._run()
        except NotApplicable as error:
            return Outcome("not applicable", error.reason)
        except ContractBroken as broken:
            raised = broken.__cause__
            trace = broken.trace if raised is None else "".join(traceback.format_exception(raised))
            return Outcome("advice" if self.advisory else "broken", str(broken), broken.found, trace)
        return Outcome("kept")

    def _run(self) -> None:
        try:
            self.run()
        except (ContractBroken, NotApplicable, KeyboardInterrupt):
            raise
        except BaseException as error:  # a component may raise anything, SystemExit included
            raise ContractBroken(
                f"that {self.title}", f"{cause_of(error)} was raised{where_raised(error)}", "mend it there"
            ) from error


class Checks(Generic[S]):
    """The checks of a kind, in the order of their definition; each is a function of what is being checked."""

    def __init__(self) -> None:
        self._entries: list[tuple[str, str, Callable[[S], None], bool]] = []

    def __call__(
        self, title: str, about: str, *, advisory: bool = False
    ) -> Callable[[Callable[[S], None]], Callable[[S], None]]:
        """Add the function below as a check; see `Check` for the arguments."""

        def add(function: Callable[[S], None]) -> Callable[[S], None]:
            self._entries.append((title, about, function, advisory))
            return function

        return add

    def of(self, subject: S) -> list[Check]:
        """Return the checks of one component."""
        return [
            Check(title, about, lambda function=function: function(subject), advisory)  # type: ignore[misc]
            for title, about, function, advisory in self._entries
        ]


def expect(kept: bool, expected: str, found: str, mend: str) -> None:
    """Raise `ContractBroken` unless something is as the contract has it; the texts are its arguments."""
    if not kept:
        raise ContractBroken(expected, found, mend)


def some(names: Sequence[str], most: int = 3) -> str:
    """Write the first few of many names."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def where_raised(error: BaseException) -> str:
    """Say where the author's code was when it was raised: the innermost line outside of the libraries."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in NOT_THE_AUTHORS:
            return f" ({frame.f_code.co_filename}:{line})"
    return ""
