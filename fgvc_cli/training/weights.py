"""Which weights a backbone starts from: `--weights auto|imagenet|none|<file>|<tag>`, and `--offline`.

`choose` decides and says why before anything is downloaded; `apply` loads. Nothing here waits longer than
`PATIENCE` for a network that does not answer.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fgvc_cli.contracts import Backbone, PretrainedWeights, WeightsReport
from fgvc_cli.errors import FgvcError
from fgvc_cli.training.hub_probe import probe

FILE_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".npz")
WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Under which of its keys a checkpoint may keep the state dict itself."""


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
    size = f"{answer.size / 1e6:.0f} MB" if answer.size else "size unknown"
    line = f"{_capital(what)}: downloading {weights.name} ({size}) from {answer.host}."
    return WeightsChoice("pretrained", line, weights, required=wanted != "auto")


def apply(
    choice: WeightsChoice, backbone: Backbone, note: Callable[[str], object] = sys.stderr.write
) -> WeightsReport | None:
    """Load what was chosen into the backbone, downloading it if need be.

    Args:
        choice: of `choose`.
        backbone: the same backbone; its modules that no head reads may have been pruned meanwhile.
        note: gets a line, line break included, if a download failed and training starts from scratch instead, or
            if a file has not all the weights, or more than are wanted.

    Returns:
        What became of the entries, or None if the backbone keeps its random weights.

    Raises:
        FgvcError: the file or download is unusable, or is not for this backbone.
    """
    if choice.path is not None:
        try:
            report = backbone.load_weights(read_state(choice.path))
        except FgvcError as error:
            raise FgvcError(f"--weights {choice.path}: {error}") from error
        for line in _oddities(report, backbone.info.name):
            note(f"--weights {choice.path}: {line}\n")
        return report
    if choice.pretrained is None:
        return None
    try:
        state = backbone.fetch(choice.pretrained)
    except FgvcError as error:
        if choice.required:
            raise
        note(f"{error} Training from scratch.\n")
        return None
    return backbone.load_weights(state)


def read_state(path: Path) -> dict[str, Any]:
    """Read the state dict of a backbone from a safetensors file or a torch checkpoint, running none of its code.

    A state dict under "state_dict" or "model" is taken out, prefixes that wrappers add ("module.", "_orig_mod.")
    are taken off, and of a whole classifier (a run's `model.safetensors`) the backbone's entries are taken.

    Raises:
        FgvcError: the file is damaged, holds more than tensors, or no tensors.
    """
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    wrapper = next((key for key in WRAPPERS if isinstance(state.get(key), Mapping)), None)
    if wrapper is not None:
        state = state[wrapper]
    entries = {name: value for name, value in state.items() if isinstance(name, str) and hasattr(value, "shape")}
    if not entries:
        raise FgvcError("the file holds no tensors by name; a state dict is needed.")
    for prefix in ("module.", "_orig_mod.", "module."):
        if all(name.startswith(prefix) for name in entries):
            entries = {name.removeprefix(prefix): value for name, value in entries.items()}
    of_backbone = {n.removeprefix("backbone."): v for n, v in entries.items() if n.startswith("backbone.")}
    return of_backbone or entries


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
    if path.is_dir() and looks_like_path:
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


def _oddities(report: WeightsReport, name: str) -> list[str]:
    """Say what a person would want to know if a file does not fit as a whole."""
    lines = []
    if report.missing:
        total = len(report.missing) + len(report.loaded)
        lines.append(
            f"{len(report.missing)} of {total} entries of {name} are not in it and stay random, as {report.missing[0]}."
        )
    if report.unknown:
        lines.append(f"{len(report.unknown)} of its entries are none of {name}'s, as {report.unknown[0]}.")
    return lines


def _hub_offline() -> bool:
    """Say whether the hub's own switches forbid the network."""
    switches = (os.environ.get("HF_HUB_OFFLINE"), os.environ.get("TRANSFORMERS_OFFLINE"))
    return any((switch or "").upper() in {"1", "ON", "YES", "TRUE"} for switch in switches)


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise FgvcError(f"this is no readable safetensors file ({error}).") from error


def _read_torch(path: Path) -> Mapping[Any, Any]:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FgvcError(
            "the file holds more than tensors (a pickled model or object), and opening it could run code of its "
            "author's. Where you trust it, save the tensors alone: "
            "torch.save(model.state_dict(), 'weights.pt'), and give that."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise FgvcError(f"this is no readable torch checkpoint ({str(error).splitlines()[0]}).") from error
    if not isinstance(state, Mapping):
        raise FgvcError(f"the file holds a {type(state).__name__}; a state dict (tensors by name) is needed.")
    return state


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
