"""`fgvc export`: write a run as a file for another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli.common_options import component_option, option
from fgvc_cli.config.train_options import MANY

EXAMPLE = "fgvc export runs/RUN --precision int8 --out birds.onnx"
FORMAT, CHECK, RESULTS = "Format", "Images to check and quantize by", "Results"


def export(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="Run folder or model.safetensors.", show_default="the latest finished run"),
    ] = None,
    format: Annotated[
        str | None, component_option("exporter", FORMAT, "Exporter, by name.", "by the suffix of --out, or onnx")
    ] = None,
    precision: Annotated[
        str | None,
        option(FORMAT, "Precision of the file.", default="fp32", metavar="fp32|fp16|int8"),
    ] = None,
    set_: Annotated[
        list[str] | None, common.set_option(FORMAT, "An option of the exporter, as exporter.option=value.")
    ] = None,
    split: Annotated[str | None, common.split_option(CHECK, "check with", "val")] = None,
    data: Annotated[Path | None, common.data_option(CHECK)] = None,
    dataset: Annotated[str | None, common.dataset_option(CHECK)] = None,
    images: Annotated[
        int, option(CHECK, "Number of images to check with, balanced across classes.", min=1, max=MANY)
    ] = 64,
    tolerance: Annotated[
        float | None,
        option(
            CHECK,
            "Largest difference of a probability.",
            default="0.01 for fp32, 0.05 for fp16, 0.5 for int8",
            min=0,
        ),
    ] = None,
    out: Annotated[
        Path | None, option(RESULTS, "File to write.", default="export/model.onnx in the run, or the like")
    ] = None,
    force: Annotated[bool, option(RESULTS, "Replace an existing file.", "--force")] = False,
    json: Annotated[bool, option(RESULTS, "Print one JSON document.", "--json")] = False,
) -> None:
    """Export a run to ONNX or torch.export, and check the file.

    The file holds the whole prediction, class names, preprocessing, calibration and the license of the weights.

    Before it gets its name, it is compared with the run on validation images, in batches of 1 and 16.

    A script that uses it without fgvc is written beside it.

    """
    from fgvc_cli.cli import console
    from fgvc_cli.cli.tables import next_lines
    from fgvc_cli.errors import UsageError
    from fgvc_cli.evaluation.export import ExportRequest, export_run
    from fgvc_cli.evaluation.split_selection import SplitRequest
    from fgvc_cli.formatting import bytes_text, quoted
    from fgvc_cli.options import parse_setting
    from fgvc_cli.runs.exported import exporter_of
    from fgvc_cli.scoring.model import find_model, run_of

    settings = {}
    for text in set_ or []:
        kind, name, value = parse_setting(text)
        if kind != "exporter":
            raise UsageError(f"--set {text}: only options of the exporter can be set, as exporter.option=value")
        settings[name] = value
    model = find_model(run)
    console.note(f"run        {run_of(model)}")
    named = any(value is not None for value in (split, data, dataset))
    request = SplitRequest(split, data, dataset) if named else None
    done = export_run(ExportRequest(model, format, precision, out, settings, request, images, tolerance, force))
    if json:
        console.print_json(done.as_json())
        return
    check = done.check
    console.out().print(
        f"checked with {check.images} images ({check.source}): {check.text}", soft_wrap=True, markup=False
    )
    for path, what in ((done.file, f"{done.format} {done.precision}, {bytes_text(done.size)}"), (done.script, "")):
        if path is not None:
            console.out().print(f"written: {path}" + f" ({what})" * bool(what), soft_wrap=True, markup=False)
    if exporter_of(done.file) is not None and done.format == "onnx":
        name = quoted(str(done.file))
        for line in next_lines([f"fgvc evaluate {name}", f"fgvc predict IMAGE --run {name}"]):
            console.out().print(line, soft_wrap=True)
