"""Options of the built-in backbones; free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgvc_cli import option


@dataclass(frozen=True)
class TimmOptions:
    """Options of every timm backbone."""

    maps: Literal["stages", "published"] = option(
        "stages", "feature maps: the stages of the architecture, or the maps of the published PIM code"
    )
    drop_path: float | None = option(
        None, "stochastic depth rate of the last block; none: the architecture's default", minimum=0.0, maximum=0.95
    )
    drop: float = option(0.0, "dropout rate on the embedding", minimum=0.0, maximum=0.95)
    window: int = option(
        0, "Swin: side of the attention windows in tokens; 0: one that needs no padding", minimum=0, maximum=1024
    )
