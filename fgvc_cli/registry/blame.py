"""Which plugin an unexpected error comes from: the one whose code was running when it was raised."""

from __future__ import annotations

import traceback

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
