"""What the classifier looks at: the most confident mistakes, and the occlusion test."""

from __future__ import annotations

import base64
import io

from fgvc_cli.explaining.tiles import scale_bar
from fgvc_cli.reporting.examples import Examples
from fgvc_cli.reporting.page import Section
from fgvc_cli.reporting.pictures import Picture
from fgvc_cli.reporting.templating import fragment


def mistakes_section(examples: Examples, anchor: str) -> Section:
    """Return the most confident mistakes with the heat maps of both classes."""
    body = fragment("mistakes.html", examples=examples, scale=_scale())
    return Section(f"{anchor}mistakes", "Most confident mistakes", body)


def occlusion_section(examples: Examples, anchor: str) -> Section:
    """Return the panels of the occlusion test."""
    outcomes = [example.survived for example in examples.panels]
    body = fragment("occlusion.html", examples=examples, scale=_scale())
    said = f"the decision survives in {sum(map(bool, outcomes))} of {len(outcomes)} images" if outcomes else ""
    return Section(f"{anchor}occlusion", "What the decision rests on", body, said=said)


def _scale() -> Picture:
    """Return the colours of a heat map from 0 to 1."""
    bar, data = scale_bar(160, 8), io.BytesIO()
    bar.save(data, format="png", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
    return Picture(uri, bar.width, bar.height, "from dark violet at 0 over red to pale yellow at 1")
