"""Options of PIM; free of torch, so that `fgvc show head pim` is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgvc_cli import option


@dataclass(frozen=True)
class PimOptions:
    """Options of PIM (arXiv 2202.03822). Defaults are those of its public library; recipes hold published settings.

    Raises:
        ValueError: the weights of the losses would leave the combiner or the selector without a loss.
    """

    fpn_size: int = option(512, "channels of the feature pyramid, the selector and the combiner", minimum=1)
    num_selects: int | tuple[int, ...] = option(
        32, "points kept of each map: one number for all maps, or a list, shallow map first", minimum=1
    )
    maps: int = option(4, "how many of the backbone's last maps to use; all of them if it has fewer", minimum=1)
    upsampling: Literal["auto", "bilinear", "tokens"] = option(
        "auto",
        "how a deeper map reaches a shallower one's grid; auto: tokens (learned) for transformers, else bilinear",
    )
    joints_divisor: int = option(32, "the combiner pools the kept points to 1 joint for this many", minimum=1)
    adjacency_divisor: int = option(4, "the combiner's q and k have fpn_size divided by this channels", minimum=1)
    dropout: float = option(0.1, "share of the combined features set to 0 in training", minimum=0.0, maximum=0.99)
    lambda_b: float = option(0.5, "weight of L_b, the cross entropy of each map's mean scores", minimum=0.0)
    lambda_s: float = option(0.0, "weight of L_s, the cross entropy of every kept point", minimum=0.0)
    lambda_n: float = option(5.0, "weight of L_n, which pushes the scores of dropped points down", minimum=0.0)
    lambda_c: float = option(1.0, "weight of L_c, the cross entropy of the combiner: the prediction", minimum=0.0)

    def __post_init__(self) -> None:
        if self.lambda_c == 0:
            raise ValueError("lambda_c=0 leaves the combiner untrained, and it makes the prediction: set it above 0.")
        if self.lambda_b == self.lambda_s == self.lambda_n == 0:
            raise ValueError(
                "lambda_b, lambda_s and lambda_n are all 0, so that nothing trains the selector: set one above 0."
            )
