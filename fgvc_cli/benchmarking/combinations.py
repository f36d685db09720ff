"""From a request to the combinations to measure, each with every setting resolved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from fgvc_cli.config.applicable import MEASURED, SharedSettings
from fgvc_cli.config.recipes import read_recipe
from fgvc_cli.config.run_config import RunConfig, resolve, user_settings
from fgvc_cli.devices import pick_device
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.explaining.explainers import NamedExplainer, explainer_settings, make_explainers
from fgvc_cli.options import parse_setting
from fgvc_cli.registry import Component, Registry
from fgvc_cli.specs import Kind

LARGEST = 0
"""The batch size that stands for: as many images as fit."""


@dataclass(frozen=True)
class BenchRequest:
    """Which combinations to time, and how.

    Attributes:
        backbones, heads, optimizers: names; of a kind without any, all built-in components.
        everything: take the components of every installed plugin instead of the built-in ones.
        explainers: to time beside updates and predictions.
        image_size: side of the images, pixels; None: by device.
        batch_size: images in a batch; `LARGEST`: as many as fit into the GPU's memory; None: by device.
        classes: of the head.
        recipe: whose settings the components get.
        settings: `--set` as typed, stronger than the recipe.
        device, precision: as a person names them.
        channels_last: the memory format of convolutional weights and images.
        compile: whether the model is compiled.
        seconds: for each piece of work, at most (one round is always timed); None: by device.
        epoch: whether to time an epoch of each combination over real images too.
        pipeline: whether to time the input pipeline.
        dataset, data: the images for `epoch` and `pipeline`: a name, or a folder or table; without either, drawn ones.
        workers: processes that read them; -1 chooses by device.
    """

    backbones: Sequence[str] = ()
    heads: Sequence[str] = ()
    optimizers: Sequence[str] = ()
    everything: bool = False
    explainers: Sequence[str] = ()
    image_size: int | None = None
    batch_size: int | None = None
    classes: int = 100
    recipe: str = "finetune"
    settings: Sequence[str] = field(default_factory=tuple)
    device: str = "auto"
    precision: str = "auto"
    channels_last: Literal["auto", "on", "off"] = "auto"
    compile: bool = False
    seconds: float | None = None
    epoch: bool = False
    pipeline: bool = False
    dataset: str | None = None
    data: Path | None = None
    workers: int = -1


def batch_size_named(text: str | None) -> int | None:
    """Return the batch size that a person typed: a number, or "max" for `LARGEST`.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    if text == "max":
        return LARGEST
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--batch-size {text}: write a number of images, or max for as many as fit.")
    return int(text)


def refuse_images_for_nothing(options: Mapping[str, Any], reads_images: bool) -> None:
    """Refuse options that say which real images to read, and how, where none are read.

    Args:
        options: by name, with their values; None where not given.
        reads_images: whether an epoch or the input pipeline is to be timed.

    Raises:
        UsageError: one is given.
    """
    given = [name for name, value in options.items() if value is not None]
    if given and not reads_images:
        raise UsageError(f"{given[0]} is for real images, and updates are timed on random ones: add --epoch, "
                         "--pipeline or both.")  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """What is measured where a person says nothing.

    Attributes:
        image_size: pixels; None: the recipe's.
        batch_size: images.
        seconds: for each piece of work.
    """

    image_size: int | None
    batch_size: int
    seconds: float


ON_CUDA = Sizes(None, 64, 10.0)
ELSEWHERE = Sizes(64, 8, 2.0)
"""So small that all built-in combinations are measured in minutes on two cores."""


@dataclass(frozen=True)
class Combination:
    """A backbone, a head and an optimizer to be measured together.

    Attributes:
        backbone, head, optimizer: names, as a person types them.
        config: every setting; None if it could not be resolved.
        baseline: whether others on its backbone are compared with it.
        failed: why there is no config, in one line.
    """

    backbone: str
    head: str
    optimizer: str
    config: RunConfig | None
    baseline: bool = False
    failed: str | None = None

    @property
    def name(self) -> str:
        """The combination in one word."""
        return f"{self.backbone} + {self.head} + {self.optimizer}"

    def with_batch_size(self, batch_size: int) -> Combination:
        """Return a copy with batches of that many images."""
        return self if self.config is None else replace(self, config=self.config.with_train(batch_size=batch_size))


@dataclass(frozen=True)
class Plan:
    """What a request comes to.

    Attributes:
        device: to measure on.
        combinations: in the order in which they are measured: by backbone and head, each backbone's baseline first.
        explainers: to measure beside them.
        seconds: for each piece of work.
        alone: of the first combination (without any, the recipe's own): the images for epochs and pipeline are its.
        largest: whether batches are as large as fit.
    """

    device: torch.device
    combinations: Sequence[Combination]
    explainers: Sequence[NamedExplainer]
    seconds: float
    alone: RunConfig
    largest: bool


def plan(request: BenchRequest, registry: Registry) -> Plan:
    """Find the components that a request names, and resolve the settings of each combination.

    Raises:
        UsageError: a name, an option or a value does not exist or does not fit, or the device cannot do what is asked.
        FgvcError: an explainer cannot be loaded.
    """
    of_explainers, texts = explainer_settings(request.settings)
    if of_explainers and not request.explainers:
        option = next(iter(of_explainers))
        raise UsageError(f"--set explainer.{option}: no explainer is timed. Name one with --explain.")
    device = pick_device(_last_of(texts, "device") or request.device)
    if request.batch_size == LARGEST and device.type != "cuda":
        raise UsageError(
            f"--batch-size max is for GPUs with memory of their own, and this is {device.type}: name a number, such as "
            f"--batch-size {ELSEWHERE.batch_size}."
        )
    maker = _Maker(request, texts, device, registry)
    combinations = [] if pipeline_alone(request) else maker.combinations()
    configs = [combination.config for combination in combinations if combination.config is not None]
    return Plan(
        device,
        combinations,
        make_explainers(request.explainers, of_explainers, registry),
        request.seconds or maker.sizes.seconds,
        configs[0] if configs else maker.usual_config(),
        request.batch_size == LARGEST,
    )


def pipeline_alone(request: BenchRequest) -> bool:
    """Say whether nothing but the input pipeline is to be measured."""
    named = (request.backbones, request.heads, request.optimizers, request.explainers)
    return request.pipeline and not (request.epoch or request.everything or any(named))


class _Maker:
    """Makes combinations for a request."""

    def __init__(self, request: BenchRequest, texts: Sequence[str], device: torch.device, registry: Registry) -> None:
        self.request, self.registry = request, registry
        self.recipe = read_recipe(request.recipe, registry)
        self.settings = SharedSettings(texts, self.recipe, registry)
        self.facts = {"device": device.type, "weights": "pretrained"}
        self.sizes = ON_CUDA if device.type == "cuda" else ELSEWHERE
        names = self.recipe.names()
        self.usual = {kind: registry.find(kind, names[kind]) for kind in MEASURED if kind in names}

    def combinations(self) -> list[Combination]:
        """Return the combinations in the order in which they are measured."""
        asked = {kind: self._asked(kind) for kind in MEASURED}
        self.settings.check(asked)
        return [
            self._combination({"backbone": backbone, "head": head, "optimizer": optimizer})
            for backbone in asked["backbone"]
            for head, optimizer in self._pairs(asked["head"], asked["optimizer"])
        ]

    def usual_config(self) -> RunConfig:
        """Return the recipe's own combination."""
        self.settings.check({kind: [component] for kind, component in self.usual.items()})
        return self._config(self.usual)

    def _asked(self, kind: Kind) -> list[Component]:
        """Return the components of a kind that are to be measured, each once."""
        names = {"backbone": self.request.backbones, "head": self.request.heads, "optimizer": self.request.optimizers}
        found: Iterable[Component] = (self.registry.find(kind, name) for name in names[kind])
        if not names[kind]:
            found = (c for c in self.registry.components(kind) if c.builtin or self.request.everything)
        return list({component.reference: component for component in found}.values())

    def _pairs(self, heads: Sequence[Component], optimizers: Sequence[Component]) -> list[tuple[Component, Component]]:
        """Return heads with optimizers, the baseline first (there whether asked for or not), then by head."""
        asked = [(head, optimizer) for head in heads for optimizer in optimizers]
        if "head" not in self.usual or "optimizer" not in self.usual:
            return asked
        baseline = self.usual["head"], self.usual["optimizer"]
        on_baseline_head = [pair for pair in asked if pair[0] == baseline[0] and pair != baseline]
        return [baseline, *on_baseline_head, *(pair for pair in asked if pair[0] != baseline[0])]

    def _combination(self, components: Mapping[Kind, Component]) -> Combination:
        names = {kind: self._name(component) for kind, component in components.items()}
        baseline = all(self.usual.get(kind) == components[kind] for kind in ("head", "optimizer"))
        config, failed = None, None
        try:
            config = self._config(components)
        except UsageError:
            raise
        except FgvcError as error:
            failed = str(error)
        return Combination(names["backbone"], names["head"], names["optimizer"], config, baseline, failed)

    def _config(self, components: Mapping[Kind, Component]) -> RunConfig:
        request, data = self.request, self.request.data
        options: dict[str, dict[str, Any]] = {kind: {"name": c.reference} for kind, c in components.items()}
        options["dataset"] = {"name": request.dataset, "data": None if data is None else str(data)}
        options["train"] = {
            "weights": "none",
            "image_size": request.image_size or self.sizes.image_size,
            "batch_size": request.batch_size or self.sizes.batch_size,
            "device": _unless(request.device, "auto"),
            "precision": _unless(request.precision, "auto"),
            "channels_last": _unless(request.channels_last, "auto"),
            "compile": request.compile or None,
            "workers": _unless(request.workers, -1),
        }
        layers, _ = user_settings(None, options, self.settings.of(components))
        return resolve(layers, request.recipe, self.facts, self.registry)

    def _name(self, component: Component) -> str:
        clashing = component.name in self.registry.clashes(component.kind)
        return component.reference if clashing else component.name


def _unless(value: Any, usual: Any) -> Any:
    """Return None, which leaves a setting to the recipe, where a person left it as it is."""
    return None if value == usual else value


def _last_of(texts: Sequence[str], option: str) -> str | None:
    """Return the value that `--set train.OPTION=...` gives last, if any does."""
    parsed = [parse_setting(text) for text in texts]
    values = [str(value) for kind, name, value in parsed if (kind, name) == ("train", option)]
    return values[-1] if values else None
