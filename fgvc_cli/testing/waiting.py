"""Finds operations whose result the program must wait for: on a GPU they let it run dry."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from fgvc_cli.testing.check import expect, some

WAITING = {
    "_local_scalar_dense": "item() or tolist()",
    "is_nonzero": "a tensor as a condition",
    "nonzero": "nonzero()",
    "masked_select": "masked_select()",
    "equal": "torch.equal()",
    "_unique2": "unique()",
    "bincount": "bincount()",
}
"""Operations that read a value off the device, or make something as long as one says; and how a person writes them."""

INDEXING = ("index", "index_put", "index_put_")


class WaitWatch(TorchDispatchMode):
    """Within it, notes each operation that would wait for the device.

    What was made out of nothing (a number drawn on the CPU, a constant) may be read: nothing is waited for.

    Attributes:
        found: how the operations are written, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._free = WeakTensorKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        free = all(tensor in self._free for tensor in given)
        if name in WAITING and not free:
            self.found.append(WAITING[name])
        if name in INDEXING and any(i is not None and i.dtype == torch.bool for i in args[1]):
            self.found.append("a mask as an index")
        result = func(*args, **(kwargs or {}))
        if free:
            self._free.update({leaf: True for leaf in tree_leaves(result) if isinstance(leaf, Tensor)})
        return result

    def expect_none(self) -> None:
        """Raise `ContractBroken` if anything was found."""
        names = sorted(set(self.found))
        expect(
            not names,
            "nothing that waits for the device",
            f"it uses {some(names)}",
            "keep values in tensors (torch.where, topk, gather) instead of reading them",
        )
