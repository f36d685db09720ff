"""The options that hold for every command, read from the arguments before the command line itself is.

They say which plugins may load, and plugins may add subcommands: so they must be known before Typer reads anything.
"""

from __future__ import annotations

from collections.abc import Sequence

from fgvc_cli.errors import UsageError
from fgvc_cli.settings import ALL_PLUGINS, Settings, split_names

FLAGS = ("--debug", "--quiet", "--strict-plugins", "--no-external-plugins")
LISTS = ("--disable-plugins", "--only-plugins")


def take_global_options(arguments: Sequence[str], settings: Settings) -> tuple[list[str], Settings]:
    """Take the global options out of the arguments, wherever they stand before a `--`.

    Returns:
        The other arguments, and the settings with what the options say.

    Raises:
        UsageError: an option that takes a list of distributions has none.
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
            if not equals:
                if not pending or pending[0].startswith("-"):
                    raise UsageError(f"{name}: write the distributions after it, separated by commas.")
                value = pending.pop(0)
            settings = settings.changed(name, **{name[2:].replace("-", "_"): split_names(value)})
        else:
            rest.append(argument)
    return rest, settings


def _with_flag(settings: Settings, flag: str) -> Settings:
    if flag == "--no-external-plugins":
        return settings.changed(flag, disable_plugins=(ALL_PLUGINS,))
    return settings.changed(flag, **{{"--strict-plugins": "strict"}.get(flag, flag[2:]): True})
