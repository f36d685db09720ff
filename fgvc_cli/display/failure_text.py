"""The one line that says what went wrong."""

from __future__ import annotations

import errno
import os

from fgvc_cli.errors import FgvcError


def message_of(error: BaseException) -> str:
    """Say in one line what went wrong, and where it can be told, what to do."""
    if isinstance(error, FgvcError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" writing {error.filename}" if error.filename else ""
        return f"no space left on the disk{where}: make room, or choose another place with --out."
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror}."
    from fgvc_cli.registry.records import cause_of

    return f"unexpected error{_whose(error)}: {cause_of(error)} (--debug shows where)"


def _whose(error: BaseException) -> str:
    """Say which plugin, not built in, an error comes from, if any."""
    from fgvc_cli.registry import get_registry
    from fgvc_cli.registry.blame import blamed

    try:
        origin = blamed(error, get_registry())
    except FgvcError:  # the registry itself is what failed
        return ""
    return f" in {origin}" if origin is not None else ""
