"""Describe an unexpected error in one line, naming the plugin whose code raised it."""

from __future__ import annotations

import errno
import os
import traceback

from fgvc_cli.errors import FgvcError
from fgvc_cli.registry.lookup import Registry
from fgvc_cli.registry.records import Origin


def blamed(error: BaseException, registry: Registry) -> Origin | None:
    """Return the plugin, not built in, whose code an error came through last; None: no such code was involved.

    A plugin's code is what lies in the packages that it names, as its own module or as a component's target.
    """
    packages = {
        name.partition(":")[0].partition(".")[0]: plugin.origin
        for plugin in registry.plugins
        if not plugin.builtin
        for name in (plugin.module, *(component.spec.target for component in plugin.components))
    }
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in packages:
            return packages[package]
    return None


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

    pass

    try:
        origin = blamed(error, get_registry())
    except FgvcError:  # the registry itself is what failed
        return ""
    return f" in {origin}" if origin is not None else ""
