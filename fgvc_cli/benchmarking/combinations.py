"""Resolve a request into the combinations to measure, each with all its settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from fgvc_cli.config.layering import read_recipe
from fgvc_cli.config.run_config import RunConfig, resolve, user_settings
from fgvc_cli.config.shared_settings import MEASURED, SharedSettings
from fgvc_cli.devices import pick_device
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.explaining.explainers import NamedExplainer, explainer_settings, make_explainers
from fgvc_cli.options import parse_setting
from fgvc_cli.registry import Component, Registry
from fgvc_cli.specs import HeadSpec, Kind


@dataclass(frozen=True)
class BenchRequest:
    """Which combinations to measure, and how.

    Attributes:
        backbones, heads, optimizers: names; all built-in components of a kind without names.
        all_plugins: use the components of all installed plugins instead of the built-in ones.
        explain: names of explainers to measure too.
        image_size: side length in pixels; None: by device.
        batch_size: images in a batch; "max": as many as fit into the GPU's memory; None: by device.
        classes: number of classes of the head.
        recipe: base recipe of the settings.
        settings: `kind.option=value` texts, which override the recipe.
        device, precision: see `pick_device` and `resolve_precision`.
        channels_last: memory format of convolutional weights and images.
        compile: whether to compile the model.
        seconds: time limit for each measurement (one round is always timed); None: by device.
        epoch: also measure an epoch of each combination over real images.
        pipeline: measure the input pipeline.
        dataset, data: images for `epoch` and `pipeline`: a name, or a folder or table; default: the demo dataset.
        workers: loader processes; -1: by device.
    """

    backbones: Sequence[str] = ()
    heads: Sequence[str] = ()
    optimizers: Sequence[str] = ()
    all_plugins: bool = False
    explain: Sequence[str] = ()
    image_size: int | None = None
    batch_size: int | Literal["max"] | None = None
    classes: int = 100
    recipe: str = "scratch"
    settings: Sequence[str] = ()
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


@dataclass(frozen=True)
class Sizes:
    """Defaults by device: image size in pixels (None: by recipe), batch size, time limit per measurement in seconds."""

    image_size: int | None
    batch_size: int
    seconds: float


ON_CUDA = Sizes(None, 64, 10.0)
ELSEWHERE = Sizes(64, 8, 2.0)
"""Small enough to measure all built-in combinations within minutes on two cores."""


@dataclass(frozen=True)
class Combination:
    """A backbone, a head and an optimizer to be measured together.

    Attributes:
        backbone, head, optimizer: names, as in the request.
        config: all settings; None if they could not be resolved.
        baseline: whether the others on its backbone are compared with it.
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
        """The combination as "backbone + head + optimizer"."""
        return f"{self.backbone} + {self.head} + {self.optimizer}"


@dataclass(frozen=True)
class Plan:
    """A resolved request.

    Attributes:
        device: to measure on.
        combinations: in the order of measurement: by backbone and head, each backbone's baseline first.
        explainers: to measure too.
        seconds: time limit for each measurement.
        config: of the first combination, or the recipe's own; opens the images for epochs and pipeline.
        largest_batch: whether to find the largest batch that fits.
    """

    device: torch.device
    combinations: Sequence[Combination]
    explainers: Sequence[NamedExplainer]
    seconds: float
    config: RunConfig
    largest_batch: bool


def plan(request: BenchRequest, registry: Registry) -> Plan:
    """Find the requested components and resolve the settings of each combination.

    Raises:
        UsageError: a name, an option or a value does not exist or does not fit, or the device cannot do it.
        FgvcError: an explainer cannot be loaded.
    """
    of_explainers, texts = explainer_settings(request.settings)
    if of_explainers and not request.explain:
        option = next(iter(of_explainers))
        raise UsageError(f"`explainer.{option}` is set, but no explainer is measured; name one with `explain`")
    device = pick_device(_last_value(texts, "device") or request.device)
    largest_batch = request.batch_size == "max"
    if largest_batch and device.type != "cuda":
        raise UsageError(
            f"`batch_size=max` needs a GPU with its own memory, and the device is {device.type}: choose a number, such "
            f"as `batch_size={ELSEWHERE.batch_size}`"
        )
    planner = _Planner(request, texts, device, registry)
    named = (request.backbones, request.heads, request.optimizers, request.explain)
    pipeline_only = request.pipeline and not (request.epoch or request.all_plugins or any(named))
    combinations = [] if pipeline_only else planner.combinations()
    configs = [combination.config for combination in combinations if combination.config is not None]
    return Plan(
        device,
        combinations,
        make_explainers(request.explain, of_explainers, registry),
        request.seconds or planner.sizes.seconds,
        configs[0] if configs else planner.recipe_config(),
        largest_batch,
    )


class _Planner:
    """Resolves the combinations of a request."""

    def __init__(self, request: BenchRequest, texts: Sequence[str], device: torch.device, registry: Registry) -> None:
        self.request, self.registry = request, registry
        recipe = read_recipe(request.recipe, registry)
        self.settings = SharedSettings(texts, recipe, registry)
        self.facts = {"device": device.type, "weights": "none"}
        self.sizes = ON_CUDA if device.type == "cuda" else ELSEWHERE
        names = recipe.names()
        self.of_recipe = {kind: registry.find(kind, names[kind]) for kind in MEASURED if kind in names}

    def combinations(self) -> list[Combination]:
        """Return the combinations in the order of measurement."""
        requested = {kind: self._requested(kind) for kind in MEASURED}
        self.settings.check(requested)
        return [
            self._combination({"backbone": backbone, "head": head, "optimizer": optimizer})
            for backbone in requested["backbone"]
            for head, optimizer in self._pairs(requested["head"], requested["optimizer"])
        ]

    def recipe_config(self) -> RunConfig:
        """Return the settings of the recipe's own combination."""
        self.settings.check({kind: [component] for kind, component in self.of_recipe.items()})
        return self._config(self.of_recipe)

    def _requested(self, kind: Kind) -> list[Component]:
        """Return the requested components of a kind, each once."""
        names = {"backbone": self.request.backbones, "head": self.request.heads, "optimizer": self.request.optimizers}
        found: Iterable[Component] = (self.registry.find(kind, name) for name in names[kind])
        if not names[kind]:
            found = (c for c in self.registry.components(kind) if c.builtin or self.request.all_plugins)
        components = list({component.reference: component for component in found}.values())
        fitted = [c for c in components if isinstance(c.spec, HeadSpec) and c.spec.fitted]
        if names[kind] and fitted:
            raise UsageError(f"`head={fitted[0].name}` is fitted to features at once: it has no updates to measure")
        return [component for component in components if component not in fitted]

    def _pairs(self, heads: Sequence[Component], optimizers: Sequence[Component]) -> list[tuple[Component, Component]]:
        """Return heads with optimizers: the recipe's pair first, requested or not, as the baseline; then by head."""
        pairs = [(head, optimizer) for head in heads for optimizer in optimizers]
        if "head" not in self.of_recipe or "optimizer" not in self.of_recipe:
            return pairs
        baseline = self.of_recipe["head"], self.of_recipe["optimizer"]
        on_baseline_head = [pair for pair in pairs if pair[0] == baseline[0] and pair != baseline]
        return [baseline, *on_baseline_head, *(pair for pair in pairs if pair[0] != baseline[0])]

    def _combination(self, components: Mapping[Kind, Component]) -> Combination:
        backbone, head, optimizer = (self._name(components[kind]) for kind in MEASURED)
        baseline = all(self.of_recipe.get(kind) == components[kind] for kind in ("head", "optimizer"))
        try:
            return Combination(backbone, head, optimizer, self._config(components), baseline)
        except UsageError:
            raise
        except FgvcError as error:
            return Combination(backbone, head, optimizer, None, baseline, str(error))

    def _config(self, components: Mapping[Kind, Component]) -> RunConfig:
        request, data = self.request, self.request.data

        def given(value: Any, default: Any) -> Any:
            return None if value == default else value  # None leaves the setting to the recipe

        options: dict[str, dict[str, Any]] = {kind: {"name": c.reference} for kind, c in components.items()}
        options["dataset"] = {"name": request.dataset, "data": None if data is None else str(data)}
        options["train"] = {
            "weights": "none",
            "image_size": request.image_size or self.sizes.image_size,
            "batch_size": self.sizes.batch_size if request.batch_size in (None, "max") else request.batch_size,
            "device": given(request.device, "auto"),
            "precision": given(request.precision, "auto"),
            "channels_last": given(request.channels_last, "auto"),
            "compile": request.compile or None,
            "workers": given(request.workers, -1),
        }
        layers, _ = user_settings(None, options, self.settings.of(components))
        return resolve(layers, request.recipe, self.facts, self.registry)

    def _name(self, component: Component) -> str:
        clashing = component.name in self.registry.clashes(component.kind)
        return component.reference if clashing else component.name


def _last_value(texts: Sequence[str], option: str) -> str | None:
    """Return the last value that the texts set `train.OPTION` to, or None."""
    parsed = [parse_setting(text) for text in texts]
    values = [str(value) for kind, name, value in parsed if (kind, name) == ("train", option)]
    return values[-1] if values else None
