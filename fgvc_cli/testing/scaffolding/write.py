"""Render the templates of a plugin package and write them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from string import Template

from fgvc_cli._version import __version__
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.testing.scaffolding.names import PluginNames

SUFFIX = ".template"
"""Suffix of templates, so that Python and linters ignore them."""

PACKAGE = "package"
"""Folder of templates that is renamed to the new package."""

USAGE = "usage.md"
"""Section of the README that depends on the kind; not a file of its own."""


@dataclass(frozen=True)
class Scaffold:
    """A plugin package that was written.

    Attributes:
        names: its names.
        folder: its folder.
        files: its files, relative to the folder, sorted by name.
        commands: shell commands to run next in that folder.
    """

    names: PluginNames
    folder: Path
    files: tuple[str, ...]
    commands: tuple[str, ...]


def write_plugin(names: PluginNames, folder: Path) -> Scaffold:
    """Write a new plugin package into a new folder.

    Raises:
        UsageError: the folder exists.
        FgvcError: it cannot be written; a partially written folder is removed.
    """
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} already exists and is not overwritten; choose another folder with `out`")
    contents = render(names)
    part = folder.with_name(f".{folder.name}.part")  # half a package must not look complete
    try:
        shutil.rmtree(part, ignore_errors=True)  # left by a killed process
        try:
            for name, text in contents.items():
                file = part / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise FgvcError(
            f"{folder} cannot be written: {error.strerror or error}; choose another folder with `out`"
        ) from error
    return Scaffold(names, folder, tuple(sorted(contents)), _commands(contents["README.md"]))


def render(names: PluginNames) -> dict[str, str]:
    """Return the content of each file of a new plugin, by its path."""
    words = {
        "kind": names.kind,
        "name": names.component,
        "distribution": names.distribution,
        "package": names.package,
        "stem": names.stem,
        "version": __version__,
    }
    templates = dict(_templates(names.kind))
    words["usage"] = _filled(templates.pop(USAGE), words).strip()
    return {_renamed(path, names.package): _filled(template, words) for path, template in templates.items()}


def _templates(kind: str) -> Iterator[tuple[str, Traversable]]:
    """Yield the templates of all kinds and of one kind, with their paths without the suffix."""
    root = files("fgvc_cli.testing.scaffolding") / "templates"
    for part in ("shared", kind):
        for path, template in _below(root / part, PurePosixPath()):
            yield str(path).removesuffix(SUFFIX), template


def _below(folder: Traversable, path: PurePosixPath) -> Iterator[tuple[PurePosixPath, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _below(entry, path / entry.name)
        elif entry.name.endswith(SUFFIX):
            yield path / entry.name, entry


def _renamed(path: str, package: str) -> str:
    first, *rest = PurePosixPath(path).parts
    return str(PurePosixPath(package if first == PACKAGE else first.replace("dot-", "."), *rest))


def _filled(template: Traversable, words: dict[str, str]) -> str:
    return Template(template.read_text(encoding="utf-8")).substitute(words)


def _commands(readme: str) -> tuple[str, ...]:
    """Return the commands in a README's first block of shell code."""
    block = readme.partition("```sh\n")[2].partition("```")[0]
    return tuple(line for line in block.splitlines() if line.strip())
