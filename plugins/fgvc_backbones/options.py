"""Options of the built-in backbones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgvc_cli import option


@dataclass(frozen=True)
class TimmOptions:
    """What can be set of a timm backbone."""

    maps: Literal["stages", "published"] = option(
        "stages", "which feature maps: the architecture's stages, or those of the published PIM code"
    )
    drop_path: float | None = option(
        None, "stochastic depth: rate at the last block; unset: the architecture's own", minimum=0.0, maximum=0.95
    )
    drop: float = option(0.0, "dropout rate on the embedding", minimum=0.0, maximum=0.95)
    window: int = option(
        0, "Swin: side of the attention windows, in tokens; 0 picks one that needs no padding", minimum=0
    )
