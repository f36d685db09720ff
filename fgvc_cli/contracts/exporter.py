"""The exporter contract: write a classifier as a file that another runtime loads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

ExportPrecision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class ExportJob:
    """A classifier to write to a file.

    Attributes:
        network: computes the scores B,K (float32) of normalized images B,3,S,S, for any B; in evaluation mode, on the
            CPU. It holds the whole prediction of the head, however many passes that takes.
        images: float32 N,3,S,S, normalized: N is at least 2. The file must take any other number as well.
        representative: whether they are photographs of its classes, to quantize by, instead of noise.
        path: the file to write.
        precision: one of those that the spec lists.
        document: what the file says of itself, as JSON: class names, preprocessing, components, calibration, license of
            the weights.
    """

    network: nn.Module
    images: Tensor
    representative: bool
    path: Path
    precision: ExportPrecision
    document: Mapping[str, Any]


@dataclass(frozen=True)
class ExportedModel:
    """An exported file, ready for inference on the CPU.

    Attributes:
        document: what the file says of itself; None if it was not written by this exporter.
        scores: returns the scores B,K (float32) of normalized images B,3,S,S (float32, on the CPU).
    """

    document: Any
    scores: Callable[[Tensor], Tensor]


class Exporter(ABC):
    """Writes classifiers as files of a format, and opens these files.

    The host calls the component's target as `target(options=...)`. The constructor checks that the packages that it
    depends on are installed, and does not import them.

    Raises:
        FgvcError: a package is not installed.
    """

    @abstractmethod
    def __init__(self, options: Any) -> None: ...

    @abstractmethod
    def export(self, job: ExportJob) -> list[str]:
        """Write a file to `job.path`, and return notes for the user, one line each.

        The host opens the file afterwards and compares its scores with those of the classifier before it gets its final
        name. The network is not changed.

        Raises:
            UsageError: an option does not fit the classifier.
            FgvcError: the classifier cannot be exported; names the layer.
        """

    @abstractmethod
    def open(self, path: Path) -> ExportedModel:
        """Open a file.

        Raises:
            FgvcError: it is damaged, or of another format.
        """

    def script(self, model: str) -> str | None:  # noqa: ARG002
        """Return a Python script that predicts the classes of images without fgvc; None if there is none.

        It is written beside the exported file, whose name is `model`. Its arguments are images; it prints a line for
        each of the most probable classes: image, class and probability, separated by tabs.
        """
        return None
