"""The page: sections assembled into one HTML document."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fgvc_cli.report.templating import fragment, source

STYLE = "style.css"
NOTHING = Markup()
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]")
"""What HTML does not allow, in names of classes and files too."""


@dataclass(frozen=True)
class Section:
    """A part of the page, and the parts of it.

    Attributes:
        anchor: what links to it are called; unique in the page.
        title: its heading, one level below that of the section that it is a part of.
        body: HTML without headings.
        parts: what follows below headings of their own.
        folded: whether only its heading is to be seen until a reader opens it.
        said: what stands beside the heading, such as the figure that matters most.
    """

    anchor: str
    title: str
    body: Markup = NOTHING
    parts: Sequence[Section] = ()
    folded: bool = False
    said: str = ""


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title: of the document, and its only heading of the first level.
        kicker: a line above the title: what kind of report it is, and when it was made.
        lede: HTML below the title: what came out.
        sections: in their order; a link to each stands at the top.
        colophon: the last line.
    """

    title: str
    kicker: str
    lede: Markup
    sections: Sequence[Section]
    colophon: str

    def html(self) -> str:
        """Return the document.

        Raises:
            ValueError: two sections have one anchor.
        """
        anchors = [section.anchor for section in _all(self.sections)]
        twice = {anchor for anchor in anchors if anchors.count(anchor) > 1}
        if twice:
            raise ValueError(f"sections of one anchor: {', '.join(sorted(twice))}")
        style = style_sheet()
        document = fragment("page.html", page=self, style=Markup(style), style_hash=_hash(style))
        return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", document)


def style_sheet() -> str:
    """Return the style sheet, as it stands in the page.

    How long the bar of a cell is, in per cent, is a class too: the page's policy allows no style of an element's own.
    """
    return source(STYLE) + "".join(f".w{length}{{--w:{length / 100:g}}}" for length in range(101)) + "\n"


def _all(sections: Sequence[Section]) -> Iterator[Section]:
    for section in sections:
        yield section
        yield from _all(section.parts)


def _hash(style: str) -> str:
    """Return what the page's policy allows this style sheet by, and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
