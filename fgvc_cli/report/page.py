"""The HTML page: templates filled in, and sections assembled into one document."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fgvc_cli.formatting import duration_text, percent

EMPTY = Markup()
NO_BREAK = "\N{NO-BREAK SPACE}"
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]")
"""Characters that HTML forbids; class and file names may contain them."""


def fragment(template: str, **values: Any) -> Markup:
    """Fill in a template, a file in `templates`; a missing variable is an error."""
    return Markup(_environment().get_template(template).render(**values))


def percent_text(value: float | None) -> str:
    """Format a fraction as a percentage without a line break; a dash for None."""
    return "–" if value is None else unbroken(percent(value))


def unbroken(text: str) -> str:
    """Keep numbers and their percent signs on one line."""
    return text.replace(" %", f"{NO_BREAK}%")


def count_text(value: float | None) -> str:
    """Format a count with thousands separators; a dash for None."""
    return "–" if value is None else f"{value:,.0f}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fgvc_cli.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent_text, count=count_text, duration=duration_text)
    return environment


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        anchor: its id; unique in the page.
        title: heading, one level below that of the parent section.
        body: HTML without headings.
        parts: subsections.
        folded: whether it is collapsed at first.
        subtitle: shown with the heading, such as the main figure.
    """

    anchor: str
    title: str
    body: Markup = EMPTY
    parts: Sequence[Section] = ()
    folded: bool = False
    subtitle: str = ""


@dataclass(frozen=True)
class Page:
    """An HTML page.

    Attributes:
        title: of the document, and its only first-level heading.
        kicker: line above the title.
        lede: HTML below the title: the main result.
        sections: linked from the top of the page.
        footer: the last line.
    """

    title: str
    kicker: str
    lede: Markup
    sections: Sequence[Section]
    footer: str

    def html(self) -> str:
        """Return the document.

        Raises:
            ValueError: two sections have the same anchor.
        """
        anchors = [section.anchor for section in _all(self.sections)]
        if repeated := {anchor for anchor in anchors if anchors.count(anchor) > 1}:
            raise ValueError(f"duplicate anchors: {', '.join(sorted(repeated))}")
        style = style_sheet()
        # The page's policy allows this style sheet alone, by its hash.
        digest = "sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        document = fragment("page.html", page=self, style=Markup(style), style_hash=digest)
        return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", document)


def style_sheet() -> str:
    """Return the style sheet of the page.

    Widths of bars, in percent, are classes too, since the page's policy forbids style attributes.
    """
    environment = _environment()
    assert environment.loader is not None
    style = environment.loader.get_source(environment, "style.css")[0]
    return style + "".join(f".w{width}{{--w:{width / 100:g}}}" for width in range(101)) + "\n"


def _all(sections: Sequence[Section]) -> Iterator[Section]:
    for section in sections:
        yield section
        yield from _all(section.parts)
