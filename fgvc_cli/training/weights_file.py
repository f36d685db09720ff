"""Reading a file of weights, running none of its code."""

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
from fgvc_cli.runs import tensors

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Under which of its keys a checkpoint may keep the state dict itself."""

PREFIXES = ("module.", "_orig_mod.", "module.")
"""What DataParallel and torch.compile put before every name, in the order in which they are taken off."""


TORCH = (b"PK\x03\x04", b"\x80")
"""What a torch checkpoint begins with: that of a zip archive, or (before torch 1.6) of a pickle."""


@dataclass(frozen=True)
class WeightsFile:
    """What a file of weights holds.

    Attributes:
        entries: tensors by name, without the prefixes that wrappers add.
        description: what a run's model file says of itself (components, classes); None for any other file.
    """

    entries: Mapping[str, Tensor]
    description: Mapping[str, Any] | None = None


def read_weights(path: Path) -> WeightsFile:
    """Read a safetensors file or a torch checkpoint.

    What the file begins with tells the two apart, whatever its name ends in. A state dict under "state_dict" or
    "model", or one that is the only one in the file, is taken out, and prefixes that wrappers add ("module.",
    "_orig_mod.") are taken off.

    Raises:
        FgvcError: the file is damaged, holds more than tensors, or no tensors.
    """
    description = None
    if _is_safetensors(path):
        state, description = _read_safetensors(path)
    else:
        state = _state_dict(_read_torch(path))
    entries = _tensors(state)
    if not entries:
        held = ", ".join(str(key) for key in list(state)[:5])
        raise FgvcError(
            f"the file holds no tensors by name{f' (it has {held})' if held else ''}; a state dict is needed."
        )
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in entries):
            entries = {name.removeprefix(prefix): value for name, value in entries.items()}
    return WeightsFile(entries, description)


def _is_safetensors(path: Path) -> bool:
    """Say whether it is a safetensors file, else a torch checkpoint.

    Raises:
        FgvcError: it begins as neither of them does.
    """
    with path.open("rb") as file:
        beginning = file.read(9)
    if beginning[8:] == b"{":  # after the length of its JSON header
        return True
    if beginning.startswith(TORCH):
        return False
    raise FgvcError("this is neither a safetensors file nor a torch checkpoint, or it is damaged.")


def _state_dict(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return the state dict in a checkpoint: under a usual key, or its only entry that is one."""
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
            document = json.loads((file.metadata() or {}).get(tensors.KEY, "null"))
    except (SafetensorError, OSError, ValueError) as error:
        raise FgvcError(f"this is no readable safetensors file ({error}).") from error
    of_run = isinstance(document, dict) and {"components", "classes", "preprocessing"} <= document.keys()
    return state, document if of_run else None


def _read_torch(path: Path) -> Mapping[Any, Any]:
    import torch

    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle's protocol: what matters comes as an error
            state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FgvcError(_refusal(path, str(error))) from error
    except Exception as error:  # a damaged pickle makes the unpickler stumble in any way
        cause = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise FgvcError(
            f"this is no readable torch checkpoint ({cause}). If it is damaged, copy or download it again."
        ) from error
    if not isinstance(state, Mapping):
        raise FgvcError(f"the file holds a {type(state).__name__}; a state dict (tensors by name) is needed.")
    return state


def _refusal(path: Path, cause: str) -> str:
    """Say why a pickle is not opened, and what to type where its author is trusted."""
    found = re.search(r"GLOBAL (\S+)", cause)
    what = f"a pickled {found[1]}" if found else "a pickled model or object, unless it is damaged"
    safe = f"{path.stem}-state.pt"
    return (
        f"the file holds more than tensors ({what}), and opening it runs whatever code its author put in. Where you "
        f"trust it, open it in the code that saved it and save the tensors alone: torch.save(net.state_dict(), "
        f"'{safe}') (net: the model in it; of a dict, its entry with the model). Then: --weights {safe}"
    )
