"""The network as a graph with a free batch dimension."""

from __future__ import annotations

import contextlib
import io
import logging
import traceback
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from fgvc_cli import FgvcError
from fgvc_cli.contracts import ExportJob
from fgvc_cli.errors import cause_of

if TYPE_CHECKING:
    from torch.export import ExportedProgram

INPUT, OUTPUT = "images", "scores"
"""Names of the input B,3,S,S and of the output B,K."""

KEY = "fgvc"
"""Name of the description in the metadata of a file, as in a model file."""

LOGGERS = ("torch", "onnxscript", "onnx_ir")

EXAMPLES = 2
"""Batch size of the example: torch.export takes the sizes 0 and 1 for constants."""


def traced(job: ExportJob) -> ExportedProgram:
    """Trace the network with torch.export.

    Raises:
        FgvcError: a layer cannot be traced.
    """
    sizes = {INPUT: {0: torch.export.Dim("batch")}}
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(job.network, (job.images[:EXAMPLES],), dynamic_shapes=sizes, strict=False)
    except Exception as error:  # layers can raise anything when they are traced
        where = _raised_in(job.network, error)
        raise FgvcError(f"torch.export cannot trace {where or 'the network'}: {cause_of(error)}") from error


def layer_of(program: ExportedProgram, operator: str) -> str:
    """Return the innermost layer that calls an operator such as "aten.conv2d", or one that starts so; "" if none does.

    A name is followed by its class: "backbone.stem (Conv2d)".
    """
    for node in program.graph.nodes:
        if str(node.target).startswith(operator) and (stack := node.meta.get("nn_module_stack")):
            name, kind = list(stack.values())[-1]
            kind_name = kind.rpartition(".")[2] if isinstance(kind, str) else kind.__name__
            return f"{name.removeprefix('classifier.')} ({kind_name})"
    return ""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep torch and the libraries that it calls from printing their internals."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:  # not `logging.disable`, with which torch records its traces in vain
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _raised_in(network: nn.Module, error: BaseException) -> str:
    """Return the innermost layer in the traceback of an error."""
    names = {id(module): name for name, module in network.named_modules()}
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = frame.f_locals.get("self")
        if name := names.get(id(module), ""):
            return f"{name.removeprefix('classifier.')} ({type(module).__name__})"
    return ""
