"""`fgvc serve`: answer requests over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli import console
from fgvc_cli.cli.common_options import option
from fgvc_cli.config.train_options import MANY
from fgvc_cli.formatting import parse_bytes
from fgvc_cli.serving.limits import Limits

EXAMPLE = "fgvc serve runs/RUN --port 9000"
ADDRESS, LIMITS = "Address", "Limits"


def serve(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            help="Run folder, model.safetensors or exported .onnx file.",
            show_default="the latest finished run",
        ),
    ] = None,
    host: Annotated[
        str, option(ADDRESS, "Address to listen on: 0.0.0.0 lets other machines in.", metavar="ADDRESS")
    ] = "127.0.0.1",
    port: Annotated[int, option(ADDRESS, "Port to listen on; 0 for any free one.", min=0, max=65535)] = 8000,
    allow_host: Annotated[
        list[str] | None,
        option(
            ADDRESS,
            f"Name by which clients call the server, such as that of a proxy. {common.SEVERAL}",
            default="localhost, the address, this machine's name",
            metavar="NAME",
        ),
    ] = None,
    device: common.Device = "auto",
    precision: common.Precision = "auto",
    batch_size: common.BatchSize = 32,
    tta: common.Tta = None,
    no_calibration: common.NoCalibration = False,
    taxonomy: common.TaxonomyFile = None,
    max_upload: Annotated[str, option(LIMITS, "Size of a request.", metavar="SIZE")] = "32MB",
    max_images: Annotated[int, option(LIMITS, "Number of images in a request.", min=1, max=MANY)] = Limits.max_images,
    max_pixels: Annotated[int, option(LIMITS, "Number of pixels of an image.", min=1)] = Limits.max_pixels,
    timeout: Annotated[
        float, option(LIMITS, "Seconds from the start of a request to its answer.", min=0.1, max=3600)
    ] = Limits.timeout,
    queue: Annotated[
        int, option(LIMITS, "Number of requests that wait while one is computed.", min=0, max=10_000)
    ] = Limits.queue,
) -> None:
    """Serve a run or an exported model over HTTP, with a page to upload photographs.

    POST /predict and POST /explain take images; GET /model describes the model, GET /health is for monitoring.

    Ctrl-C or SIGTERM stops it, after the answers that are in progress.

    Needs pip install "fgvc-cli[serve]".

    """
    from fgvc_cli.scoring.model import find_model, run_of
    from fgvc_cli.serving import server

    limits = Limits(parse_bytes(max_upload, "--max-upload"), max_images, max_pixels, timeout, queue)
    model = find_model(run)
    console.note(f"run        {run_of(model)}")
    server.serve(
        model,
        host=host,
        port=port,
        allow_host=allow_host or (),
        device=device,
        precision=precision,
        batch_size=batch_size,
        tta=tta,
        calibrated=not no_calibration,
        taxonomy=taxonomy,
        limits=limits,
    )
