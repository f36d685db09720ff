"""Lower precision of an ONNX graph, with the tools of ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from fgvc_cli import UsageError
from fgvc_cli.contracts import ExportJob
from fgvc_exporters.options import OnnxOptions
from fgvc_exporters.program import quiet

Method = Literal["static", "dynamic"]
PRODUCTS = ["MatMul", "Gemm"]


def half(model: Any) -> Any:
    """Convert a model to float16; its input and output stay float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():
        return convert_float_to_float16(model, keep_io_types=True)


def method(options: OnnxOptions, job: ExportJob) -> Method:
    """Choose how to quantize a network.

    Raises:
        UsageError: static quantization is wanted, and there are no photographs to measure activations on.
    """
    chosen: Method = options.quantization if options.quantization != "auto" else _suited(job.network)
    if chosen == "static" and not job.representative:
        raise UsageError(
            "`precision=int8` measures the range of activations on photographs of the classes, and there are none; "
            "name some with `data`"
        )
    return chosen


def quantized(model: Any, job: ExportJob, method: Method, name: str) -> tuple[Any, list[str]]:
    """Quantize weights and activations of a model to 8 bits; return it with a note.

    Weights have 7 bits and a scale per channel: with 8, processors without VNNI instructions saturate.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory(prefix="fgvc-export-") as folder, quiet():
        prepared, result = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        onnx.save_model(model, prepared)
        quant_pre_process(prepared, prepared, skip_symbolic_shape=True)
        if method == "dynamic":
            quantize_dynamic(prepared, result, PRODUCTS, True, True, QuantType.QInt8)
            note = "dynamic quantization: matrix products in 8 bits, everything else in fp32"
        else:
            quantize_static(
                prepared,
                result,
                _Images(name, job.images),
                op_types_to_quantize=["Conv", *PRODUCTS],
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )
            note = f"static quantization: ranges of activations measured on {len(job.images)} images"
        return onnx.load(result), [note]


class _Images:
    """Feeds images one by one, as ONNX Runtime's `CalibrationDataReader`."""

    def __init__(self, name: str, images: Tensor) -> None:
        self._batches = iter([{name: image[None]} for image in images.numpy()])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def _suited(network: nn.Module) -> Method:
    """Return "static" if convolutions have most of the weights, and "dynamic" if linear layers have."""
    modules = list(network.modules())
    convolved = sum(module.weight.numel() for module in modules if isinstance(module, nn.Conv2d))
    linear = sum(module.weight.numel() for module in modules if isinstance(module, nn.Linear))
    return "static" if convolved > linear else "dynamic"
