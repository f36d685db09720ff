"""The built-in exporters."""

from fgvc_cli import ExporterSpec, hookimpl


@hookimpl
def fgvc_exporters() -> list[ExporterSpec]:
    """Register the built-in exporters."""
    return [
        ExporterSpec(
            "onnx",
            "fgvc_exporters.onnx_file:OnnxExporter",
            'ONNX, for ONNX Runtime; needs pip install "fgvc-cli[export]"',
            "fgvc_exporters.options:OnnxOptions",
            "Open Neural Network Exchange, onnx.ai; ONNX Runtime, onnxruntime.ai",
            suffix=".onnx",
            precisions=("fp32", "fp16", "int8"),
            safe=True,
        ),
        ExporterSpec(
            "torch",
            "fgvc_exporters.torch_program:TorchExporter",
            "torch.export program, for torch alone and for AOTInductor",
            source="torch.export, docs.pytorch.org",
            suffix=".pt2",
        ),
    ]
