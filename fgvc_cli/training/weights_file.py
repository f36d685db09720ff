"""Reading a file of weights, running none of its code."""

from __future__ import annotations

import json
import pickle
import re
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

    A state dict under "state_dict" or "model" is taken out, and prefixes that wrappers add ("module.", "_orig_mod.")
    are taken off.

    Raises:
        FgvcError: the file is damaged, holds more than tensors, or no tensors.
    """
    description = None
    if path.suffix == ".safetensors":
        state, description = _read_safetensors(path)
    else:
        state = _read_torch(path)
    wrapper = next((key for key in WRAPPERS if isinstance(state.get(key), Mapping)), None)
    if wrapper is not None:
        state = state[wrapper]
    entries = {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not entries:
        raise FgvcError("the file holds no tensors by name; a state dict is needed.")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in entries):
            entries = {name.removeprefix(prefix): value for name, value in entries.items()}
    return WeightsFile(entries, description)


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
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FgvcError(_refusal(path, str(error))) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise FgvcError(f"this is no readable torch checkpoint ({str(error).splitlines()[0]}).") from error
    if not isinstance(state, Mapping):
        raise FgvcError(f"the file holds a {type(state).__name__}; a state dict (tensors by name) is needed.")
    return state


def _refusal(path: Path, cause: str) -> str:
    """Say why a pickle is not opened, and what to type where its author is trusted."""
    found = re.search(r"GLOBAL (\S+)", cause)
    what = f"a pickled {found[1]}" if found else "a pickled model or object"
    safe = f"{path.stem}-state.pt"
    return (
        f"the file holds more than tensors ({what}), and opening it runs whatever code its author put in. Where you "
        f"trust it, open it in the code that saved it and save the tensors alone: torch.save(net.state_dict(), "
        f"'{safe}') (net: the model in it; of a dict, its entry with the model). Then: --weights {safe}"
    )
