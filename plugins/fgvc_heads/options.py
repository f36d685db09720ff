"""Options of the built-in heads; free of torch, so that `fgvc show head pim` is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgvc_cli import option


@dataclass(frozen=True)
class LinearOptions:
    """Options of `linear`."""

    dropout: float = option(0.0, "dropout rate on the embedding", minimum=0.0, maximum=0.99)


@dataclass(frozen=True)
class ProbeOptions:
    """Options of `probe`."""

    l2: float = option(
        0.0,
        "strength of the L2 penalty on the weights of standardized features; 0: chosen on validation data",
        minimum=0.0,
    )


@dataclass(frozen=True)
class PrototypesOptions:
    """Options of `prototypes`."""

    center: bool = option(True, "subtract the mean embedding of the training images before normalization")
    temperature: float = option(
        0.0, "divisor of the cosine similarities, which gives logits; 0: chosen on validation data", minimum=0.0
    )


@dataclass(frozen=True)
class KnnOptions:
    """Options of `knn`."""

    k: int = option(20, "number of nearest training images that vote", minimum=1, maximum=1_000_000)
    center: bool = option(True, "subtract the mean embedding of the training images before normalization")
    temperature: float = option(
        0.07, "a vote weighs exp(cosine similarity / temperature), as in the paper", minimum=0.001
    )


@dataclass(frozen=True)
class PimOptions:
    """Options of `pim` (arXiv 2202.03822). Defaults are those of the public library; recipes hold published settings.

    Raises:
        ValueError: `lambda_c` is 0, or `lambda_b`, `lambda_s` and `lambda_n` all are.
    """

    fpn_size: int = option(
        512, "channels of the feature pyramid, the selector and the combiner", minimum=1, maximum=65_536
    )
    num_selects: int | tuple[int, ...] = option(
        32,
        "points selected on each map: one number for all maps, or a list, shallow map first",
        minimum=1,
        maximum=1_000_000,
    )
    maps: int = option(
        4,
        "number of feature maps, counted from the deepest; all of them if there are fewer",
        minimum=1,
        maximum=1_000_000,
    )
    upsampling: Literal["auto", "bilinear", "tokens"] = option(
        "auto", "upsampling of deeper maps; tokens: a learned map over tokens; auto: tokens for transformers"
    )
    joints_divisor: int = option(32, "selected points per joint of the combiner", minimum=1, maximum=1_000_000)
    adjacency_divisor: int = option(
        4, "fpn_size divided by the channels of the combiner's q and k", minimum=1, maximum=1_000_000
    )
    dropout: float = option(0.1, "dropout rate on the combined features", minimum=0.0, maximum=0.99)
    lambda_b: float = option(0.5, "weight of L_b, cross entropy of each map's mean logits", minimum=0.0)
    lambda_s: float = option(0.0, "weight of L_s, cross entropy of every selected point", minimum=0.0)
    lambda_n: float = option(5.0, "weight of L_n, which pushes the logits of dropped points down", minimum=0.0)
    lambda_c: float = option(1.0, "weight of L_c, cross entropy of the combiner", minimum=0.0)

    def __post_init__(self) -> None:
        if self.lambda_c == 0:
            raise ValueError("lambda_c=0 leaves the combiner untrained, and it makes the prediction; set it above 0")
        if self.lambda_b == self.lambda_s == self.lambda_n == 0:
            raise ValueError(
                "lambda_b, lambda_s and lambda_n are all 0, which leaves the selector untrained; set one above 0"
            )


@dataclass(frozen=True)
class CmalOptions:
    """Options of `cmal` (Pattern Recognition 140, 2023, 109550). Defaults are those of the paper and its code.

    Raises:
        ValueError: `concat_weight` is 0.
    """

    expert_width: int = option(
        512, "channels between an expert's 1x1 and its 3x3 convolution", minimum=1, maximum=65_536
    )
    map_channels: int = option(
        1024, "channels of an expert's feature map and of its pooled vector", minimum=1, maximum=65_536
    )
    hidden_width: int = option(512, "hidden width of each of the four classifiers", minimum=1, maximum=65_536)
    norm_momentum: float = option(
        0.01, "batch-norm momentum of the experts' convolutions (0.1 in their classifiers)", minimum=0.0, maximum=1.0
    )
    threshold: float = option(
        0.5, "threshold of the attention region, on attention scaled to [0, 1]", minimum=0.0, maximum=1.0
    )
    padding: float = option(
        0.1, "padding of the region on each side, as a fraction of the image side", minimum=0.0, maximum=1.0
    )
    eps: float = option(1e-6, "added to the range of the attention before dividing by it", minimum=1e-12)
    raw_share: float = option(
        1 / 3,
        "probability that e1 or e2 trains on whole images; the two other experts' regions share the rest equally",
        minimum=0.0,
        maximum=1.0,
    )
    concat_weight: float = option(2.0, "weight of the concatenation's cross entropy; each expert's is 1", minimum=0.0)
    missing_grad: Literal["zero", "skip"] = option(
        "zero",
        "update of parameters that an objective does not reach; zero: momentum and weight decay still apply, as in "
        "the published training; skip: none",
    )
    full_passes: bool = option(
        False, "run the whole network in each of the five updates, which moves batch-norm statistics as published"
    )

    def __post_init__(self) -> None:
        if self.concat_weight == 0:
            raise ValueError(
                "concat_weight=0 leaves the concatenation untrained, and it is part of the prediction; set it above 0"
            )
