"""Export to ONNX, and inference with ONNX Runtime."""

from __future__ import annotations

import importlib.util
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fgvc_cli import FgvcError, UsageError
from fgvc_cli.contracts import ExportedModel, Exporter, ExportJob
from fgvc_cli.errors import cause_of
from fgvc_exporters.options import OnnxOptions
from fgvc_exporters.program import INPUT, KEY, OUTPUT, layer_of, quiet, traced

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class OnnxExporter(Exporter):
    """Write a classifier as an ONNX file, with torch.onnx's exporter on top of torch.export.

    The graph has the input `images` (float32 B,3,S,S, normalized) and the output `scores` (float32 B,K). fp16 converts
    it with ONNX Runtime's float16 tool, int8 with its quantization.

    Args:
        options: see `OnnxOptions`.

    Raises:
        FgvcError: onnx, onnxscript or onnxruntime is not installed.
    """

    def __init__(self, options: OnnxOptions) -> None:
        missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise FgvcError(
                f"exporter 'onnx' needs packages that are not installed ({', '.join(missing)}): "
                'pip install "fgvc-cli[export]"'
            )
        self.options = options

    def export(self, job: ExportJob) -> list[str]:
        """Write the file.

        Raises:
            UsageError: the opset is not available, or there are no images to quantize by.
            FgvcError: a layer cannot be exported.
        """
        import onnx

        from fgvc_exporters import quantization

        method = quantization.method(self.options, job) if job.precision == "int8" else ""
        model = self._graph(job)
        notes: list[str] = []
        if job.precision == "fp16":
            model = quantization.half(model)
        elif method:
            model, notes = quantization.quantized(model, job, method, INPUT)
        onnx.helper.set_model_props(model, {KEY: json.dumps(job.document, ensure_ascii=False)})
        try:
            onnx.save_model(model, job.path)
        except ValueError as error:  # protobuf's limit of 2 GB
            raise FgvcError(f"the network does not fit into one ONNX file: {cause_of(error)}") from error
        return notes

    def open(self, path: Path) -> ExportedModel:
        """Open a file with ONNX Runtime, which uses as many threads as torch.

        Raises:
            FgvcError: it is no ONNX file, damaged, or too new for the installed ONNX Runtime.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # errors are raised as well
        try:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            text = session.get_modelmeta().custom_metadata_map.get(KEY)
        except Exception as error:  # ONNX Runtime has a type for each of its error codes
            raise FgvcError(f"{path} cannot be opened by ONNX Runtime: {cause_of(error)}") from error
        try:
            document = None if text is None else json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FgvcError(f"{path} is damaged: its metadata is not JSON; export it again") from error

        def scores(images: Tensor) -> Tensor:
            try:
                (found,) = session.run([OUTPUT], {INPUT: images.contiguous().numpy()})
            except Exception as error:
                raise FgvcError(f"{path} cannot be run by ONNX Runtime: {cause_of(error)}") from error
            return torch.from_numpy(found)

        return ExportedModel(document, scores)

    def script(self, model: str) -> str:
        """Return a script that needs numpy, onnxruntime and Pillow."""
        return files("fgvc_exporters").joinpath("predict_onnx.py").read_text("utf-8").replace("model.onnx", model)

    def _graph(self, job: ExportJob) -> Any:
        """Return the ONNX model (fp32)."""
        program, opset = traced(job), self.options.opset
        try:
            with quiet():
                exported = torch.onnx.export(
                    program, dynamo=True, verbose=False, opset_version=opset, input_names=[INPUT], output_names=[OUTPUT]
                )
        except Exception as error:  # the exporter raises whatever a conversion raises
            raise FgvcError(_refused(program, error)) from error
        assert exported is not None
        model = exported.model_proto
        found = next(entry.version for entry in model.opset_import if not entry.domain)
        if found != opset:
            raise UsageError(
                f"`exporter.opset={opset}`: the network cannot be written with this version of the ONNX operators; "
                f"use `exporter.opset={found}`"
            )
        return model


def _refused(program: Any, error: BaseException) -> str:
    """Say which operator of which layer has no counterpart in ONNX."""
    while error.__cause__ is not None:
        error = error.__cause__
    found = re.search(r"op='([\w.]+)'", str(error))
    layer = layer_of(program, found[1]) if found else ""
    where = f"layer {layer}" if layer else "the network"
    return f"{where} cannot be written as ONNX: {cause_of(error)}"
