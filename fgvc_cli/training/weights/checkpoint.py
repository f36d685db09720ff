"""Read weights files: their formats, and the state dict among what a checkpoint contains."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fgvc_cli.errors import FgvcError
from fgvc_cli.files import read_object
from fgvc_cli.formatting import expanded
from fgvc_cli.runs import model_file
from fgvc_cli.training.weights.pickled import StandIn, load_checkpoint, way_out

NETWORK = ("state_dict", "model", "model_state_dict", "net", "network")
"""Keys under which a checkpoint usually has the state dict, best first."""

EMA = re.compile(r"(^|[._])ema($|[._])")
"""In the key of averaged weights."""

OTHER = re.compile(r"optim|sched|scaler|callback|loops|loss|criterion|metric|param_groups")
"""In keys under which a checkpoint has tensors that are no network."""

PREFIXES = ("module.", "_orig_mod.", "module.")
"""Prefixes that DataParallel and torch.compile add to every name, in the order in which they are removed."""

TORCH = (b"PK\x03\x04", b"\x80")
"""First bytes of a torch checkpoint: of a zip archive or, before torch 1.6, of a pickle."""

INDEX = ".index.json"
"""End of the name of the index of a safetensors file in several shards."""

MAX_SHOWN = 5


@dataclass(frozen=True)
class WeightsFile:
    """Contents of a weights file.

    Attributes:
        entries: tensors by name, without the prefixes of wrappers.
        description: metadata of a run's model file (components, classes); None for any other file.
        notes: lines for the user, such as which of several state dicts this is.
    """

    entries: Mapping[str, Tensor]
    description: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def split_key(text: str) -> tuple[str, str]:
    """Split `FILE#key` into the file and the key; the key is empty without one, or if a file has the whole name."""
    path, mark, key = text.rpartition("#")
    return (path, key) if mark and not expanded(text).exists() else (text, "")


def read_weights(path: Path, key: str = "") -> WeightsFile:
    """Read a safetensors file, one in several shards (their index), or a torch checkpoint.

    The first bytes decide the format, whatever the suffix. Of a checkpoint with several state dicts, averaged weights
    (EMA) are taken, or else those under the usual keys.

    Args:
        path: the file.
        key: of the state dict in a checkpoint, or the prefix of one network's names.

    Raises:
        FgvcError: the file is damaged, has no state dict, or has several and no key chooses one.
    """
    description: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    if path.name.endswith(INDEX):
        content: Any = _read_shards(path)
    elif _is_safetensors(path):
        content, description = _read_safetensors(path)
    else:
        content = load_checkpoint(path)
    if isinstance(content, StandIn) and not _tensors(content):
        raise FgvcError(_refusal(path, content))
    if not isinstance(content, Mapping):
        raise FgvcError(f"the file has a {type(content).__name__}; a state dict (tensors by name) is needed")
    if key:
        entries = _under_key(content, key)
    else:
        entries, notes = _state_dict(path, content)
    for prefix in PREFIXES:
        if 2 * sum(name.startswith(prefix) for name in entries) > len(entries):
            entries = {name.removeprefix(prefix): value for name, value in entries.items()}
    return WeightsFile(entries, description, notes)


def _is_safetensors(path: Path) -> bool:
    """Return whether it is a safetensors file; otherwise it is a torch checkpoint.

    Raises:
        FgvcError: it is neither.
    """
    with path.open("rb") as file:
        beginning = file.read(9)
    if beginning[8:] == b"{":  # after the length of the JSON header
        return True
    if beginning.startswith(TORCH) and path.suffix != ".npz":
        return False
    raise FgvcError("this is neither a safetensors file nor a torch checkpoint, or it is damaged")


def _tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _state_dicts(content: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the state dicts in a checkpoint with their keys, joined by dots; those of optimizers and losses are not."""
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Mapping) or OTHER.search(key.lower()):
            continue
        if entries := _tensors(value):
            yield above + key, entries
        yield from _state_dicts(value, f"{above}{key}.")


def _state_dict(path: Path, content: Mapping[Any, Any]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Choose the state dict in a checkpoint, and say which if there are several."""
    found = dict(_state_dicts(content))
    averaged = [key for key in found if EMA.search(key.lower())]
    tops = {key: key.partition(".")[0] for key in found}
    best = next((key for key in NETWORK if key in tops.values()), None)
    usual = [key for key in found if key not in averaged and tops[key] == best]
    if averaged and len(found) > len(averaged):
        others = next(iter(usual), next(key for key in found if key not in averaged))
        note = f"these are the averaged weights (EMA) '{averaged[0]}'; for the others: `weights={path}#{others}`"
        return found[averaged[0]], (note,)
    if len(usual) == 1:
        return found[usual[0]], ()
    own = _tensors(content)
    if not usual and own and len(own) >= max(map(len, found.values()), default=0):
        return own, ()
    if len(found) == 1:
        return next(iter(found.values())), ()
    if found:
        choices = " or ".join(f"`weights={path}#{key}`" for key in list(found)[:MAX_SHOWN])
        raise FgvcError(f"the file has {len(found)} state dicts; choose one: {choices}")
    code = next((value for value in content.values() if isinstance(value, StandIn)), None)
    if code is not None:
        raise FgvcError(_refusal(path, code))
    held = ", ".join(str(key) for key in list(content)[:MAX_SHOWN])
    raise FgvcError(f"the file has no named tensors{f' (it has {held})' if held else ''}; a state dict is needed")


def _under_key(content: Mapping[Any, Any], key: str) -> dict[str, Tensor]:
    """Return the state dict under a key, or the entries of a flat one with that prefix.

    Raises:
        FgvcError: there is neither.
    """
    found = dict(_state_dicts(content))
    if key in found:
        return found[key]
    for entries in (_tensors(content), *found.values()):
        inside = {name.removeprefix(f"{key}."): value for name, value in entries.items() if name.startswith(f"{key}.")}
        if inside:
            return inside
    prefixes = dict.fromkeys(name.partition(".")[0] for name in _tensors(content))
    choices = ", ".join(list(found or prefixes)[:MAX_SHOWN]) or "none"
    raise FgvcError(f"the file has no state dict '{key}'; it has: {choices}")


def _read_safetensors(path: Path) -> tuple[Mapping[str, Tensor], Mapping[str, Any] | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            document = json.loads((file.metadata() or {}).get(model_file.KEY, "null"))
    except (SafetensorError, OSError, ValueError) as error:
        raise FgvcError(f"this safetensors file cannot be read ({error})") from error
    _check_shard(path, state)
    if not (isinstance(document, dict) and {"components", "classes", "preprocessing"} <= document.keys()):
        return state, None
    prefix = f"{model_file.CALIBRATION}."
    return {name: value for name, value in state.items() if not name.startswith(prefix)}, document


def _check_shard(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse one shard of several, which its name tells."""
    shard = re.fullmatch(r"(.+)-\d+-of-0*(\d+)\.\w+", path.name)
    if shard and int(shard[2]) > 1:
        index = f"{shard[1]}{path.suffix}{INDEX}"
        raise FgvcError(
            f"this is one of {shard[2]} shards, with {len(state)} entries; pass their index, `weights={index}`"
        )


def _read_shards(index: Path) -> dict[str, Tensor]:
    """Read all shards that an index names, in safetensors or as torch checkpoints."""
    names = read_object(index, "Copy or download it again.").get("weight_map")
    if not isinstance(names, Mapping) or not all(isinstance(file, str) for file in names.values()):
        raise FgvcError("this index of shards has no 'weight_map'")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    entries: dict[str, Tensor] = {}
    for file in dict.fromkeys(names.values()):
        path = index.with_name(Path(file).name)
        if not path.is_file():
            raise FgvcError(f"the shard {path.name} is missing beside its index")
        try:
            entries |= load_file(path) if _is_safetensors(path) else _tensors(load_checkpoint(path))
        except (SafetensorError, OSError) as error:
            raise FgvcError(f"the shard {path.name} cannot be read ({error})") from error
    missing = names.keys() - entries.keys()
    if missing:
        raise FgvcError(f"the shards lack {len(missing)} of {len(names)} entries of their index")
    return entries


def _refusal(path: Path, code: StandIn) -> str:
    """Return why a pickled object is not used, and how to convert it if its author is trusted."""
    return (
        f"the file contains more than tensors (a pickled {code.origin}), and loading it would run its author's code. "
        f"If you trust it, {way_out(path)}"
    )
