"""What some work asks of a device: how many operations, and how much memory they read and write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """Counts the operations that start a computation; views start none.

    Attributes:
        count: operations.
        moved: bytes of the tensors that they take and return.
    """

    count = 0
    moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count and do it."""
        result = func(*args, **(kwargs or {}))
        returned = func._schema.returns
        if not any(value.alias_info is not None and not value.alias_info.is_write for value in returned):
            self.count += 1
            self.moved += sum(_bytes((args, kwargs, result)))
        return result


def _bytes(tree: Any) -> Iterator[int]:
    """Give the bytes of the tensors in a tree; what is expanded lies in memory once."""
    for leaf in pytree.tree_leaves(tree):
        if isinstance(leaf, Tensor):
            sides = zip(leaf.shape, leaf.stride(), strict=True)
            elements = 1 if leaf.numel() else 0
            for side, stride in sides:
                elements *= side if stride else 1
            yield elements * leaf.element_size()
