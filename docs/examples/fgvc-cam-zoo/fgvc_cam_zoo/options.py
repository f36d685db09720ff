"""Options of the explainers; free of torch, so that `fgvc show explainer scorecam` is quick."""

from __future__ import annotations

from dataclasses import dataclass

from fgvc_cli import option


@dataclass(frozen=True)
class CamOptions:
    """Where the activations are taken."""

    map: int | None = option(
        None, "feature map of the backbone, 0 the shallowest; none: the one that the score is read from", minimum=0
    )


@dataclass(frozen=True)
class ScoreCamOptions(CamOptions):
    """Options of Score-CAM."""

    batch_size: int = option(16, "images seen through a channel, in a forward pass", minimum=1)
