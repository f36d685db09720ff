"""Fill the generated tables of the documentation.

A table is between two marker lines in a page of docs/:

    <!-- options: train -->         settings of a section: train or augment
    <!-- options: head pim -->      options of a component
    <!-- options: fgvc explain -->  options of a command
    <!-- components: explainer -->  built-in components of a kind
    <!-- recipes -->                settings of the built-in recipes
    <!-- recipe conditions -->      their conditional settings
    <!-- end -->

Run `python docs/generate.py` after changing an option, and `python docs/generate.py --check` to see which pages are out
of date.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fgvc_cli.cli.lazy import builtin_commands
from fgvc_cli.config.run_config import SECTIONS
from fgvc_cli.config.train_options import AugmentOptions, TrainOptions
from fgvc_cli.options import describe, value_text
from fgvc_cli.registry import Component, get_registry
from fgvc_cli.registry.records import BUILTIN_DISTRIBUTION
from fgvc_recipes import fgvc_recipes

PAGES = Path(__file__).parent
BLOCK = re.compile(r"^<!-- ((?:options|components|recipes?)\b[^\n]*?) -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)


def filled(text: str) -> str:
    """Return a page with its tables filled."""
    return BLOCK.sub(lambda match: f"<!-- {match[1]} -->\n\n{table(match[1])}\n\n<!-- end -->", text)


def table(what: str) -> str:
    """Return the table of a marker.

    Raises:
        SystemExit: there is no such table.
    """
    if what == "recipes":
        return recipes()
    if what == "recipe conditions":
        return recipe_conditions()
    kind, _, name = what.partition(": ")
    if kind == "components":
        built_in = [c for c in get_registry().components(name) if c.builtin]  # type: ignore[arg-type]
        return markdown(["name", "description"], [[f"`{c.name}`", c.spec.summary] for c in built_in])
    if kind != "options":
        sys.exit(f"<!-- {what} -->: no such table")
    if name.startswith("fgvc "):
        return command_options(name.split()[1:])
    sections = {"train": TrainOptions, "augment": AugmentOptions}
    options = sections[name] if name in sections else get_registry().find(*name.split()).options_type()  # type: ignore[arg-type]
    rows = [[f"`{i.name}`", i.type, code(i.default), i.help] for i in describe(options)]
    return markdown(["option", "type", "default", "description"], rows)


def command_options(names: Sequence[str]) -> str:
    """Return the options of a command or a subcommand."""
    command = builtin_commands()[names[0]].loaded()
    for name in names[1:]:
        command = command.commands[name]
    rows = []
    for option in command.params:
        opts = [name for name in option.opts if name.startswith("--")]
        shown = getattr(option, "show_default", None)
        default = "" if option.default in (None, False, []) else str(option.default)
        if opts:
            rows.append([f"`{opts[0]}`", shown if isinstance(shown, str) else default, option.help])
    return markdown(["option", "default", "description"], rows)


def recipes() -> str:
    """Return what each built-in recipe sets without conditions."""
    found = {c.name: tomllib.loads(c.load()) for c in _recipes()}
    settings = dict.fromkeys(
        (section, key) for section in SECTIONS for document in found.values() for key in document.get(section, {})
    )
    rows = [
        [f"`{section}.{key}`", *(_cell(document.get(section, {}), key) for document in found.values())]
        for section, key in settings
    ]
    return markdown(["setting", *found], rows)


def recipe_conditions() -> str:
    """Return the conditional settings of the built-in recipes."""
    rows = []
    for component in _recipes():
        for block in tomllib.loads(component.load()).get("when", []):
            conditions = {k: v if isinstance(v, list) else [v] for k, v in block.items() if k != "set"}
            settings = [f"`{s}.{key}={value_text(v)}`" for s, t in block["set"].items() for key, v in t.items()]
            where = "; ".join(f"{key}: {', '.join(values)}" for key, values in conditions.items())
            rows.append([component.name, where, ", ".join(settings)])
    return markdown(["recipe", "where", "then"], rows)


def _recipes() -> list[Component]:
    """Return the built-in recipes in the order of their registration."""
    return [get_registry().find("recipe", f"{BUILTIN_DISTRIBUTION}:{spec.name}") for spec in fgvc_recipes()]


def _cell(table: dict[str, Any], key: str) -> str:
    return value_text(table[key]) if key in table else ""


def code(value: Any) -> str:
    """Return a default as inline code."""
    if isinstance(value, float) and len(repr(value)) > 8:
        value = float(f"{value:.4g}")
    return f"`{value_text(value)}`" if value_text(value) else ""


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns."""
    lines = [[cell.replace("|", r"\|") for cell in row] for row in [headings, *rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines
    )


def main(arguments: Sequence[str]) -> int:
    """Fill the tables of all pages, or with `--check` return 1 if one is out of date."""
    stale = [page for page in sorted(PAGES.glob("*.md")) if filled(page.read_text("utf-8")) != page.read_text("utf-8")]
    for page in stale:
        if "--check" in arguments:
            print(f"{page.name} is out of date; run python docs/generate.py")
        else:
            page.write_text(filled(page.read_text("utf-8")), encoding="utf-8")
            print(f"{page.name} written")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
