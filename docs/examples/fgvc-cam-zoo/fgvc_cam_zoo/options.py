"""Options of the explainers. This module must not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from fgvc_cli import option


@dataclass(frozen=True)
class CamOptions:
    """Options of both explainers."""

    map: int | None = option(
        None, "index of the feature map, 0: the shallowest; none: the one that the score is computed from", minimum=0
    )


@dataclass(frozen=True)
class ScoreCamOptions(CamOptions):
    """Options of Score-CAM."""

    batch_size: int = option(16, "masked images per forward pass", minimum=1)
