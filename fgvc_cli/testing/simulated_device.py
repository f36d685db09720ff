"""A simulated GPU: tensors that report being on one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from fgvc_cli.errors import cause_of
from fgvc_cli.testing.check import ContractBroken, NotApplicable, where_raised

DEVICE = "cuda"

WHY = "A tensor made on the CPU, or kept in a plain attribute, does not come along when a model is moved."
"""What checks that are made of this are about."""


class _Applied(nn.Module):
    """Does something with a module, as a module of its own: `functional_call` takes one."""

    def __init__(self, module: nn.Module, run: Callable[..., object]) -> None:
        super().__init__()
        self.module, self.run = module, run

    def forward(self, *tensors: Tensor) -> None:
        """Do it."""
        self.run(self.module, *tensors)


def expect_moves(module: nn.Module, run: Callable[..., object], *tensors: Tensor) -> None:
    """Do something with a module and tensors as if all of them were on a GPU; shapes are followed, no value is.

    Args:
        module: its parameters and buffers are others for the while.
        run: is called with the module and the tensors; gradients cannot be asked for.
        tensors: what it is given.

    Raises:
        ContractBroken: something on the CPU meets what is not.
        NotApplicable: it cannot be followed without values, as where it reads one.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        named = (*module.named_parameters(), *module.named_buffers())
        state = {f"module.{name}": _there(tensor) for name, tensor in named}
        try:
            functional_call(_Applied(module, run), state, tuple(_there(tensor) for tensor in tensors))
        except (ContractBroken, NotApplicable, KeyboardInterrupt):
            raise
        except BaseException as error:
            if not _is_of_two_devices(error):
                raise NotApplicable(f"it cannot be followed without values ({type(error).__name__})") from error
            raise ContractBroken(
                "all tensors to be where the images are",
                f"{cause_of(error)}{where_raised(error)}",
                "make tensors with device=images.device (or new_zeros and the like), and register constant ones as "
                "buffers",
            ) from error


def _there(tensor: Tensor) -> Any:
    """Return a tensor of that shape and kind on the imagined GPU."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE).requires_grad_(tensor.requires_grad)


def _is_of_two_devices(error: BaseException) -> bool:
    """Tell whether an error is what torch says of tensors on two devices."""
    text = str(error)
    return isinstance(error, RuntimeError) and "devices" in text and "cpu" in text
