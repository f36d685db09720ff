"""Device checks that need no GPU: a simulated device, and a detector of synchronization with the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from fgvc_cli.errors import cause_of
from fgvc_cli.testing.check import ContractError, NotApplicable, expect, some, where_raised

DEVICE = "cuda"

ABOUT_DEVICE = "Tensors created on the CPU or kept in plain attributes do not move with a model."
"""Why components are checked on a simulated GPU."""

ABOUT_SYNC = "Reading a value off a GPU (.item(), nonzero, a mask as index) stalls it."
"""Why components should not synchronize with the device."""


class _Applied(nn.Module):
    """Calls a function with a module, as a module itself, as `functional_call` requires."""

    def __init__(self, module: nn.Module, run: Callable[..., object]) -> None:
        super().__init__()
        self.module, self.run = module, run

    def forward(self, *tensors: Tensor) -> None:
        self.run(self.module, *tensors)


def expect_device_independent(module: nn.Module, run: Callable[..., object], *tensors: Tensor) -> None:
    """Run a function with a module and tensors on a simulated GPU, which propagates shapes but no values.

    Args:
        module: its parameters and buffers are replaced during the call.
        run: called with the module and the tensors; gradients are not available.
        tensors: further arguments.

    Raises:
        ContractError: an operation combines a CPU tensor with one on the GPU.
        NotApplicable: the function depends on values.
    """

    def moved(tensor: Tensor) -> Any:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE).requires_grad_(tensor.requires_grad)

    with FakeTensorMode(allow_non_fake_inputs=True):
        named = (*module.named_parameters(), *module.named_buffers())
        state = {f"module.{name}": moved(tensor) for name, tensor in named}
        try:
            functional_call(_Applied(module, run), state, tuple(moved(tensor) for tensor in tensors))
        except (ContractError, NotApplicable, KeyboardInterrupt):
            raise
        except BaseException as error:
            text = str(error)
            if not (isinstance(error, RuntimeError) and "devices" in text and "cpu" in text):
                raise NotApplicable(f"it depends on values ({type(error).__name__})") from error
            raise ContractError(
                "all tensors on the device of the images",
                f"{cause_of(error)}{where_raised(error)}",
                "create tensors with device=images.device (or new_zeros and the like), and register constants as "
                "buffers",
            ) from error


SYNCHRONIZING = {
    "_local_scalar_dense": "item() or tolist()",
    "is_nonzero": "a tensor as a condition",
    "nonzero": "nonzero()",
    "masked_select": "masked_select()",
    "equal": "torch.equal()",
    "_unique2": "unique()",
    "bincount": "bincount()",
}
"""Operations that read a value off the device or whose output shape depends on values, and how users write them."""

INDEXING = ("index", "index_put", "index_put_")


class SyncDetector(TorchDispatchMode):
    """Records each operation that would synchronize with the device.

    Tensors created from nothing (a random number drawn on the CPU, a constant) may be read.

    Attributes:
        found: descriptions of the operations, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._free = WeakTensorKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        free = all(tensor in self._free for tensor in given)
        if name in SYNCHRONIZING and not free:
            self.found.append(SYNCHRONIZING[name])
        if name in INDEXING and any(i is not None and i.dtype == torch.bool for i in args[1]):
            self.found.append("a mask as an index")
        result = func(*args, **(kwargs or {}))
        if free:
            self._free.update({leaf: True for leaf in tree_leaves(result) if isinstance(leaf, Tensor)})
        return result

    def expect_none(self) -> None:
        """Raise `ContractError` if anything was recorded."""
        names = sorted(set(self.found))
        expect(
            not names,
            "no synchronization with the device",
            f"it uses {some(names)}",
            "keep values in tensors (torch.where, topk, gather) instead of reading them",
        )
