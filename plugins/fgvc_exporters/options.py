"""Options of the built-in exporters; free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgvc_cli import option


@dataclass(frozen=True)
class OnnxOptions:
    """Options of `onnx`."""

    opset: int = option(18, "version of the ONNX operators", minimum=1)
    quantization: Literal["auto", "static", "dynamic"] = option(
        "auto",
        "with int8: static measures the range of activations on images, dynamic computes it for each input and "
        "quantizes matrix products alone; auto: static if the network has convolutions, dynamic if not",
    )
