"""Tensors and a JSON document in one safetensors file; nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fgvc_cli.errors import FgvcError
from fgvc_cli.files import replacing

KEY = "fgvc"


def save(path: Path, tensors: Mapping[str, Tensor], document: Any) -> None:
    """Write tensors and a JSON document to a file atomically.

    Tensors that share memory are written separately; memory formats such as channels-last are not kept.
    """
    seen: set[int] = set()
    plain = {}
    for name, tensor in tensors.items():
        kept = tensor.detach().cpu().contiguous()
        storage = kept.untyped_storage().data_ptr()
        plain[name] = kept.clone() if storage in seen else kept
        seen.add(storage)
    with replacing(path) as part:
        part.touch()
        mode = part.stat().st_mode
        try:
            save_file(plain, part, metadata={KEY: json.dumps(document, ensure_ascii=False)})
        except SafetensorError as error:
            raise _as_os_error(error) from error
        part.chmod(mode)  # safetensors creates files that only the owner can read, whatever the umask


def load(path: Path, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], Any]:
    """Read what `save` wrote.

    Raises:
        FgvcError: the file is missing, damaged, or was not written by this program.
    """
    with _opened(path, device) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, _document(path, file)  # noqa: SIM118


def load_document(path: Path) -> Any:
    """Read only the JSON document."""
    with _opened(path, "cpu") as file:
        return _document(path, file)


def pack(value: Any, tensors: dict[str, Tensor], at: str) -> Any:
    """Turn nested dicts, lists and tuples into a JSON document, moving their tensors to `tensors` under `at`."""
    if isinstance(value, Tensor):
        tensors[at] = value
        return {"tensor": at}
    if isinstance(value, Mapping):
        return {"dict": [[pack(k, {}, at), pack(v, tensors, f"{at}.{k}")] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        items = [pack(v, tensors, f"{at}.{i}") for i, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{at}: a state may contain tensors, numbers, text, and lists or dicts of them, not {type(value)}")


def unpack(document: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo `pack`."""
    if not isinstance(document, dict):
        return document
    ((kind, value),) = document.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {unpack(k, tensors): unpack(v, tensors) for k, v in value}
    items = [unpack(v, tensors) for v in value]
    return tuple(items) if kind == "tuple" else items


def _as_os_error(error: SafetensorError) -> Exception:
    """Return the OSError that safetensors reports in words (disk full, permission denied), or a FgvcError."""
    text = str(error)
    if "os error" in text:
        code = text.rsplit("os error", 1)[1].strip(" ):")
        if code.split(")")[0].isdigit():
            return OSError(int(code.split(")")[0]), text)
    return FgvcError(f"Cannot write the weights: {text}")


def _opened(path: Path, device: str | torch.device) -> Any:
    if not path.is_file():
        raise FgvcError(f"{path} does not exist")
    try:
        return safe_open(path, framework="pt", device=str(device))
    except (SafetensorError, OSError) as error:
        raise FgvcError(
            f"{path} is damaged or not a safetensors file ({error}). Restore it, or train again."
        ) from error


def _document(path: Path, file: Any) -> Any:
    metadata = file.metadata() or {}
    if KEY not in metadata:
        raise FgvcError(f"{path} was not written by fgvc: it lacks class names and preprocessing")
    try:
        return json.loads(metadata[KEY])
    except ValueError as error:
        raise FgvcError(f"{path} is damaged: its metadata is not JSON. Restore it, or train again.") from error
