"""Describe an error in one line and name the plugin whose code raised it."""

from __future__ import annotations

import errno
import os
import traceback

from fgvc_cli.errors import FgvcError, cause_of
from fgvc_cli.registry.lookup import Registry, get_registry
from fgvc_cli.registry.records import Origin


def origin_of(error: BaseException, registry: Registry) -> Origin | None:
    """Return the external plugin whose code is innermost in an error's traceback; None if there is none.

    A plugin's code is everything in the packages of its own module and of its components' targets.
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


def describe_error(error: BaseException, hint: str) -> str:
    """Describe an error in one line; `hint` is where to find the traceback of an unexpected one."""
    if isinstance(error, FgvcError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" to write {error.filename}" if error.filename else ""
        return f"no space left on the disk{where}; free some, or choose another folder with `out`"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    try:
        origin = origin_of(error, get_registry())
    except FgvcError:  # the registry itself failed
        origin = None
    return f"unexpected error{f' in {origin}' if origin else ''}: {cause_of(error)} ({hint})"
