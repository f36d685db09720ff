"""Options of the linear head; free of torch, so that `fgvc show head linear` is quick."""

from __future__ import annotations

from dataclasses import dataclass

from fgvc_cli import option


@dataclass(frozen=True)
class LinearOptions:
    """Options of the linear head."""

    dropout: float = option(0.0, "share of the embedding's entries set to 0 in training", minimum=0.0, maximum=0.99)
