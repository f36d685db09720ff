"""What holds for the whole program: where runs, data and caches live, and which plugins may load.

Each value comes from the environment or an option, else from a default; `fgvc show settings` prints all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from fgvc_cli.sizes import parse_bytes

ALL_PLUGINS = "all"
"""In FGVC_DISABLE_PLUGINS: every plugin that is not built in."""

CACHE_LIMIT = 64 * 10**9
"""Bytes that decoded images may take, unless it is said otherwise."""

VARIABLES = {
    "runs": "FGVC_RUNS",
    "data_root": "FGVC_DATA",
    "cache": "FGVC_CACHE",
    "cache_limit": "FGVC_CACHE_LIMIT",
    "disable_plugins": "FGVC_DISABLE_PLUGINS",
    "only_plugins": "FGVC_ONLY_PLUGINS",
}
"""The environment variable of each setting that has one."""


@dataclass(frozen=True)
class Settings:
    """The settings in force.

    Attributes:
        runs: folder that training puts its run folders in.
        data_root_given: folder of named datasets, if one was given; see `data_root`.
        cache_given: folder of the decode cache and the like, if one was given; see `cache`.
        cache_limit: bytes that decoded images may take in the cache; 0: none are kept.
        disable_plugins: distributions whose plugins are not imported; `("all",)` leaves the built-ins alone.
        only_plugins: distributions whose plugins may be imported beside the built-ins; None for any.
        strict: whether a plugin that fails to load is an error.
        debug: whether an error shows its traceback.
        quiet: whether notes and progress are kept back.
        origins: where each value that is not a default came from, such as `{"runs": "FGVC_RUNS"}`.
    """

    runs: Path = Path("runs")
    data_root_given: Path | None = None
    cache_given: Path | None = None
    cache_limit: int = CACHE_LIMIT
    disable_plugins: tuple[str, ...] = ()
    only_plugins: tuple[str, ...] | None = None
    strict: bool = False
    debug: bool = False
    quiet: bool = False
    origins: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def data_root(self) -> Path:
        """Folder that named datasets are kept in."""
        if self.data_root_given is not None:
            return self.data_root_given
        import platformdirs  # only when it is asked for: `fgvc --help` should not pay for it

        return platformdirs.user_data_path("fgvc") / "data"

    @cached_property
    def cache(self) -> Path:
        """Folder for what can be made again."""
        if self.cache_given is not None:
            return self.cache_given
        import platformdirs

        return platformdirs.user_cache_path("fgvc")

    def origin(self, name: str) -> str:
        """Say where a setting came from: a variable, an option, or "default"."""
        return self.origins.get(name, "default")

    def changed(self, origin: str, **values: object) -> Settings:
        """Return these settings with some values replaced, and where they came from noted."""
        origins = {**self.origins, **dict.fromkeys((name.removesuffix("_given") for name in values), origin)}
        return replace(self, origins=origins, **values)  # type: ignore[arg-type]


def from_environment(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from environment variables; an empty variable counts as not set.

    Raises:
        UsageError: FGVC_CACHE_LIMIT is no amount of bytes.
    """
    environment = os.environ if environment is None else environment
    given = {name: environment[variable] for name, variable in VARIABLES.items() if environment.get(variable)}
    return Settings(
        runs=_path(given["runs"]) if "runs" in given else Path("runs"),
        data_root_given=_path(given["data_root"]) if "data_root" in given else None,
        cache_given=_path(given["cache"]) if "cache" in given else None,
        cache_limit=parse_bytes(given["cache_limit"], "FGVC_CACHE_LIMIT") if "cache_limit" in given else CACHE_LIMIT,
        disable_plugins=split_names(given.get("disable_plugins", "")),
        only_plugins=split_names(given["only_plugins"]) if "only_plugins" in given else None,
        origins={name: VARIABLES[name] for name in given},
    )


def split_names(text: str) -> tuple[str, ...]:
    """Split a comma-separated list of distributions."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _path(text: str) -> Path:
    return Path(text).expanduser()


_current: Settings | None = None


def current() -> Settings:
    """Return the settings in force; without `use`, those of the environment."""
    return from_environment() if _current is None else _current


def use(settings: Settings | None) -> None:
    """Put settings in force from now on; None goes back to those of the environment."""
    global _current
    _current = settings


@contextmanager
def in_force(settings: Settings) -> Iterator[None]:
    """Put settings in force for a while, and then what was in force before."""
    before = _current
    use(settings)
    try:
        yield
    finally:
        use(before)
