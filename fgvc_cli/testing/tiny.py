"""Tiny components, images and problems that contract checks use as partners."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from fgvc_cli.contracts import (
    Backbone,
    BackboneInfo,
    CamLayer,
    Closure,
    ComposedOptimizer,
    Evaluation,
    Features,
    Head,
    ImageSizes,
    Loss,
    MapInfo,
    Model,
    Objective,
    Optimizer,
    ParameterGroup,
    Reads,
    SingleEvaluation,
    TokenBlocks,
    TorchOptimizer,
)

IMAGE_SIZE = 64
"""Side of the images for tiny backbones, pixels."""

HALF = (0.5, 0.5, 0.5)


class TinyBackbone(Backbone):
    """Base class: stages that compute one map each, and a neck that computes the embedding from pooled features."""

    stem: nn.Module
    stages: nn.ModuleList
    neck: nn.Module

    def forward(self, images: Tensor, reads: Reads) -> Features:
        """Compute the requested features."""
        x, maps = self.stem(images), {}
        for index, stage in enumerate(self.stages[: self._depth(reads)]):
            x = stage(x)
            if index in reads.maps:
                maps[index] = x
        return Features(maps, self.neck(x.mean((2, 3))) if reads.embedding else None)

    def prune(self, reads: Reads) -> None:
        """Delete unused stages and an unused neck."""
        del self.stages[self._depth(reads) :]
        if not reads.embedding:
            self.neck = nn.Identity()

    def cam_layer(self, map_index: int | None) -> CamLayer:
        """Return the stage that computes the map; the last one for the embedding."""
        return CamLayer(self.stages[-1 if map_index is None else map_index], "BCHW")

    def layer_depths(self, unit: Literal["stage", "block"]) -> dict[str, int]:  # noqa: ARG002
        """Return 0 for the stem, then the number of the stage; the neck belongs to the last one."""
        last = len(self.stages)
        names = (name for name, _ in self.named_parameters())
        return {
            name: 0 if name.startswith("stem.") else last if name.startswith("neck.") else 1 + int(name.split(".")[1])
            for name in names
        }

    def _depth(self, reads: Reads) -> int:
        return len(self.info.maps) if reads.embedding else max(reads.maps, default=-1) + 1


class TinyConvolutional(TinyBackbone):
    """Strided convolutions with batch normalization: maps of stride 4, 8, 16 and 32, an embedding of width 20."""

    def __init__(self, image_size: int = IMAGE_SIZE) -> None:
        super().__init__()
        ImageSizes(minimum=32, multiple=32).check(image_size, "tiny-convolutional")
        widths = (8, 12, 16, 24)
        self.stem = _convolution(3, 8)
        self.stages = nn.ModuleList(
            _convolution(before, after) for before, after in zip((8, *widths), widths, strict=False)
        )
        self.neck = nn.Linear(widths[-1], 20)
        maps = tuple(MapInfo(w, 4 << i, (image_size // (4 << i),) * 2) for i, w in enumerate(widths))
        self.info = BackboneInfo("tiny-convolutional", "convolutional", image_size, maps, 20, HALF, HALF)

    def info_at(self, image_size: int) -> BackboneInfo:
        """Return the description for images of another size."""
        return TinyConvolutional(image_size).info


class TinyTokens(TinyBackbone):
    """Four blocks on patches of 16 x 16 pixels: four maps of one stride, an embedding of width 12."""

    def __init__(self, image_size: int = IMAGE_SIZE) -> None:
        super().__init__()
        ImageSizes(minimum=32, multiple=16).check(image_size, "tiny-tokens")
        side, width = image_size // 16, 16
        self.stem = nn.Conv2d(3, width, 16, 16)
        self.stages = nn.ModuleList(_Block(width, side * side) for _ in range(4))
        self.neck = nn.Linear(width, 12)
        maps = (MapInfo(width, 16, (side, side)),) * 4
        self.info = BackboneInfo("tiny-tokens", "transformer", image_size, maps, 12, HALF, HALF)


class _Block(nn.Module):
    """A linear layer over tokens and one over channels, with a residual connection."""

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.tokens, self.channels = nn.Linear(tokens, tokens), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        points = self.norm(x.flatten(2).transpose(1, 2))  # B,N,C
        mixed = torch.nn.functional.gelu(self.channels(self.tokens(points.transpose(1, 2)).transpose(1, 2)))
        return x + mixed.transpose(1, 2).unflatten(2, x.shape[2:])


class TinyTransformer(Backbone):
    """Three blocks with attention of two heads on patches of 16 x 16 pixels: three maps, an embedding of width 16."""

    def __init__(self, image_size: int = IMAGE_SIZE) -> None:
        super().__init__()
        ImageSizes(minimum=32, multiple=16).check(image_size, "tiny-transformer")
        self.side, width = image_size // 16, 16
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.places = nn.Parameter(torch.randn(self.side**2, width))
        self.blocks = nn.ModuleList(_AttentionBlock(width) for _ in range(3))
        maps = (MapInfo(width, 16, (self.side, self.side)),) * 3
        self.info = BackboneInfo("tiny-transformer", "transformer", image_size, maps, width, HALF, HALF)

    def forward(self, images: Tensor, reads: Reads) -> Features:
        """Compute the requested features."""
        tokens, maps = self.patches(images).flatten(2).transpose(1, 2) + self.places, {}
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in reads.maps:
                maps[index] = tokens.transpose(1, 2).unflatten(2, (self.side, self.side))
        return Features(maps, tokens.mean(1) if reads.embedding else None)

    def prune(self, reads: Reads) -> None:
        """Delete unused blocks."""
        del self.blocks[len(self.info.maps) if reads.embedding else max(reads.maps, default=-1) + 1 :]

    def cam_layer(self, map_index: int | None) -> CamLayer:
        """Return the block that computes the map; the last one for the embedding."""
        block = self.blocks[-1 if map_index is None else map_index]
        return CamLayer(block, "BNC", 0, (self.side, self.side))

    def token_blocks(self) -> TokenBlocks:
        """Return the blocks."""
        return TokenBlocks(tuple(self.blocks), 0, (self.side, self.side))


class _AttentionBlock(nn.Module):
    """Attention of two heads, then a linear layer over channels, each with a residual connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.projections, self.channels = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.projections(self.norm(x)).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        x = x + F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return x + F.gelu(self.channels(x))


def _convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


class TinyHead(Head):
    """Classifies the concatenation of pooled maps and, if it reads it, the embedding.

    Args:
        backbone: description of the backbone.
        classes: number of classes K.
        options: unused.
        wanted: what it reads; None: only the deepest map.
    """

    def __init__(self, backbone: BackboneInfo, classes: int, options: Any = None, wanted: Reads | None = None) -> None:
        super().__init__(backbone, classes, options)
        self.wanted = Reads((len(backbone.maps) - 1,)) if wanted is None else wanted
        width = sum(backbone.maps[index].channels for index in self.wanted.maps)
        self.dropout = nn.Dropout(0.1)
        self.classify = nn.Linear(width + backbone.embedding_width * self.wanted.embedding, classes)

    def reads(self, part: str | None = None) -> Reads:  # noqa: ARG002
        """Return the constructor's argument."""
        return self.wanted

    def forward(self, features: Features, part: str | None = None) -> Tensor:  # noqa: ARG002
        """Return scores B,K."""
        pooled = [features.maps[index].mean((2, 3)) for index in self.wanted.maps]
        if features.embedding is not None:
            pooled.append(features.embedding)
        scores: Tensor = self.classify(self.dropout(torch.cat(pooled, dim=1)))
        return scores

    def objectives(self, images: Tensor, targets: Tensor) -> Generator[Objective, Any, None]:
        """Yield the cross entropy of the scores."""
        yield Objective(images, lambda scores: Loss(F.cross_entropy(scores.float(), targets), scores))

    def attention(self, model: Model, images: Tensor) -> Tensor:
        """Return the magnitude of the gradient at each pixel, B,S,S in [0, 1]."""
        with torch.enable_grad():
            given = images.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(model(given).float().square().sum(), given)
        size = gradient.float().abs().amax(1)
        return size / size.amax((1, 2), keepdim=True).clamp_min(1e-12)


@dataclass(frozen=True)
class TinyOptions:
    """Options of `TinySgd`."""

    lr: float = 0.02
    head_lr: float | None = None


class TinySgd(TorchOptimizer):
    """SGD with momentum."""

    def make(self, groups: list[dict[str, Any]], options: Any) -> torch.optim.Optimizer:
        """Return torch's SGD."""
        return torch.optim.SGD(groups, lr=options.lr, momentum=0.9)


class EvaluateTwice(ComposedOptimizer):
    """Evaluates twice at the same weights and records both evaluations of each step."""

    def __init__(self, groups: Sequence[ParameterGroup], options: Any, base: Optimizer) -> None:
        super().__init__(groups, options, base)
        self.pairs: list[tuple[Evaluation, Evaluation]] = []

    def step(self, closure: Closure) -> Evaluation:
        """Evaluate once, then let the base step."""
        first = closure.ascent()
        second = self.base.step(SingleEvaluation(closure, self.base))
        self.pairs.append((first, second))
        return first


def groups_of(backbone: nn.Module, head: nn.Module) -> list[ParameterGroup]:
    """Return the parameters of both as the host passes them to an optimizer."""
    return [
        ParameterGroup("backbone", dict(backbone.named_parameters())),
        ParameterGroup("head", dict(head.named_parameters())),
    ]


def tiny_sgd(groups: Iterable[ParameterGroup], lr: float = 0.02) -> TinySgd:
    """Return a `TinySgd`."""
    return TinySgd(list(groups), TinyOptions(lr))


CLASSES = 5
"""Number of classes of tiny classifiers."""


def images_of(count: int, size: int, seed: int = 0) -> Tensor:
    """Return normalized images B,3,S,S of colored blobs, determined by index and seed."""
    at, images = torch.arange(size), []
    for index in range(count):
        generator = torch.Generator().manual_seed(1000 * seed + index)
        image = 0.3 * torch.randn(3, size, size, generator=generator)
        for _ in range(3):
            (y, x), color = torch.rand(2, 1, generator=generator) * size, torch.randn(3, 1, 1, generator=generator)
            image += 3 * color * torch.exp(-((at[:, None] - y) ** 2 + (at - x) ** 2) / (size / 8) ** 2)
        images.append(image)
    return torch.stack(images)


def labels_of(count: int) -> Tensor:
    """Return class indices B (int64): 0, 1, 2, ..."""
    return torch.arange(count) % CLASSES


def probabilities_of(count: int) -> Tensor:
    """Return class probabilities B,K as from label smoothing."""
    return torch.nn.functional.one_hot(labels_of(count), CLASSES) * 0.9 + 0.1 / CLASSES


def write_folder(folder: Path) -> None:
    """Write a small dataset: noisy images of three colors in class folders of train, val and test."""
    colors = {"blue": (30, 60, 200), "green": (40, 190, 60), "red": (210, 50, 40)}
    for split, count in (("train", 6), ("val", 2), ("test", 2)):
        for name, color in colors.items():
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                noise = np.random.default_rng(100 * count + i).integers(-40, 40, (40, 48, 3))
                pixels = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")


def write_table(folder: Path, ending: str) -> Path:
    """Write the same images and a table with path, label and split; return the table."""
    write_folder(folder)
    separator = "\t" if ending == ".tsv" else ","
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.png"))
    rows = [(file.as_posix(), file.parts[1], file.parts[0]) for file in files]
    table = folder / f"table{ending}"
    table.write_text("".join(f"{separator.join(row)}\n" for row in [("path", "label", "split"), *rows]), "utf-8")
    return table


SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "backbone": {"convolution.weight": (4, 3, 3, 3), "norm.weight": (4,), "frozen": (3,)},
    "head": {"weight": (5, 4), "bias": (5,)},
}


class Quadratic:
    """A quadratic problem: half the squared distance of parameters to a minimum. One parameter is frozen.

    Args:
        seed: seed of the parameters and of the minimum.
    """

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.parameters: dict[str, dict[str, nn.Parameter]] = {}
        self.minimum: dict[nn.Parameter, Tensor] = {}
        for part, shapes in SHAPES.items():
            self.parameters[part] = {}
            for name, shape in shapes.items():
                parameter = nn.Parameter(torch.randn(shape, generator=generator) + 1.0, requires_grad=name != "frozen")
                self.parameters[part][name] = parameter
                self.minimum[parameter] = torch.randn(shape, generator=generator)

    def groups(self) -> list[ParameterGroup]:
        """Return the parameters as the host passes them to an optimizer."""
        return [
            ParameterGroup("backbone", self.parameters["backbone"]),
            ParameterGroup("head", self.parameters["head"]),
        ]

    def named(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield all parameters with names such as "head.weight"."""
        for part, parameters in self.parameters.items():
            yield from ((f"{part}.{name}", parameter) for name, parameter in parameters.items())

    def values(self) -> dict[str, Tensor]:
        """Return copies of all parameters."""
        return {name: parameter.detach().clone() for name, parameter in self.named()}

    @torch.no_grad()
    def set(self, values: Mapping[str, Tensor]) -> None:
        """Set all parameters."""
        for name, parameter in self.named():
            parameter.copy_(values[name])

    @torch.no_grad()
    def loss(self) -> float:
        """Return the value to minimize."""
        return float(sum(((p - self.minimum[p]) ** 2).sum() for _, p in self.named() if p.requires_grad) / 2)


@dataclass
class QuadraticClosure:
    """Evaluates a quadratic problem and stores its gradient in the parameters.

    Attributes:
        problem: the problem.
        found_inf: scalar; 1.0 makes the gradients NaN.
        without: names of parameters that get no gradient.
        zero_grad: names of parameters that get a zero gradient.
        calls: "update" or "ascent" for each evaluation so far.
        evaluations: the results of these.
    """

    problem: Quadratic
    found_inf: Tensor = field(default_factory=lambda: torch.zeros(()))
    without: tuple[str, ...] = ()
    zero_grad: tuple[str, ...] = ()
    calls: list[str] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)

    def __call__(self) -> Evaluation:
        """Evaluate for the update."""
        return self._evaluate("update")

    def ascent(self) -> Evaluation:
        """Evaluate for an ascent step."""
        return self._evaluate("ascent")

    def _evaluate(self, call: str) -> Evaluation:
        self.calls.append(call)
        for name, parameter in self.problem.named():
            parameter.grad = None
            if parameter.requires_grad and name not in self.without:
                gradient = parameter.detach() - self.problem.minimum[parameter]
                gradient = torch.zeros_like(gradient) if name in self.zero_grad else gradient
                parameter.grad = gradient.fill_(float("nan")) if float(self.found_inf) else gradient
        evaluation = Evaluation([len(self.calls)], [Loss(torch.tensor(self.problem.loss()))])
        self.evaluations.append(evaluation)
        return evaluation


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Set a fixed seed, a single thread and enabled gradients, and restore the previous state afterwards.

    With a single thread, tiny models are faster and the order of summation is fixed.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    python, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(python)
        np.random.set_state(arrays)


def isolated(run: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls another one within `seeded`."""
    return lambda: seeded()(run)()
