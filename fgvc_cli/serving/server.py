"""Serve a model until a signal ends it."""

from __future__ import annotations

import errno
import ipaddress
import logging
import math
import os
import socket
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from fgvc_cli.errors import FgvcError, Terminated, UsageError
from fgvc_cli.runs.folder import Run
from fgvc_cli.serving.limits import Limits

if TYPE_CHECKING:
    from fgvc_cli.scoring.model import InferenceSettings

logger = logging.getLogger(__name__)

PACKAGES = {"fastapi": "FastAPI", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
LOOPBACK = "127.0.0.1"
BACKLOG = 128
"""Connections that the system holds until the server accepts them."""


def serve(
    run: Run | str | PathLike[str] | None = None,
    *,
    host: str = LOOPBACK,
    port: int = 8000,
    allow_host: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 32,
    tta: str | Sequence[str] | None = None,
    calibrated: bool = True,
    taxonomy: str | PathLike[str] | None = None,
    limits: Limits = Limits(),  # noqa: B008  (frozen)
) -> None:
    """Serve a run or an exported model over HTTP, as `fgvc serve` does; returns after Ctrl-C or SIGTERM.

        fgvc.serve("runs/birds", port=9000)

    Args:
        run: a run, its folder, a `model.safetensors` or an exported file; the default is the latest finished run.
        host: address or name to listen on; "0.0.0.0" for all interfaces.
        port: to listen on; 0 for any free one.
        allow_host: names by which clients may call the server, besides localhost, its addresses and its own name.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "fp32" or "bf16", of predictions; explanations are computed in fp32.
        batch_size: images per forward pass.
        tta: test-time augmentation: "flip", "crops", "sizes", or several.
        calibrated: whether to use the run's calibration, if it has one.
        taxonomy: CSV file of the groups of classes; the default is what the model file has of them.
        limits: of requests.

    Raises:
        UsageError: a value is wrong (also a `ValueError`).
        FgvcError: the extra `serve` is not installed, there is no such run, or the port is in use.
    """
    if missing := [name for module, name in PACKAGES.items() if find_spec(module) is None]:
        raise FgvcError(f"serving needs {' and '.join(missing)}: pip install 'fgvc-cli[serve]'")
    from fgvc_cli.scoring.model import InferenceSettings, find_model

    model_file = find_model(None if run is None else Path(run))
    inference = InferenceSettings(device, precision, batch_size, 0, tta, calibrated)
    with listen(host, port) as listener:  # before the model is loaded, which takes longer
        groups = None if taxonomy is None else Path(taxonomy)
        _run(listener, host, model_file, inference, groups, limits, names_of(host, allow_host))
    logger.info("stopped")


def _run(
    listener: socket.socket,
    host: str,
    model_file: Path,
    inference: InferenceSettings,
    taxonomy: Path | None,
    limits: Limits,
    names: Collection[str],
) -> None:
    """Load the model and answer requests until a signal comes; those that are being answered then are finished."""
    import uvicorn

    from fgvc_cli.serving.app import build_app
    from fgvc_cli.serving.connections import connections
    from fgvc_cli.serving.model import ServedModel

    model = ServedModel(model_file, inference, taxonomy, limits)
    for line in model.card["calibration"]:
        logger.info(line)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # what it complains of is in the answer
    config = uvicorn.Config(
        build_app(model, names),
        http=connections(2 * limits.timeout),
        log_config=None,
        log_level=logging.CRITICAL,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        backlog=BACKLOG,
        timeout_graceful_shutdown=math.ceil(limits.timeout) + 1,
    )
    server, address = uvicorn.Server(config), listener.getsockname()
    if not ipaddress.ip_address(address[0]).is_loopback:
        logger.warning("anyone who reaches this machine can use the server: there are no passwords and no encryption")
    shown = f"[{host}]" if ":" in host else host
    logger.info(f"serving    http://{shown}:{address[1]} (Ctrl-C stops it)")
    try:
        server.run(sockets=[listener])
    except (KeyboardInterrupt, Terminated):
        if not server.should_exit:  # the signal came before the server took it
            raise


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UsageError: this machine has no such address, or there is no such port.
        FgvcError: the port is in use, or only the administrator may use it.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"`port={port}` must be between 0 and 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"`host={host}` is not an address of this machine; use {LOOPBACK} or 0.0.0.0") from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would share the port of another program
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after a restart
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"`host={host}` is not an address of this machine; use {LOOPBACK} or 0.0.0.0") from error
        cause = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise FgvcError(f"port {port} of {host} {cause}; choose another `port`, or `port=0` for a free one") from error
    return listener


def names_of(host: str, allowed: Sequence[str]) -> set[str]:
    """Return the names by which clients may call the server, in lower case."""
    own = socket.gethostname()
    return {name.lower() for name in ("localhost", host, own, f"{own}.local", *allowed)}
