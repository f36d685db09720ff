"""The modules of CMAL: three experts with a classifier each, and the classifier of their concatenation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PooledClassifier(nn.Module):
    """Classify pooled vectors B,D to logits B,K: batch norm, linear, batch norm, ELU, linear.

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
        """Return logits B,K of vectors B,D."""
        scores: Tensor = self.output(F.elu(self.hidden_norm(self.hidden(self.norm(pooled)))))
        return scores


class ConvNormRelu(nn.Module):
    """Convolution without bias that keeps the grid, batch norm, ReLU.

    Args:
        channels: input channels.
        width: output channels.
        kernel: kernel size, odd.
        momentum: of the batch norm.
    """

    def __init__(self, channels: int, width: int, kernel: int, momentum: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(width, momentum=momentum)

    def forward(self, feature_map: Tensor) -> Tensor:
        """Return a map of the same grid."""
        return F.relu(self.norm(self.conv(feature_map)), inplace=True)


class Expert(nn.Module):
    """Turn one feature map into the expert's own map, which its classifier and its attention are computed from.

    Args:
        channels: C of the backbone's feature map.
        width: channels between the two convolutions.
        map_channels: D, channels of the expert's map.
        hidden: hidden width of its classifier.
        classes: K.
        momentum: of the convolutions' batch norms.
    """

    def __init__(
        self, channels: int, width: int, map_channels: int, *, hidden: int, classes: int, momentum: float
    ) -> None:
        super().__init__()
        self.reduce = ConvNormRelu(channels, width, 1, momentum)
        self.expand = ConvNormRelu(width, map_channels, 3, momentum)
        self.classifier = PooledClassifier(map_channels, hidden, classes)

    def forward(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expert's map B,D,H,W of a feature map B,C,H,W, and its maximum per channel, B,D."""
        own_map = self.expand(self.reduce(feature_map))
        # On ties max pooling sends the gradient to one point, as in the published code; amax would split it.
        return own_map, F.adaptive_max_pool2d(own_map, 1).flatten(1)
