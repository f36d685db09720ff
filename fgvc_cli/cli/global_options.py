"""Options of every command, read before the command line is parsed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fgvc_cli.errors import UsageError
from fgvc_cli.settings import ALL_PLUGINS, Settings, split_names
from fgvc_cli.sizes import parse_bytes

FLAGS = ("--debug", "--quiet", "--strict-plugins", "--no-external-plugins")
LISTS = ("--disable-plugins", "--only-plugins")
FOLDERS = {"--runs": "runs", "--data-root": "data_root_given", "--cache": "cache_given"}
"""Options that name a folder, and the field of `Settings` each sets."""

CACHE_LIMIT = "--cache-limit"


def take_global_options(arguments: Sequence[str], settings: Settings) -> tuple[list[str], Settings]:
    """Take the global options out of the arguments, wherever they stand before a `--`.

    Returns:
        The other arguments, and the settings with what the options say.

    Raises:
        UsageError: an option's value is missing, or is no amount of bytes where that is meant.
    """
    rest: list[str] = []
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        name, equals, value = argument.partition("=")
        if argument == "--":
            return [*rest, argument, *pending], settings
        if argument in FLAGS:
            settings = _with_flag(settings, argument)
        elif name in LISTS:
            value = value if equals else _next(pending, f"{name}: write the distributions after it, comma-separated.")
            settings = settings.changed(name, **{name[2:].replace("-", "_"): split_names(value)})
        elif name in FOLDERS:
            value = value if equals else _next(pending, f"{name}: write the folder after it.")
            settings = settings.changed(name, **{FOLDERS[name]: Path(value).expanduser()})
        elif name == CACHE_LIMIT:
            value = value if equals else _next(pending, f"{name}: write an amount after it, such as 50GB or 0.")
            settings = settings.changed(name, cache_limit=parse_bytes(value, name))
        else:
            rest.append(argument)
    return rest, settings


def _next(pending: list[str], missing: str) -> str:
    if not pending or pending[0].startswith("-"):
        raise UsageError(missing)
    return pending.pop(0)


def _with_flag(settings: Settings, flag: str) -> Settings:
    if flag == "--no-external-plugins":
        return settings.changed(flag, disable_plugins=(ALL_PLUGINS,))
    return settings.changed(flag, **{{"--strict-plugins": "strict"}.get(flag, flag[2:]): True})
