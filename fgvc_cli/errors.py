"""Errors that a user can act on. The command line prints them in one line; `--debug` adds the traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FgvcError(Exception):
    """Something could not be done. The message says what happened, with which value, and what to do."""

    exit_code = 1


class UsageError(FgvcError, ValueError):
    """An argument or a setting is wrong; nothing was started."""

    exit_code = 2


class Terminated(SystemExit):
    """A signal ends the program. Unlike the `SystemExit` of a plugin's code, it is never reported as a failure."""

    def __init__(self, signal: int) -> None:
        super().__init__(128 + signal)


STOPS = (KeyboardInterrupt, Terminated)
"""What code that survives any exception of a plugin must not catch."""


RENAMED = {
    "accumulate": "grad_accum_steps",
    "coast": "zero",
    "crop_ratio": "crop_pct",
    "fit": "crop_mode",
    "idle": "missing_grad",
    "occlusion": "sliding_window",
    "root": "sqrt",
    "short": "center",
    "stretch": "squash",
    "validation_seed": "val_seed",
    "validation_share": "val_fraction",
}
"""Current names of settings, values and components by former name."""

UNSUPPORTED = {
    "fp16": "fp16 needs loss scaling, which no optimizer here does; bf16 has the range of fp32 and needs none",
}
"""Why values that other programs know are not supported."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the closest known names, or an empty string.

    Former names and unsupported ones are recognized.
    """
    known = list(known)
    if name in UNSUPPORTED and name not in known:
        return f" {UNSUPPORTED[name]}"
    if RENAMED.get(name) in known:
        return f" It was renamed to '{RENAMED[name]}'."
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.55)
    if not close:
        return ""
    return " Did you mean " + " or ".join(f"'{n}'" for n in close) + "?"


def cause_of(error: BaseException) -> str:
    """Describe an exception in one line, with its type unless it is an `FgvcError`."""
    if isinstance(error, SystemExit):
        return f"it called sys.exit({'' if error.code is None else repr(error.code)})"
    try:
        text = " ".join(str(error).split())
    except Exception:  # `__str__` of a third party's exception may raise
        text = ""
    text = text if len(text) <= 300 else text[:297] + "..."
    if isinstance(error, FgvcError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
