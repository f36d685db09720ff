"""Settings of the whole program: folders of runs, data and caches, and which plugins may load.

Each comes from the command line or the environment, or has a default; `fgvc show settings` prints all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from fgvc_cli.errors import UsageError
from fgvc_cli.formatting import expanded, parse_bytes

ALL_PLUGINS = "all"
"""In FGVC_DISABLE_PLUGINS: every external plugin."""

CACHE_LIMIT = 64 * 10**9
"""Default size limit of the cache of decoded images, in bytes."""

VARIABLES = {
    "runs": "FGVC_RUNS",
    "data_root": "FGVC_DATA",
    "weights_root": "FGVC_WEIGHTS",
    "cache": "FGVC_CACHE",
    "cache_limit": "FGVC_CACHE_LIMIT",
    "disable_plugins": "FGVC_DISABLE_PLUGINS",
    "only_plugins": "FGVC_ONLY_PLUGINS",
}
"""Environment variable of each setting that has one."""


@dataclass(frozen=True)
class Settings:
    """Settings of the whole program.

    Attributes:
        runs: folder of run folders.
        data_root_given: folder of named datasets, if given; see `data_root`.
        weights_root_given: folder of pretrained weights, if given; see `weights_root`.
        cache_given: cache directory, if given; see `cache`.
        cache_limit: maximum size of cached images in bytes; 0: no caching.
        disable_plugins: distributions whose plugins are not imported; `("all",)` for all but the built-in ones.
        only_plugins: distributions whose plugins are imported in addition to the built-in ones; None for any.
        strict_plugins: whether a plugin that fails to load is an error.
        debug: whether an error prints its traceback.
        quiet: whether notes and progress are suppressed.
        origins: source of each value that is not a default, such as `{"runs": "FGVC_RUNS"}`.
    """

    runs: Path = Path("runs")
    data_root_given: Path | None = None
    weights_root_given: Path | None = None
    cache_given: Path | None = None
    cache_limit: int = CACHE_LIMIT
    disable_plugins: tuple[str, ...] = ()
    only_plugins: tuple[str, ...] | None = None
    strict_plugins: bool = False
    debug: bool = False
    quiet: bool = False
    origins: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def data_root(self) -> Path:
        """Folder of named datasets."""
        if self.data_root_given is not None:
            return self.data_root_given
        import platformdirs  # not for `fgvc --help`

        return platformdirs.user_data_path("fgvc") / "data"

    @cached_property
    def weights_root(self) -> Path:
        """Folder of pretrained weights."""
        if self.weights_root_given is not None:
            return self.weights_root_given
        import platformdirs

        return platformdirs.user_data_path("fgvc") / "weights"

    @cached_property
    def cache(self) -> Path:
        """Cache directory."""
        if self.cache_given is not None:
            return self.cache_given
        import platformdirs

        return platformdirs.user_cache_path("fgvc")

    def origin(self, name: str) -> str:
        """Return the source of a setting: a variable, an option, or "default"."""
        return self.origins.get(name, "default")

    def changed(self, origin: str, **values: object) -> Settings:
        """Return a copy with other values that come from `origin`."""
        origins = {**self.origins, **dict.fromkeys((name.removesuffix("_given") for name in values), origin)}
        return replace(self, origins=origins, **values)  # type: ignore[arg-type]

    def parsed(self, name: str, text: str, origin: str) -> Settings:
        """Return a copy with one setting of `VARIABLES` parsed from the text of a variable or an option.

        Raises:
            UsageError: the cache limit is not a size, or a folder is a file.
        """
        if name.endswith("_plugins"):
            return self.changed(origin, **{name: tuple(part.strip() for part in text.split(",") if part.strip())})
        if name == "cache_limit":
            return self.changed(origin, cache_limit=parse_bytes(text, origin))
        folder = expanded(text)
        if folder.is_file():
            raise UsageError(f"{origin} {text} is a file; name a folder")
        return self.changed(origin, **{name if name == "runs" else f"{name}_given": folder})


def from_environment(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from environment variables; an empty variable counts as not set.

    Raises:
        UsageError: FGVC_CACHE_LIMIT is not a size, or a folder is a file.
    """
    environment = os.environ if environment is None else environment
    settings = Settings()
    for name, variable in VARIABLES.items():
        if text := environment.get(variable):
            settings = settings.parsed(name, text, variable)
    return settings


_current: Settings | None = None


def current() -> Settings:
    """Return the current settings; without `use`, those of the environment."""
    return from_environment() if _current is None else _current


def use(settings: Settings | None) -> None:
    """Set the current settings; None for those of the environment."""
    global _current
    _current = settings


@contextmanager
def override(settings: Settings) -> Iterator[None]:
    """Use settings while the block runs."""
    before = _current
    use(settings)
    try:
        yield
    finally:
        use(before)
