"""Pictures with edges, gradients and flat parts, and draws for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts import Preprocessing
from fgvc_cli.data.augmentation import Augmentation
from fgvc_cli.data.batch_augmentation.draws import Draw
from fgvc_cli.data.order import seeded


@pytest.fixture(scope="session")
def pictures() -> Callable[[int, int], Tensor]:
    """Make uint8 pictures N,3,S,S: smooth shapes, noise, a box of one color; the last one is of one color alone."""

    def make(count: int, side: int) -> Tensor:
        generator = torch.Generator().manual_seed(side)
        coarse = torch.rand(count, 3, 5, 5, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic") * 255
        noise = torch.randn(count, 3, side, side, generator=generator) * 12
        made = (smooth + noise).clamp(0, 255).to(torch.uint8)
        made[:, :, 3 : side // 3, 5 : side // 2] = torch.tensor([200, 17, 90], dtype=torch.uint8).view(3, 1, 1)
        made[-1] = 128
        return made

    return make


@pytest.fixture(scope="session")
def drawn() -> Callable[[AugmentOptions, int, int], list[Draw]]:
    """Draw for images of a side, with the seeds 0, 1, ..."""

    def draw(options: AugmentOptions, side: int, count: int) -> list[Draw]:
        augmentation = Augmentation(options, Preprocessing(side, side, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)))
        draws = []
        for seed in range(count):
            with seeded(seed):
                draws.append(augmentation.draw())
        return draws

    return draw
