"""Where class activation maps hook a timm model: outputs of modules whose numbers are those of a feature map.

A shape says nothing about the order of tokens (Hiera keeps them in windows until its last stage), and a map may be one
item of a tuple. So a built model is run on noise, and an output is accepted only if it equals the map point by point,
in some order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from fgvc_backbones.survey import MapSource, TimmModel, read
from fgvc_cli import FgvcError
from fgvc_cli.contracts import CamLayer, Features, Reads, TokenBlocks
from fgvc_cli.errors import did_you_mean

Layout = Literal["BCHW", "BHWC", "BNC"]


@dataclass(frozen=True)
class CamPoint:
    """An output of a module, and its layout (see `CamLayer`).

    Attributes:
        module: name of the module.
        layout: of the output.
        prefix: number of leading tokens without a place, once in order.
        grid: (H, W) of the other tokens.
        item: which item of a tuple the output is; None: the module returns a tensor.
        order: for each token, once in order (prefix, then row by row), its index in the output; None: already in order.
    """

    module: str
    layout: Layout
    prefix: int = 0
    grid: tuple[int, int] | None = None
    item: int | None = None
    order: tuple[int, ...] | None = None

    @property
    def tokens(self) -> int:
        """Number of tokens, prefix included; for "BNC"."""
        return self.prefix + math.prod(self.grid or (0,))


class Tap(nn.Module):
    """A layer to hook in place of a module whose output is a tuple, or has its tokens in another order.

    As a forward hook of the module it passes the tensor through an identity, in order. No number changes.
    """

    def __init__(self, point: CamPoint) -> None:
        super().__init__()
        self.point = point
        self.layer = nn.Identity()

    def forward(self, module: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ARG002
        """Pass the tensor of a module's output through the layer, and return the output."""
        tensor = output if self.point.item is None else output[self.point.item]
        if self.point.order is None:
            tapped = self.layer(tensor)
        else:
            order = torch.tensor(self.point.order, device=tensor.device)
            tapped = self.layer(tensor[:, order])[:, order.argsort()]
        return _replaced(output, tensor, tapped)


class CamLayers:
    """Finds the layers of a built model, and remembers them.

    Args:
        model: the model, pruned or not.
        source: of its maps.
        image_size: side of the square images, pixels.
        pooled: the module whose output is the final feature map B,C,H,W, if the embedding is pooled from one.
        taps: a list of the backbone's, to which taps are added.
    """

    def __init__(
        self, model: TimmModel, source: MapSource, image_size: int, pooled: str | None, taps: nn.ModuleList
    ) -> None:
        self.model, self.source, self.image_size, self.pooled, self.taps = model, source, image_size, pooled, taps
        self._points: dict[int | None, CamPoint | None] = {}

    def forget(self) -> None:
        """Forget the layers, because the model was pruned."""
        self._points.clear()

    def layer(self, index: int | None, kept: Reads) -> CamLayer | None:
        """Return the layer for a map (None: for the embedding); None if no module outputs it.

        Args:
            index: of the map.
            kept: what the model still computes after pruning.
        """
        point = self.point(index, kept)
        return None if point is None else self._hooked(point)

    def point(self, index: int | None, kept: Reads) -> CamPoint | None:
        """Return the output for a map (None: for the embedding); see `layer`."""
        if index not in self._points:
            with _quiet(self.model):
                self._points[index] = self._embedding() if index is None else self._map(index, kept)
        return self._points[index]

    def _hooked(self, point: CamPoint) -> CamLayer:
        """Return the layer of a point; with a tap, if its module returns a tuple or another order."""
        module = self.model.get_submodule(point.module)
        if point.item is not None or point.order is not None:
            taps = [tap for tap in self.taps if tap.point == point]
            if not taps:
                taps = [Tap(point)]
                self.taps.append(taps[0])
                module.register_forward_hook(taps[0])
            module = taps[0].layer
        return CamLayer(module, point.layout, point.prefix, point.grid)

    def named(self, name: str, kept: Reads, grids: Collection[tuple[int, int]]) -> CamLayer:
        """Return a module by its name as a layer.

        A grid 1,C,H,W or 1,H,W,C is recognized by its shape. Tokens 1,N,C are in the order of a map of as many tokens,
        or row by row if the maps are grids (Swin's MLPs).

        Args:
            name: of the module.
            kept: what the model still computes after pruning.
            grids: the grids (H, W) that its output may have; empty: any square one.

        Raises:
            FgvcError: there is no such module, or its output is not a grid of points of one image.
        """
        modules = self._modules()
        if name not in modules:
            raise FgvcError(f"the model has no such module.{did_you_mean(name, modules)}")
        with _quiet(self.model), torch.no_grad():
            _, outputs = self._run({name: modules[name]}, kept)
        if not outputs:
            raise FgvcError("this module does not run")
        shape = tuple(outputs[0].tensor.shape)
        if outputs[0].item is None and shape[0] == 1:
            if len(shape) == 4:
                layouts: dict[Layout, tuple[int, int]] = {"BCHW": (shape[2], shape[3]), "BHWC": (shape[1], shape[2])}
                for layout, grid in layouts.items():
                    if grid in grids or (not grids and grid[0] == grid[1]):
                        return CamLayer(modules[name], layout)
            for index in reversed(range(len(self.source.modules))) if len(shape) == 3 else ():
                point = self.point(index, kept)
                if point is not None and point.layout == "BNC" and point.tokens == shape[1]:
                    return self._hooked(replace(point, module=name, item=None))
            for grid in grids if len(shape) == 3 else ():
                if math.prod(grid) == shape[1]:
                    return CamLayer(modules[name], "BNC", 0, grid)
        known = ", ".join(f"{rows}x{columns}" for rows, columns in dict.fromkeys(grids))
        raise FgvcError(
            f"its output of shape {'x'.join(map(str, shape))} is not a grid of points of one image"
            + (f" (maps: {known})" if known else "")
        )

    def token_blocks(self, kept: Reads) -> TokenBlocks | None:
        """Return the blocks of a plain transformer, each of which returns as many tokens, in order."""
        blocks = getattr(self.model, "blocks", None)
        last = len(self.source.modules) - 1
        reads = Reads((last,))
        if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not (kept.embedding or last in kept.maps):
            return None
        modules = {f"blocks.{number}": block for number, block in enumerate(blocks)}
        with _quiet(self.model):
            points = self._equal(last, reads, {name: modules[name] for name in list(modules)[-1:]})
            if not points or points[0].layout != "BNC" or points[0].item is not None or points[0].order is not None:
                return None
            with torch.no_grad():
                _, outputs = self._run(modules, reads)
        found = [tuple(output.tensor.shape) for output in outputs if output.item is None]
        if len(found) != len(modules) or {shape[:2] for shape in found} != {(1, points[0].tokens)}:
            return None
        return TokenBlocks(tuple(modules.values()), points[0].prefix, points[0].grid or (0, 0))

    def _map(self, index: int, kept: Reads) -> CamPoint | None:
        """Return the output that equals a map: of the module that timm names, or else the last one to finish.

        A module that timm does not name, or that returns the map in a tuple or in another order, may return a mere
        copy. So the deepest feature kept must depend on its output, or else the map itself, if that is kept. If neither
        does, because only class tokens are read after the last attention (CoaT), it is the output of a norm before.
        """
        named = self.source.modules[index]
        last = index == len(self.source.modules) - 1
        deeper = [] if last else [Reads(embedding=True) if kept.embedding else Reads(kept.maps[-1:])]
        reads = Reads((index,)) if last else deeper[0] | Reads((index,))
        known = self._equal(index, reads, {named: self._modules()[named]} if named in self._modules() else {})
        if known and known[0].item is None and known[0].order is None:
            return known[0]
        points = self._equal(index, reads, self._modules())
        own = [Reads((index,))] if last or index in kept.maps else []
        reached = (point for reads in deeper + own for point in points if self._reaches(point, reads))
        point = next(reached, None)
        return self._before_attention(points[0], deeper[0]) if point is None and points and not last else point

    def _equal(self, index: int, reads: Reads, modules: Mapping[str, nn.Module]) -> list[CamPoint]:
        """Return the outputs of some modules that equal a map, the last one to finish first.

        The deepest feature is read along with the map, because a later module may change the map in place.
        """
        with torch.no_grad():
            features, outputs = self._run(modules, reads)
        own_grid = getattr(getattr(self.model, "patch_embed", None), "grid_size", None)
        points = [_match(output, features.maps[index], own_grid) for output in reversed(outputs)]
        return [point for point in points if point is not None]

    def _modules(self) -> dict[str, nn.Module]:
        return {name: module for name, module in self.model.named_modules() if name}

    def _embedding(self) -> CamPoint | None:
        """Return the output for a score of the embedding.

        Convolutional network: the input of its pooling (EfficientNet: the output of its last 1x1 convolution, `bn2`).
        Averaged tokens: the output of the last stage or block. Class token: the last norm from whose output the patch
        tokens still reach it, because the score no longer depends on those that leave the last block.
        """
        last = len(self.source.modules) - 1
        deepest = self._map(last, Reads((last,)))
        if self.pooled is not None and (deepest is None or deepest.layout == "BCHW"):
            return CamPoint(self.pooled, "BCHW")
        if deepest is None:
            return None
        if self._reaches(deepest, Reads(embedding=True)):
            return deepest
        if deepest.layout == "BCHW":  # put together again from tokens
            deepest = next(
                (point for point in self._equal(last, Reads((last,)), self._modules()) if point.layout == "BNC"),
                deepest,
            )
        _, outputs = self._run(self._modules(), Reads(embedding=True))
        finished = [output.module for output in outputs]
        norm, attention = f"{deepest.module}.norm1", f"{deepest.module}.attn"
        if norm in finished and attention in finished and finished.index(attention) < finished.index(norm):
            blocks, _, number = deepest.module.rpartition(".")  # a norm after the attention: its residual is left out
            return replace(deepest, module=f"{blocks}.{int(number) - 1}")
        return self._before_attention(deepest, Reads(embedding=True))

    def _before_attention(self, point: CamPoint, reads: Reads) -> CamPoint | None:
        """Return the last norm of a point's tokens from whose output the patch tokens still reach a feature."""
        features, outputs = self._run(self._modules(), reads)
        norms = [
            output
            for output in reversed(outputs)
            if "norm" in output.module.rpartition(".")[2] and output.tensor.shape[:-1] == (1, point.tokens)
        ]
        feature = features.embedding if reads.embedding else features.maps[reads.maps[-1]]
        gradients = _gradients(feature, [output.tensor for output in norms])
        for output, gradient in zip(norms, gradients, strict=True):
            found = replace(point, module=output.module, item=None)
            if _has_gradient(found, gradient):
                return found
        return None

    def _reaches(self, point: CamPoint, reads: Reads) -> bool:
        """Check whether a feature is computed from what a module returns, by replacing it as an explainer does."""
        leaves: list[Tensor] = []

        def cut(module: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ARG001
            tensor = output if point.item is None else output[point.item]
            leaves.append(tensor.detach().requires_grad_())
            return _replaced(output, tensor, leaves[-1].clone())

        handle = self.model.get_submodule(point.module).register_forward_hook(cut)
        try:
            features, _ = self._run({}, reads)
        finally:
            handle.remove()
        feature = features.embedding if reads.embedding else features.maps[reads.maps[-1]]
        return bool(leaves) and _has_gradient(point, _gradients(feature, leaves[:1])[0])

    def _run(self, modules: Mapping[str, nn.Module], reads: Reads) -> tuple[Features, list[_Output]]:
        """Run the model on an image of noise, in which no two points are equal; return the outputs of some modules."""
        weights = next(self.model.parameters())
        noise = torch.randn(1, 3, self.image_size, self.image_size, generator=torch.Generator().manual_seed(0))
        images = noise.to(weights.device, weights.dtype).requires_grad_()
        with _outputs(modules) as outputs:
            return read(self.model, self.source, images, reads), outputs


def _replaced(output: Any, tensor: Tensor, other: Tensor) -> Any:
    """Return a module's output with another tensor in place of one."""
    return other if output is tensor else type(output)(other if item is tensor else item for item in output)


def _gradients(feature: Tensor | None, tensors: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """Return the gradients of a feature, weighted to one number, at tensors; None where it does not depend on one."""
    if feature is None or not feature.requires_grad or not tensors:
        return [None] * len(tensors)
    weights = torch.arange(1, feature.numel() + 1, device=feature.device).sin().view_as(feature)
    return torch.autograd.grad((feature * weights.to(feature.dtype)).sum(), tensors, allow_unused=True)


def _has_gradient(point: CamPoint, gradient: Tensor | None) -> bool:
    """Check whether a gradient at a module's output is other than 0, prefix tokens left out."""
    if gradient is None or point.layout != "BNC":
        return gradient is not None and bool(gradient.any())
    ordered = gradient if point.order is None else gradient[:, list(point.order)]
    return bool(ordered[:, point.prefix :].any())


class _Output(NamedTuple):
    """A tensor that a module returned, alone or as an item of a tuple, and its version then."""

    module: str
    item: int | None
    tensor: Tensor
    version: int


@contextmanager
def _outputs(modules: Mapping[str, nn.Module]) -> Iterator[list[_Output]]:
    """Collect the outputs of modules, in the order in which they finish."""
    found: list[_Output] = []

    def recorder(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
            items = enumerate(output) if isinstance(output, tuple | list) else [(None, output)]
            found.extend(_Output(name, i, t, t._version) for i, t in items if isinstance(t, Tensor))

        return record

    handles = [module.register_forward_hook(recorder(name)) for name, module in modules.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _match(output: _Output, wanted: Tensor, own_grid: tuple[int, int] | None) -> CamPoint | None:
    """Return an output as a point if it equals a map in some layout and order, else None.

    Args:
        output: of a module.
        wanted: the map 1,C,H,W; with H = 1 it may be a row of tokens, prefix tokens first.
        own_grid: (H, W) of the model's patches, to put such a row on.
    """
    tensor, (_, channels, height, width) = output.tensor, wanted.shape
    if tensor._version != output.version:  # changed in place since
        return None
    if tensor.shape == wanted.shape and _same(tensor, wanted):
        return CamPoint(output.module, "BCHW", item=output.item)
    if tensor.shape == (1, height, width, channels) and _same(tensor.permute(0, 3, 1, 2), wanted):
        return CamPoint(output.module, "BHWC", item=output.item)
    if tensor.ndim != 3 or tensor.shape[2] != channels or tensor.shape[1] < height * width:
        return None
    points = wanted.flatten(2).transpose(1, 2)  # (1, H * W, C)
    prefix, grid = tensor.shape[1] - height * width, (height, width)
    if _same(tensor[:, prefix:], points):
        if height == 1 < width and own_grid is not None:
            prefix, grid = prefix + width - math.prod(own_grid), own_grid
        return CamPoint(output.module, "BNC", prefix, grid, output.item)
    order = _order(tensor[0], points[0])
    return None if order is None else CamPoint(output.module, "BNC", prefix, grid, output.item, order)


def _same(tensor: Tensor, wanted: Tensor) -> bool:
    return torch.allclose(tensor, wanted, rtol=0, atol=0, equal_nan=True)


def _order(tokens: Tensor, points: Tensor) -> tuple[int, ...] | None:
    """Return the indices of tokens N,C: first those of no point M,C, then one per point; None if one is missing.

    The noise of the image tells points apart, so the tokens of equal points do not matter.
    """
    rows = {row.tobytes(): number for number, row in enumerate(tokens.detach().cpu().float().numpy())}
    found = [rows.get(row.tobytes()) for row in points.detach().contiguous().cpu().float().numpy()]
    placed = [number for number in found if number is not None]
    if len(set(placed)) < len(found):
        return None
    return (*sorted(set(range(len(tokens))) - set(placed)), *placed)


@contextmanager
def _quiet(model: nn.Module) -> Iterator[None]:
    """Run a model with gradients, in evaluation mode and as it is, not compiled."""
    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device.type
    try:
        model.eval()
        with torch.compiler.set_stance("force_eager"), torch.enable_grad(), torch.autocast(device, enabled=False):
            yield
    finally:
        for module, training in modes:
            module.training = training
