"""Options of the built-in heads; free of torch, so that `fgvc show head pim` is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgvc_cli import option


@dataclass(frozen=True)
class LinearOptions:
    """Options of the linear head."""

    dropout: float = option(0.0, "share of the embedding's entries set to 0 in training", minimum=0.0, maximum=0.99)


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


@dataclass(frozen=True)
class CmalOptions:
    """Options of CMAL-Net (Pattern Recognition 140, 2023, 109550). Defaults are those of the paper and its code.

    Raises:
        ValueError: the concatenation, which makes the prediction with the experts, would have no loss.
    """

    expert_width: int = option(512, "channels between an expert's 1x1 and its 3x3 convolution", minimum=1)
    map_channels: int = option(1024, "channels of an expert's map, and of the vector pooled from it", minimum=1)
    hidden_width: int = option(512, "hidden width of each of the four classifiers", minimum=1)
    norm_momentum: float = option(
        0.01,
        "share of a new batch in the running statistics of the experts' convolutions (their classifiers have 0.1)",
        minimum=0.0,
        maximum=1.0,
    )
    threshold: float = option(
        0.5, "a point is in the attention region from this share of the attention's range on", minimum=0.0, maximum=1.0
    )
    padding: float = option(
        0.1, "the region is widened by this share of the image's side, on each side", minimum=0.0, maximum=1.0
    )
    eps: float = option(1e-6, "added to the attention's range before dividing by it", minimum=1e-12)
    raw_share: float = option(
        1 / 3,
        "probability that e1 or e2 trains on the raw images; the other experts' regions share the rest evenly",
        minimum=0.0,
        maximum=1.0,
    )
    concat_weight: float = option(2.0, "weight of the concatenation's cross entropy; each expert's is 1", minimum=0.0)
    missing_grad: Literal["zero", "skip"] = option(
        "zero",
        "what parameters do in an update whose loss does not reach them: coast on momentum and weight decay, as in "
        "the published trainings, or skip it",
    )
    full_passes: bool = option(
        False, "run all of backbone and head in each of the five updates, to move batch-norm statistics as published"
    )

    def __post_init__(self) -> None:
        if self.concat_weight == 0:
            raise ValueError(
                "concat_weight=0 leaves the concatenation untrained, and it is part of the prediction: set it above 0."
            )
