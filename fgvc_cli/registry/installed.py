"""Which plugins are installed, and which of them the settings let load. Nothing of a plugin is imported here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions

from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.registry.records import BUILTIN_DISTRIBUTION, Origin, normalized
from fgvc_cli.settings import ALL_PLUGINS, Settings

GROUP = "fgvc"
"""The entry-point group that names plugins."""


@dataclass(frozen=True, order=True)
class InstalledPlugin:
    """One entry point of an installed distribution; `module` is what it names."""

    distribution: str
    name: str
    module: str
    version: str

    @property
    def origin(self) -> Origin:
        """Its distribution and version."""
        return Origin(self.distribution, self.version)


def installed_plugins(path: list[str] | None = None) -> list[InstalledPlugin]:
    """List the entry points of group `fgvc`, sorted by distribution and name.

    A distribution can be seen twice, once where it is installed and once in a checkout on the path; what an earlier
    one named is not taken again. A distribution whose metadata cannot be read is left out.

    Args:
        path: folders to look in instead of `sys.path`.
    """
    found: dict[tuple[str, str, str], InstalledPlugin] = {}
    named: set[tuple[str, str]] = set()
    for distribution in distributions(path=path) if path is not None else distributions():
        here = [
            plugin
            for plugin in _plugins_of(distribution)
            if (normalized(plugin.distribution), plugin.name) not in named
        ]
        for plugin in here:
            named.add((normalized(plugin.distribution), plugin.name))
            found.setdefault((normalized(plugin.distribution), plugin.name, plugin.module), plugin)
    return sorted(found.values())


def _plugins_of(distribution: Distribution) -> list[InstalledPlugin]:
    try:
        # Parsing the entry points of every distribution, and the metadata of any, is what takes the time.
        if f"[{GROUP}]" not in (distribution.read_text("entry_points.txt") or ""):
            return []
        name, version = distribution.metadata["Name"], distribution.version
        entries = [entry for entry in distribution.entry_points if entry.group == GROUP]
        return [InstalledPlugin(str(name), entry.name, entry.value, str(version)) for entry in entries]
    except Exception:  # metadata of other people's packages: any of it can be damaged, and none of it is ours
        return []


def require_builtins(plugins: Iterable[InstalledPlugin]) -> None:
    """Refuse to go on in a checkout that was never installed.

    Raises:
        FgvcError: no plugin is a built-in one.
    """
    if not any(plugin.origin.builtin for plugin in plugins):
        raise FgvcError(
            "built-ins not found: fgvc is being run from a folder where it is not installed; run: pip install -e ."
        )


def disabled_plugins(plugins: Iterable[InstalledPlugin], settings: Settings) -> dict[InstalledPlugin, str]:
    """Return the plugins that must not be imported, each with what disables it.

    Raises:
        UsageError: the settings name a distribution that has no plugin, or the built-ins.
    """
    plugins = list(plugins)
    known = {normalized(p.distribution): p.distribution for p in plugins if not p.origin.builtin}
    deny_origin, allow_origin = settings.origin("disable_plugins"), settings.origin("only_plugins")
    everything = ALL_PLUGINS in settings.disable_plugins
    denied = _checked((n for n in settings.disable_plugins if n != ALL_PLUGINS), known, deny_origin)
    if BUILTIN_DISTRIBUTION in denied:
        raise UsageError(f"{deny_origin}={BUILTIN_DISTRIBUTION}: the built-in components cannot be disabled.")
    allowed = None if settings.only_plugins is None else _checked(settings.only_plugins, known, allow_origin)

    disabled = {}
    for plugin in plugins:
        name = normalized(plugin.distribution)
        if plugin.origin.builtin:
            continue
        if everything or name in denied:
            disabled[plugin] = deny_origin
        elif allowed is not None and name not in allowed:
            disabled[plugin] = allow_origin
    return disabled


def _checked(names: Iterable[str], known: dict[str, str], origin: str) -> set[str]:
    checked = set()
    for given in names:
        name = normalized(given)
        if name not in known and name != BUILTIN_DISTRIBUTION:
            installed = ", ".join(sorted(known.values())) or "none"
            raise UsageError(
                f"{origin}: no installed distribution named '{given}' has a plugin.{did_you_mean(name, known)} "
                f"Distributions with plugins: {installed}."
            )
        checked.add(name)
    return checked
