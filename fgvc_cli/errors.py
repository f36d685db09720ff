"""Errors a person can act on. The command line prints them in one line; `--debug` shows where they came from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FgvcError(Exception):
    """It could not be done. The message says what was given, what is wrong with it and what to do."""

    exit_code = 1


class UsageError(FgvcError):
    """The command line or a configuration is wrong: nothing was started."""

    exit_code = 2


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the nearest known names, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.55)
    if not near:
        return ""
    return " Did you mean " + " or ".join(f"'{n}'" for n in near) + "?"
