"""Compare the plugins that something was made with to those that are installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fgvc_cli.errors import FgvcError
from fgvc_cli.registry.lookup import NotInstalledError, Registry
from fgvc_cli.registry.records import BUILTIN_DISTRIBUTION, normalized


@contextmanager
def made_with(recorded: Mapping[str, str], what: str, registry: Registry) -> Iterator[None]:
    """Explain errors by the distributions that something was made with; warn once of those with another version.

    Args:
        recorded: version by distribution; "" if unknown.
        what: was made with them, such as a path.
        registry: of the installed plugins.

    Raises:
        FgvcError: one of them is needed and not installed.
    """
    installed = {normalized(plugin.distribution): plugin.origin.version for plugin in registry.plugins}
    other = {
        name: (version, installed[normalized(name)])
        for name, version in recorded.items()
        if version and installed.get(normalized(name), version) != version
    }
    changed = "; ".join(f"{what} was made with {name} {was}, {now} is installed" for name, (was, now) in other.items())
    for name, (was, now) in other.items():
        if normalized(name) != BUILTIN_DISTRIBUTION:
            registry.warn_once(f"{what} was made with {name} {was}; {now} is installed", f"{name} {was}")
    try:
        yield
    except NotInstalledError as error:
        versions = {normalized(name): version for name, version in recorded.items()}
        if (version := versions.get(normalized(error.distribution))) is None:
            raise
        # No command: the name may come from a stranger's file.
        raise FgvcError(
            f"{what} needs {f'{error.distribution} {version}'.strip()} ({error.kind} {error.name}), which is not "
            "installed: install it from where you got it, if you trust it"
        ) from error
    except FgvcError as error:
        if changed and len(error.args) == 1:
            error.args = (f"{str(error).rstrip('.')} ({changed})",)
        raise
