"""From templates and values to escaped HTML."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fgvc_cli.formatting import duration_text, percent

NO_BREAK = "\N{NO-BREAK SPACE}"


def fragment(template: str, **values: Any) -> Markup:
    """Fill a template in.

    Args:
        template: the name of a file in `templates`.
        values: what it speaks of; one that is missing is an error.
    """
    return Markup(_environment().get_template(template).render(**values))


def source(template: str) -> str:
    """Return a template as it is written, for what is no HTML, such as the style sheet."""
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, template)[0]


def share(value: float | None) -> str:
    """Write a fraction as a percentage that is never broken; a dash for None."""
    return "–" if value is None else unbroken(percent(value))


def unbroken(text: str) -> str:
    """Keep figures and their per cent signs on one line."""
    return text.replace(" %", f"{NO_BREAK}%")


def count(value: float | None) -> str:
    """Write a number of things with commas between the thousands; a dash for None."""
    return "–" if value is None else f"{value:,.0f}"


def figure(value: float | None) -> str:
    """Write a number with three decimals; a dash for None."""
    return "–" if value is None else f"{value:.3f}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fgvc_cli.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(share=share, count=count, figure=figure, duration=duration_text)
    return environment
