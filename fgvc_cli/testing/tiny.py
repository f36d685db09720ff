"""Tiny components and images that contract checks run on."""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
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
    RunStart,
    SingleEvaluation,
    TorchOptimizer,
)

IMAGE_SIZE = 64
"""Pixels of the side of the images that the kit shows its own backbones."""

HALF = (0.5, 0.5, 0.5)


class TinyBackbone(Backbone):
    """What the two have in common: stages, of which each makes a map of the one before, and a neck that pools."""

    stem: nn.Module
    stages: nn.ModuleList
    neck: nn.Module

    def forward(self, images: Tensor, reads: Reads) -> Features:
        """Compute what `reads` asks for, and no further."""
        x, maps = self.stem(images), {}
        for index, stage in enumerate(self.stages[: self._depth(reads)]):
            x = stage(x)
            if index in reads.maps:
                maps[index] = x
        return Features(maps, self.neck(x.mean((2, 3))) if reads.embedding else None)

    def prune(self, reads: Reads) -> None:
        """Drop the stages below the deepest map, and the neck, if nothing reads them."""
        del self.stages[self._depth(reads) :]
        if not reads.embedding:
            self.neck = nn.Identity()

    def cam_layer(self, map_index: int | None) -> CamLayer:
        """Name the stage that makes the map; for the embedding the last one."""
        return CamLayer(self.stages[-1 if map_index is None else map_index], "BCHW")

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
    """Mixes tokens, then channels."""

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.tokens, self.channels = nn.Linear(tokens, tokens), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        points = self.norm(x.flatten(2).transpose(1, 2))  # B,N,C
        mixed = torch.nn.functional.gelu(self.channels(self.tokens(points.transpose(1, 2)).transpose(1, 2)))
        return x + mixed.transpose(1, 2).unflatten(2, x.shape[2:])


def _convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


class TinyHead(Head):
    """Pools each map it reads, and classifies them together with the embedding if it reads that.

    Args:
        backbone: gives the widths.
        classes: the number of classes K.
        options: none.
        wanted: what it reads; None: the deepest map alone.
    """

    def __init__(self, backbone: BackboneInfo, classes: int, options: Any = None, wanted: Reads | None = None) -> None:
        super().__init__(backbone, classes, options)
        self.wanted = Reads((len(backbone.maps) - 1,)) if wanted is None else wanted
        width = sum(backbone.maps[index].channels for index in self.wanted.maps)
        self.dropout = nn.Dropout(0.1)
        self.classify = nn.Linear(width + backbone.embedding_width * self.wanted.embedding, classes)

    def reads(self, part: str | None = None) -> Reads:  # noqa: ARG002
        """Read what it was told to."""
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
        """Return B,S,S in [0, 1]: how much each pixel moves the scores; the head has nothing better to show."""
        with torch.enable_grad():
            given = images.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(model(given).float().square().sum(), given)
        size = gradient.float().abs().amax(1)
        return size / size.amax((1, 2), keepdim=True).clamp_min(1e-12)


@dataclass(frozen=True)
class TinyOptions:
    """Options of the kit's optimizers."""

    lr: float = 0.02
    head_lr: float | None = None


class TinySgd(TorchOptimizer):
    """Gradient descent with momentum."""

    def make(self, groups: list[dict[str, Any]], options: Any) -> torch.optim.Optimizer:
        """Make torch's own."""
        return torch.optim.SGD(groups, lr=options.lr, momentum=0.9)


class Twice(ComposedOptimizer):
    """Evaluates twice at the same weights, as SAM does at two points; remembers both evaluations of each step."""

    def __init__(self, groups: Sequence[ParameterGroup], options: Any, base: Optimizer) -> None:
        super().__init__(groups, options, base)
        self.pairs: list[tuple[Evaluation, Evaluation]] = []

    def step(self, closure: Closure) -> Evaluation:
        """Look around without moving, then let the base step."""
        first = closure.ascent()
        second = self.base.step(SingleEvaluation(closure, self.base))
        self.pairs.append((first, second))
        return first


def groups_of(backbone: nn.Module, head: nn.Module) -> list[ParameterGroup]:
    """Return the parameters of both, as the host hands them to an optimizer."""
    return [
        ParameterGroup("backbone", dict(backbone.named_parameters())),
        ParameterGroup("head", dict(head.named_parameters())),
    ]


def tiny_sgd(groups: Iterable[ParameterGroup], lr: float = 0.02) -> TinySgd:
    """Make `TinySgd`."""
    return TinySgd(list(groups), TinyOptions(lr))


CLASSES = 5
"""Classes of the kit's own problems."""


def images_of(count: int, size: int, seed: int = 0) -> Tensor:
    """Return normalized images B,3,S,S with a few colored blobs each; each follows from its index and the seed."""
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
    """Return class indices B (int64), the classes in turn."""
    return torch.arange(count) % CLASSES


def probabilities_of(count: int) -> Tensor:
    """Return class probabilities B,K as label smoothing makes them."""
    return torch.nn.functional.one_hot(labels_of(count), CLASSES) * 0.9 + 0.1 / CLASSES


def write_folder(folder: Path) -> None:
    """Write a small dataset: photographs of three colors in class folders of train, val and test."""
    import numpy as np
    from PIL import Image

    colors = {"blue": (30, 60, 200), "green": (40, 190, 60), "red": (210, 50, 40)}
    for split, count in (("train", 6), ("val", 2), ("test", 2)):
        for name, color in colors.items():
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                noise = np.random.default_rng(100 * count + i).integers(-40, 40, (40, 48, 3))
                pixels = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")


def write_table(folder: Path, ending: str) -> Path:
    """Write such photographs, and a table of path, label and split beside them; return the table."""
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


class Bowl:
    """Parameters that lie off the bottom of a bowl; one of them is frozen, as those of pruned modules may be.

    Args:
        seed: of the parameters and of the bottom.
    """

    def __init__(self, seed: int = 0) -> None:
        drawn = torch.Generator().manual_seed(seed)
        self.parameters: dict[str, dict[str, nn.Parameter]] = {}
        self.bottom: dict[nn.Parameter, Tensor] = {}
        for part, shapes in SHAPES.items():
            self.parameters[part] = {}
            for name, shape in shapes.items():
                parameter = nn.Parameter(torch.randn(shape, generator=drawn) + 1.0, requires_grad=name != "frozen")
                self.parameters[part][name] = parameter
                self.bottom[parameter] = torch.randn(shape, generator=drawn)

    def groups(self) -> list[ParameterGroup]:
        """Return the parameters as the host hands them to an optimizer."""
        return [
            ParameterGroup("backbone", self.parameters["backbone"]),
            ParameterGroup("head", self.parameters["head"]),
        ]

    def named(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Give all parameters with their names, as "head.weight"."""
        for part, parameters in self.parameters.items():
            yield from ((f"{part}.{name}", parameter) for name, parameter in parameters.items())

    def values(self) -> dict[str, Tensor]:
        """Return copies of all parameters."""
        return {name: parameter.detach().clone() for name, parameter in self.named()}

    @torch.no_grad()
    def set(self, values: Mapping[str, Tensor]) -> None:
        """Put copies back."""
        for name, parameter in self.named():
            parameter.copy_(values[name])

    @torch.no_grad()
    def height(self) -> float:
        """Return how far above the bottom they lie."""
        return float(sum(((p - self.bottom[p]) ** 2).sum() for _, p in self.named() if p.requires_grad) / 2)


@dataclass
class BowlClosure:
    """Evaluates the height of a bowl and leaves its gradient in the parameters.

    Attributes:
        bowl: the problem.
        found_inf: scalar: 1.0 makes the gradients not a number.
        without: names of parameters that get no gradient.
        missing_grad: names of parameters that get a gradient of zero, as those that coast do.
        calls: "update" or "ascent" for each evaluation so far.
        evaluations: what they returned.
    """

    bowl: Bowl
    found_inf: Tensor = field(default_factory=lambda: torch.zeros(()))
    without: tuple[str, ...] = ()
    missing_grad: tuple[str, ...] = ()
    calls: list[str] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)

    def __call__(self) -> Evaluation:
        """Evaluate for the update."""
        return self._evaluate("update")

    def ascent(self) -> Evaluation:
        """Evaluate for a look around."""
        return self._evaluate("ascent")

    def _evaluate(self, call: str) -> Evaluation:
        self.calls.append(call)
        for name, parameter in self.bowl.named():
            parameter.grad = None
            if parameter.requires_grad and name not in self.without:
                gradient = parameter.detach() - self.bowl.bottom[parameter]
                gradient = torch.zeros_like(gradient) if name in self.missing_grad else gradient
                parameter.grad = gradient.fill_(float("nan")) if float(self.found_inf) else gradient
        evaluation = Evaluation([len(self.calls)], [Loss(torch.tensor(self.bowl.height()))])
        self.evaluations.append(evaluation)
        return evaluation


CONFIG: dict[str, Any] = {
    "fgvc": "0.1.0",
    "recipe": "scratch",
    "backbone": {"name": "fgvc-cli:timm/test_resnet", "maps": "stages"},
    "head": {"name": "fgvc-cli:linear", "dropout": 0.0},
    "optimizer": {"name": "fgvc-cli:sgd", "lr": 0.003, "head_lr": "none"},
    "dataset": {"name": "fgvc-cli:folder", "data": "photos"},
    "train": {"epochs": 2, "batch_size": 16, "seed": 0, "mean": "none"},
    "augment": {"flip": True, "erase": 0.0},
}
"""Settings as `config.toml` has them."""


def metrics_of(epoch: int) -> dict[str, Any]:
    """Return a line as `metrics.jsonl` has it."""
    return {
        "epoch": epoch,
        "train": {"objective": 1.2 / epoch, "objective.parts": 0.2, "loss": 1.1 / epoch, "top1": 0.5, "images": 48},
        "val": {"loss": 0.9, "top1": 0.6, "images": 12},
        "rates": {"backbone": 0.003, "head": 0.003},
        "processes": 1,
        "images_per_second": 123.4,
        "seconds": 2.5,
    }


def summary_of() -> dict[str, Any]:
    """Return the end of a training as `summary.json` has it, the figures that a tracker may want."""
    figures = {"images": 12, "failed": 0, "classes": 3, "top1": 0.6, "top5": None, "loss": 0.8, "macro": {"f1": 0.58}}
    return {
        "run": "run",
        "classes": 3,
        "chance": 1 / 3,
        "dataset": {"name": "folder"},
        "splits": {"train": {"images": 48, "origin": ""}},
        "components": {kind: {"name": CONFIG[kind]["name"]} for kind in ("backbone", "head", "optimizer", "dataset")},
        "recipe": "scratch",
        "weights": "Random weights: training from scratch.",
        "epochs": 2,
        "best_epoch": 2,
        "stopped_early": False,
        "train": metrics_of(2)["train"],
        "val": metrics_of(2)["val"],
        "test": figures,
        "parameters": {"backbone": 1000, "head": 10, "total": 1010},
        "seconds": 5.0,
        "images_per_second": 123.4,
        "unreadable": {},
        "device": "cpu",
        "processes": 1,
        "precision": "fp32",
        "seed": 0,
        "versions": {},
    }


@contextmanager
def training_about_to_start() -> Iterator[RunStart]:
    """Give a training that is about to start, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="fgvc-check-") as folder:
        run = Path(folder) / "run"
        run.mkdir()
        (run / "config.toml").write_text("recipe = 'scratch'\n", "utf-8")
        yield RunStart(run, copy.deepcopy(CONFIG), ("ant", "bee", "cat"), resumed=False)


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Draw from a fixed seed, on one thread, with gradients enabled, and put back what was before.

    Threads that wait for each other make tiny models slow, and sums in another order make results differ.
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
    """Return a function that runs within `seeded`."""

    def inside() -> None:
        with seeded():
            run()

    return inside
