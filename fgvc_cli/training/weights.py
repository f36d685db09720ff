"""Which weights a backbone starts from: `auto`, `imagenet`, `none`, a file or a tag."""

from __future__ import annotations

import logging
import os
import queue
import threading
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any, Literal

from fgvc_cli.contracts import Backbone, PretrainedWeights, WeightsReport
from fgvc_cli.errors import FgvcError
from fgvc_cli.formatting import bytes_text

logger = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that the whole question may take, the search for the server's address included."""

MAX_HOPS = 5


@dataclass(frozen=True)
class Answer:
    """What the server said.

    Attributes:
        host: that was asked.
        available: whether the file can be downloaded.
        size: bytes, if the server told.
        reason: why not, as the end of a sentence: "the hub cannot be reached".
    """

    host: str
    available: bool
    size: int | None = None
    reason: str = ""


def probe(url: str) -> Answer:
    """Ask for a file's headers (HTTP HEAD), through the proxies that the environment names.

    The question is put in a thread, since neither the look-up of a name nor a proxy obeys a time limit; a
    thread left waiting does not keep the program from ending.
    """
    host = urllib.parse.urlsplit(url).hostname or url
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(_ask(url, host)), name="hub-probe", daemon=True).start()
    try:
        return answers.get(timeout=PATIENCE)
    except queue.Empty:
        return Answer(host, False, reason=f"the hub cannot be reached (no answer from {host} in {PATIENCE:.0f} s)")


class _KeepRedirect(urllib.request.HTTPRedirectHandler):
    """Hands a redirection back instead of following it: its headers may already tell the size."""

    def redirect_request(self, *args: Any) -> None:  # noqa: ARG002
        return None


def _ask(url: str, host: str) -> Answer:
    opener = urllib.request.build_opener(_KeepRedirect)
    try:
        for _ in range(MAX_HOPS):
            status, headers = _head(opener, url)
            size = _size(headers)
            if status < 300 or (status < 400 and headers.get("X-Linked-Size")):
                return Answer(host, True, size)
            if status >= 400 or not headers.get("Location"):
                return Answer(host, False, reason=f"{host} refuses them (HTTP {status})")
            url = urllib.parse.urljoin(url, headers["Location"])
    except (OSError, ValueError, urllib.error.URLError) as error:
        cause = getattr(error, "reason", error)
        cause = getattr(cause, "strerror", None) or cause
        return Answer(host, False, reason=f"the hub cannot be reached ({host}: {cause})")
    return Answer(host, False, reason=f"{host} sends the request in circles")


def _head(opener: urllib.request.OpenerDirector, url: str) -> tuple[int, Message]:
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "fgvc-cli"})
    try:
        with opener.open(request, timeout=PATIENCE) as response:
            return response.status, response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers


def _size(headers: Message) -> int | None:
    """Return the file's size; the hub tells it in a header of its own when it redirects to where the file lies."""
    text = headers.get("X-Linked-Size") or headers.get("Content-Length") or ""
    return int(text) if text.isdigit() and int(text) > 0 else None


FILE_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".npz")


@dataclass(frozen=True)
class WeightsChoice:
    """What a backbone starts from.

    Attributes:
        kind: published weights, a file, or nothing (random weights).
        text: one line for the person: what, and why.
        pretrained: the published weights, for kind "pretrained".
        path: the file, for kind "file".
        required: whether it is an error if they cannot be had; if not, training starts from scratch instead.
    """

    kind: Literal["pretrained", "file", "none"]
    text: str
    pretrained: PretrainedWeights | None = None
    path: Path | None = None
    required: bool = False


def choose(backbone: Backbone, wanted: str, offline: bool) -> WeightsChoice:
    """Decide what a backbone starts from.

    Args:
        backbone: as built, with random weights.
        wanted: "auto" (ImageNet weights if they can be had), "imagenet" (or an error), "none", a file or run
            folder, or the tag of other published weights.
        offline: whether downloading is forbidden.

    Raises:
        FgvcError: what was asked for cannot be had.
        UsageError: there are no weights of that tag.
    """
    name = backbone.info.name
    if wanted == "none":
        return WeightsChoice("none", f"Random weights for {name}, as asked: training from scratch.")
    path = _as_path(wanted)
    if path is not None:
        return WeightsChoice("file", f"Weights for {name} from {path}.", path=path, required=True)
    standard = wanted in ("auto", "imagenet")
    weights = backbone.pretrained(None if standard else wanted)
    what = f"ImageNet weights for {name}" if standard else f"weights '{wanted}' for {name}"
    if weights is None:
        return _not_to_be_had(wanted, f"no {what} are published")
    if weights.cached is not None:
        line = f"{_capital(what)}: {weights.name}, from the local cache."
        return WeightsChoice("pretrained", line, weights, required=wanted != "auto")
    if offline or _hub_offline():
        rule = "--offline" if offline else "HF_HUB_OFFLINE"
        return _not_to_be_had(wanted, f"{what} ({weights.name}) are not here and {rule} forbids the download")
    answer = probe(weights.url)
    if not answer.available:
        return _not_to_be_had(wanted, f"{what} ({weights.name}) are not here and {answer.reason}")
    size = bytes_text(answer.size) if answer.size else "size unknown"
    line = f"{_capital(what)}: downloading {weights.name} ({size}) from {answer.host}."
    return WeightsChoice("pretrained", line, weights, required=wanted != "auto")


def apply(choice: WeightsChoice, backbone: Backbone) -> WeightsReport | None:
    """Load published weights that were chosen into the backbone, downloading them if need be.

    A file's weights are loaded once there is a head, which may get some of them: see `weights_parts.load_file`.

    Args:
        choice: of `choose`.
        backbone: the same backbone.

    Returns:
        What became of the entries, or None if the backbone keeps its random weights.

    Raises:
        FgvcError: the download is unusable, or is not for this backbone.
    """
    if choice.pretrained is None:
        return None
    try:
        state = backbone.fetch(choice.pretrained)
    except FgvcError as error:
        if choice.required:
            raise
        logger.info(f"{error} Training from scratch.")
        return None
    return backbone.load_weights(state)


def _as_path(wanted: str) -> Path | None:
    """Return the file that is meant, or None if the text is a keyword or a tag.

    Raises:
        FgvcError: it is plainly a path, and nothing usable is there.
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
        raise FgvcError(f"--weights {wanted}: this folder has no model.safetensors; give a weights file or a run.")
    if looks_like_path:
        raise FgvcError(f"--weights {wanted}: no such file.")
    return None


def _not_to_be_had(wanted: str, reason: str) -> WeightsChoice:
    if wanted == "auto":
        return WeightsChoice("none", f"{_capital(reason)}: training from scratch.")
    raise FgvcError(
        f"--weights {wanted}: {reason}. Give a file (--weights PATH), or train from scratch (--weights none)."
    )


def _hub_offline() -> bool:
    """Say whether the hub's own switches forbid the network."""
    switches = (os.environ.get("HF_HUB_OFFLINE"), os.environ.get("TRANSFORMERS_OFFLINE"))
    return any((switch or "").upper() in {"1", "ON", "YES", "TRUE"} for switch in switches)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
