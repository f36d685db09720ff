"""Unpickle torch checkpoints without running code from them.

Tensors and plain containers are read as they are. Every other class or function that a checkpoint refers to (arguments
of a training script, numpy scalars, dates, paths, configurations, whole networks) is replaced by a stand-in, which is
never imported and does nothing.
"""

from __future__ import annotations

import codecs
import io
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, _utils
from torch.serialization import MAGIC_NUMBER

from fgvc_cli.errors import FgvcError


class StandIn(dict[Any, Any]):
    """Stands for an object of a class that is not imported; keeps only the items of dictionaries.

    Attributes:
        origin: full name of the class.
    """

    origin: ClassVar[str] = ""
    dump_patches: ClassVar[bool] = False  # read by torch of classes of modules
    __hash__ = object.__hash__  # type: ignore[assignment]

    def __new__(cls, *_args: Any, **_kwargs: Any) -> StandIn:
        """Ignore the arguments."""
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        super().__init__()

    def __call__(self, *_args: Any, **_kwargs: Any) -> StandIn:
        """Return another stand-in."""
        return StandIn()

    def __setstate__(self, _state: Any) -> None:
        """Ignore the state."""

    append = extend = add = __setstate__


def _only_call(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function: a pickle can set attributes of what it calls, and these are gone with the wrapper."""
    return lambda *args: function(*args)


def _plain(function: Callable[..., Tensor], _kind: Any, args: tuple[Any, ...], _state: Any) -> Tensor:
    """Rebuild a tensor that has attributes or is of a subclass: without them."""
    return function(*args)


def _of_bytes(data: bytes) -> Any:
    """Read a storage from a plain pickle, which contains it as a torch checkpoint."""
    return _load_torch(io.BytesIO(data))


REBUILD: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _utils._rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _utils._rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": _utils._rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch._tensor._rebuild_from_type_v2": _plain,
    "torch.storage._load_from_bytes": _of_bytes,
    "_codecs.encode": codecs.encode,
}
"""What a checkpoint may call, by name."""


class _Bytes(NamedTuple):
    """What torch reads of the type of an untyped storage."""

    dtype: torch.dtype = torch.uint8


TYPES: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    "torch.storage.UntypedStorage": _Bytes(),
}
"""Immutable types, by name: a pickle could change attributes of others."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        if full_name in REBUILD:
            return _only_call(REBUILD[full_name])
        if full_name in TYPES:
            return TYPES[full_name]
        value = getattr(torch, name, None) if module == "torch" else None
        return value if isinstance(value, torch.dtype) else type("StandIn", (StandIn,), {"origin": full_name})


def _load_pickle(file: IO[bytes], **options: Any) -> Any:
    return _Unpickler(file, **options).load()


def _load_torch(file: IO[bytes]) -> Any:
    return torch.load(file, map_location="cpu", pickle_module=_PICKLE, weights_only=False)


_PICKLE = SimpleNamespace(Unpickler=_Unpickler, load=_load_pickle, __name__="fgvc_cli")


def load_checkpoint(path: Path) -> Any:
    """Read a torch checkpoint, or a plain pickle, into tensors, containers, plain values and stand-ins.

    Raises:
        FgvcError: the file is damaged, or a TorchScript archive.
    """
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol; what matters is an error
            if file.read(2) == b"PK":
                if "constants.pkl" in torch._C.PyTorchFileReader(str(path)).get_all_records():
                    raise FgvcError(f"this is a TorchScript archive, which contains code; {way_out(path)}")
            else:
                file.seek(0)
                content = _load_pickle(file)
                if content != MAGIC_NUMBER:  # with which torch's own format begins
                    return content
            file.seek(0)
            return _load_torch(file)
    except FgvcError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        cause = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise FgvcError(
            f"this torch checkpoint cannot be read ({cause}); if it is damaged, copy or download it again"
        ) from error


def way_out(path: Path) -> str:
    """Return how the author of a file that contains code can save its weights."""
    safe = f"{path.name.partition('.')[0]}-state.pt"
    return (
        f"load it in the code that saved it, save only the tensors with torch.save(net.state_dict(), '{safe}'), where "
        f"net is the model, and use `weights={safe}`"
    )
