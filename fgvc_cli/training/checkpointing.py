"""Activation checkpointing: the blocks of the backbone keep their inputs and compute their activations again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.contracts import Classifier
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.scoring.scores import evaluation_mode


def checkpoint_activations(classifier: Classifier, options: TrainOptions) -> None:
    """Let each block of the backbone compute its activations a second time, in the backward pass, if the options ask.

    Gradients are the same: the second pass draws the same random numbers, in the same precision, and leaves buffers
    (batch-norm statistics) alone. Blocks in evaluation mode, and those without a gradient, run as before.

    Reference: Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost, arXiv 1604.06174.

    Raises:
        UsageError: the blocks of the backbone are unknown, or the model is compiled.
    """
    if not options.checkpoint_activations or not options.epochs:
        return
    given = "`train.checkpoint_activations=true`"
    if options.compile:
        raise UsageError(f"{given} cannot be compiled; use `compile=false`, or leave it out")
    try:
        depths = classifier.backbone.layer_depths("block")
    except FgvcError as error:
        raise UsageError(f"{given}: {error}; leave it out, and lower `batch_size` to save memory") from error
    blocks = _called(classifier, list(_blocks(classifier.backbone, "", depths)))
    if not blocks:
        raise UsageError(
            f"{given}: the backbone {classifier.backbone.info.name} has no blocks whose activations could be computed "
            "again; leave it out"
        )
    for block in blocks:
        # A bound method, so that a copy of the block calls itself; the names of the weights do not change.
        block.forward = MethodType(_forward, block)


def _forward(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward = partial(type(block).forward, block)
    if not (block.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=partial(_contexts, block), **kwargs)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Return the contexts of the first and of the second pass of a block."""
    return nullcontext(), _kept_buffers(block)


@contextmanager
def _kept_buffers(block: nn.Module) -> Iterator[None]:
    """Restore the buffers of a block after its second pass, which would update batch-norm statistics again."""
    buffers = list(block.buffers())
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)


def _blocks(module: nn.Module, path: str, depths: Mapping[str, int]) -> Iterator[nn.Module]:
    """Yield the outermost modules whose parameters are in one block; a lone layer has nothing to gain."""
    names = [f"{path}{name}" for name, _ in module.named_parameters()]
    if len({depths[name] for name in names}) > 1:
        for name, child in module.named_children():
            yield from _blocks(child, f"{path}{name}.", depths)
    elif len({name.rpartition(".")[0] for name in names}) > 1:
        yield module


def _called(classifier: Classifier, blocks: list[nn.Module]) -> list[nn.Module]:
    """Return the blocks that a forward pass calls."""
    backbone, called = classifier.backbone, set()
    hooks = [block.register_forward_hook(lambda block, *_: called.add(block)) for block in blocks]
    size = classifier.preprocessing.image_size
    try:
        with evaluation_mode(backbone), torch.no_grad():
            backbone(torch.zeros(1, 3, size, size, device=classifier.device), classifier.head.reads())
    finally:
        for hook in hooks:
            hook.remove()
    return [block for block in blocks if block in called]
