"""What a person wants timed; free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fgvc_cli.errors import UsageError

LARGEST = 0
"""The batch size that stands for: as many images as fit."""


@dataclass(frozen=True)
class BenchRequest:
    """Which combinations to time, and how.

    Attributes:
        backbones, heads, optimizers: names; of a kind without any, all built-in components.
        everything: take the components of every installed plugin instead of the built-in ones.
        explainers: to time beside updates and predictions.
        image_size: side of the images, pixels; None: by device.
        batch_size: images in a batch; `LARGEST`: as many as fit into the GPU's memory; None: by device.
        classes: of the head.
        recipe: whose settings the components get.
        settings: `--set` as typed, stronger than the recipe.
        device, precision: as a person names them.
        channels_last: the memory format of convolutional weights and images.
        compile: whether the model is compiled.
        seconds: for each piece of work, at most (one round is always timed); None: by device.
        epoch: whether to time an epoch of each combination over real images too.
        pipeline: whether to time the input pipeline.
        dataset, data: the images for `epoch` and `pipeline`: a name, or a folder or table; without either, drawn ones.
        workers: processes that read them; -1 chooses by device.
    """

    backbones: Sequence[str] = ()
    heads: Sequence[str] = ()
    optimizers: Sequence[str] = ()
    everything: bool = False
    explainers: Sequence[str] = ()
    image_size: int | None = None
    batch_size: int | None = None
    classes: int = 100
    recipe: str = "finetune"
    settings: Sequence[str] = field(default_factory=tuple)
    device: str = "auto"
    precision: str = "auto"
    channels_last: Literal["auto", "on", "off"] = "auto"
    compile: bool = False
    seconds: float | None = None
    epoch: bool = False
    pipeline: bool = False
    dataset: str | None = None
    data: Path | None = None
    workers: int = -1


def batch_size_named(text: str | None) -> int | None:
    """Return the batch size that a person typed: a number, or "max" for `LARGEST`.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    if text == "max":
        return LARGEST
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--batch-size {text}: write a number of images, or max for as many as fit.")
    return int(text)


def refuse_images_for_nothing(options: Mapping[str, Any], reads_images: bool) -> None:
    """Refuse options that say which real images to read, and how, where none are read.

    Args:
        options: by name, with their values; None where not given.
        reads_images: whether an epoch or the input pipeline is to be timed.

    Raises:
        UsageError: one is given.
    """
    given = [name for name, value in options.items() if value is not None]
    if given and not reads_images:
        raise UsageError(f"{given[0]} is for real images, and updates are timed on random ones: add --epoch, "
                         "--pipeline or both.")  # fmt: skip
