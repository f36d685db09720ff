"""Read weights files without running code from them."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fgvc_cli.errors import FgvcError
from fgvc_cli.runs import model_file

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which a checkpoint may have the state dict."""

PREFIXES = ("module.", "_orig_mod.", "module.")
"""Prefixes that DataParallel and torch.compile add to every name, in the order in which they are removed."""


TORCH = (b"PK\x03\x04", b"\x80")
"""First bytes of a torch checkpoint: of a zip archive or, before torch 1.6, of a pickle."""


@dataclass(frozen=True)
class WeightsFile:
    """Contents of a weights file.

    Attributes:
        entries: tensors by name, without the prefixes of wrappers.
        description: metadata of a run's model file (components, classes); None for any other file.
    """

    entries: Mapping[str, Tensor]
    description: Mapping[str, Any] | None = None


def read_weights(path: Path) -> WeightsFile:
    """Read a safetensors file or a torch checkpoint.

    The first bytes decide the format, whatever the suffix. A state dict under "state_dict" or "model", or the only one
    in the file, is unwrapped, and the prefixes of wrappers ("module.", "_orig_mod.") are removed.

    Raises:
        FgvcError: the file is damaged, contains more than tensors, or no tensors.
    """
    description = None
    if _is_safetensors(path):
        state, description = _read_safetensors(path)
    else:
        state = _state_dict(_read_torch(path))
    entries = _tensors(state)
    if not entries:
        held = ", ".join(str(key) for key in list(state)[:5])
        raise FgvcError(f"the file has no named tensors{f' (it has {held})' if held else ''}; a state dict is needed")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in entries):
            entries = {name.removeprefix(prefix): value for name, value in entries.items()}
    return WeightsFile(entries, description)


def _is_safetensors(path: Path) -> bool:
    """Return whether it is a safetensors file; otherwise it is a torch checkpoint.

    Raises:
        FgvcError: it is neither.
    """
    with path.open("rb") as file:
        beginning = file.read(9)
    if beginning[8:] == b"{":  # after the length of the JSON header
        return True
    if beginning.startswith(TORCH):
        return False
    raise FgvcError("this is neither a safetensors file nor a torch checkpoint, or it is damaged")


def _state_dict(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return the state dict in a checkpoint: under one of the usual keys, or its only entry that is one."""
    inner = [content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)]
    if not inner and not _tensors(content):
        inner = [value for value in content.values() if isinstance(value, Mapping) and _tensors(value)]
        inner = inner if len(inner) == 1 else []
    return _state_dict(inner[0]) if inner else content


def _tensors(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _read_safetensors(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            document = json.loads((file.metadata() or {}).get(model_file.KEY, "null"))
    except (SafetensorError, OSError, ValueError) as error:
        raise FgvcError(f"this safetensors file cannot be read ({error})") from error
    of_run = isinstance(document, dict) and {"components", "classes", "preprocessing"} <= document.keys()
    return state, document if of_run else None


def _read_torch(path: Path) -> Mapping[Any, Any]:
    import torch

    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol; what matters is an error
            state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FgvcError(_refusal(path, str(error))) from error
    except Exception as error:  # a damaged pickle can raise anything
        cause = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise FgvcError(
            f"this torch checkpoint cannot be read ({cause}); if it is damaged, copy or download it again"
        ) from error
    if not isinstance(state, Mapping):
        raise FgvcError(f"the file has a {type(state).__name__}; a state dict (tensors by name) is needed")
    return state


def _refusal(path: Path, cause: str) -> str:
    """Return why a pickle is not opened, and how to convert it if its author is trusted."""
    found = re.search(r"GLOBAL (\S+)", cause)
    what = f"a pickled {found[1]}" if found else "a pickled model or object, unless it is damaged"
    safe = f"{path.stem}-state.pt"
    return (
        f"the file contains more than tensors ({what}), and loading it would run its author's code. If you trust it, "
        f"load it in the code that saved it, save only the tensors with torch.save(net.state_dict(), '{safe}'), where "
        f"net is the model, and use `weights={safe}`"
    )
