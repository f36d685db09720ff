"""The modules of CMAL: three experts, each with a classifier, and the classifier of their concatenation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PooledClassifier(nn.Module):
    """A pooled vector B,D to scores B,K: batch norm, linear, batch norm, ELU, linear.

    Args:
        width: D.
        hidden: width between the two linear layers.
        classes: K.
    """

    def __init__(self, width: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.hidden = nn.Linear(width, hidden)
        self.hidden_norm = nn.BatchNorm1d(hidden)
        self.output = nn.Linear(hidden, classes)

    def forward(self, pooled: Tensor) -> Tensor:
        """Return scores B,K of vectors B,D."""
        scores: Tensor = self.output(F.elu(self.hidden_norm(self.hidden(self.norm(pooled)))))
        return scores


class ConvNormRelu(nn.Module):
    """A convolution that keeps the grid, batch norm and ReLU; the convolution has no bias.

    Args:
        channels: of the input.
        width: channels of the output.
        kernel: side of the convolution's kernel, odd.
        momentum: share of a new batch in the running statistics.
    """

    def __init__(self, channels: int, width: int, kernel: int, momentum: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(width, momentum=momentum)

    def forward(self, feature_map: Tensor) -> Tensor:
        """Return a map of the same grid."""
        return F.relu(self.norm(self.conv(feature_map)), inplace=True)


class Expert(nn.Module):
    """What looks at one feature map: a map of its own, from which its classifier and its attention are made.

    Args:
        channels: C of the backbone's feature map.
        width: channels between the two convolutions.
        map_channels: D, channels of the expert's map.
        hidden: hidden width of its classifier.
        classes: K.
        momentum: share of a new batch in the running statistics of the convolutions' norms.
    """

    def __init__(
        self, channels: int, width: int, map_channels: int, *, hidden: int, classes: int, momentum: float
    ) -> None:
        super().__init__()
        self.reduce = ConvNormRelu(channels, width, 1, momentum)
        self.expand = ConvNormRelu(width, map_channels, 3, momentum)
        self.classifier = PooledClassifier(map_channels, hidden, classes)

    def forward(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expert's map B,D,H,W of a feature map B,C,H,W, and its largest value by channel, B,D."""
        own_map = self.expand(self.reduce(feature_map))
        # Of equal values one alone gets the gradient, as in the published max pooling; amax would share it out.
        return own_map, F.adaptive_max_pool2d(own_map, 1).flatten(1)
