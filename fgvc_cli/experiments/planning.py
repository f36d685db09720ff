"""Plan a study: combine components and resolve every setting before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

from fgvc_cli.config.layering import Layer, own_name, read_recipe
from fgvc_cli.config.run_config import RunConfig, user_settings
from fgvc_cli.config.shared_settings import SharedSettings
from fgvc_cli.errors import UsageError
from fgvc_cli.experiments.spaces import spaces_of, with_first_values, with_values
from fgvc_cli.experiments.study import (
    COMBINED,
    Combination,
    PlannedRun,
    SearchOptions,
    Study,
    StudyFile,
    combinations_named,
    parse_study,
    read_study_file,
)
from fgvc_cli.formatting import expanded
from fgvc_cli.options import build
from fgvc_cli.registry import Component, Registry
from fgvc_cli.specs import KINDS, HeadSpec, Kind
from fgvc_cli.training.setup import WITH_WEIGHTS, WITHOUT_WEIGHTS, draft


@dataclass(frozen=True)
class SweepRequest:
    """What to train.

    Attributes:
        names: component names by kind ("backbone", "head", "optimizer") to combine; with a study file they select
            among its combinations. A kind without names is left to the file or the recipe.
        options: settings of all runs, by section; None: not set.
        texts: settings as `kind.option=value`; a component's setting applies to the components that have the option.
        recipe: base recipe of all runs.
        seeds: number of seeds; None: as in the study file, else 1.
        first_seed: None: as in the study file or the recipe.
        file: a study file.
        study: name of a registered study.
        folds: number of folds of a cross-validation, 2 or more; None: as in the study file, else none.
        search: options of a search, by name, which override those of the study file; None: search if the file does.
    """

    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    texts: Sequence[str] = ()
    recipe: str | None = None
    seeds: int | None = None
    first_seed: int | None = None
    file: Path | None = None
    study: str | None = None
    folds: int | None = None
    search: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.file is not None and self.study is not None:
            raise UsageError(f"`config={self.file}` and `study={self.study}` both name a study; use one of them")


def plan(request: SweepRequest, registry: Registry) -> Study:
    """Return the study of a request.

    Raises:
        UsageError: a name, an option or a value is invalid, or no combination is left.
        FgvcError: the study file cannot be read.
    """
    return _Planner(request, registry).study()


def resolve_combinations(study: Study, registry: Registry) -> list[RunConfig]:
    """Resolve the settings of each combination with the first seed, as far as they do not depend on the weights.

    Raises:
        UsageError: a setting is invalid; the message names the combination.
    """
    first = study.runs()[: len(study.combinations)]
    if study.search is not None:
        for run in first:
            _check_spaces(run, study, registry)
    return [_resolve(run.combination, run.layers, study.recipe, registry) for run in first]


class _Planner:
    """Applies a request to a study file, or to an empty one."""

    def __init__(self, request: SweepRequest, registry: Registry) -> None:
        self.request, self.registry = request, registry
        self.file = _study_file(request, registry)
        self.options = _deep_merge(*user_settings(None, request.options, ())[0])
        weights = _deep_merge(self.file.shared.get("train", {}), self.options.get("train", {})).get("weights")
        default = WITHOUT_WEIGHTS if weights == "none" else WITH_WEIGHTS
        self.recipe = request.recipe or self.file.recipe
        self.base = read_recipe(self.recipe or default, registry)
        self.settings = SharedSettings(request.texts, self.base, registry)

    def study(self) -> Study:
        chosen = [
            (name, layer, components)
            for name, layer in self.file.cells
            for components in map(self._by_kind, product(*(self._choices(kind, layer) for kind in COMBINED)))
        ]
        if not chosen:
            raise UsageError("No combination left: the study does not combine those backbones, heads and optimizers")
        self.settings.check({kind: [components[kind] for _, _, components in chosen] for kind in COMBINED})
        combinations = _unique([(name, self._cell(layer, components)) for name, layer, components in chosen])
        shared = self._shared()
        seeds = self._seeds(combinations[0], shared)
        # All runs hold out the same validation images; the study file records which, so that added seeds do so too.
        held_out = {"val_seed": seeds[0], "val_by": "auto"}
        folds = self.file.folds if self.request.folds is None else self.request.folds
        study = Study(self.recipe, seeds, _deep_merge({"train": held_out}, shared), combinations, folds)
        return self._with_search(study)

    def _with_search(self, study: Study) -> Study:
        """Add the search to a study, if it has one.

        Raises:
            UsageError: it has spaces and no search, or a search and no spaces, or an option is invalid.
        """
        of_file, given = self.file.search, self.request.search
        layers = [study.shared, *(each.settings for each in study.combinations)]
        spaces = [space for layer in layers for space in spaces_of(layer)]
        if of_file is None and given is None:
            if spaces:
                raise UsageError(
                    f"`{spaces[0].name}` is a search space ({spaces[0].text}): set a value, or search with `search`"
                )
            return study
        if not spaces:
            raise UsageError(
                "`search`: the study file has no search space, such as `lr = {low = 1e-4, high = 1e-1, log = true}`"
            )
        if study.folds:
            raise UsageError(f"`folds={study.folds}` and `search`: search first, then cross-validate the best")
        return replace(study, search=build(SearchOptions, {**(of_file or {}), **(given or {})}, "search"))

    @staticmethod
    def _by_kind(components: Sequence[Component]) -> dict[Kind, Component]:
        return dict(zip(COMBINED, components, strict=True))

    def _choices(self, kind: Kind, layer: Layer) -> list[Component]:
        """Return the components of a kind to combine in a cell; none if the request excludes the cell's own."""
        requested = [self.registry.find(kind, name) for name in self.request.names.get(kind, ())]
        in_file = [table for table in (layer.get(kind, {}), self.file.shared.get(kind, {})) if "name" in table]
        if requested and not in_file:
            return list({component.reference: component for component in requested}.values())
        tables = [*in_file, self.base.settings.get(kind, {})]
        name = next((str(table["name"]) for table in tables if "name" in table), None)
        if name is None:
            raise UsageError(f"recipe {self.base.name} sets no {kind}; choose one with `{kind}`")
        own = self.registry.find(kind, name)
        return [own] if not requested or own.reference in {component.reference for component in requested} else []

    def _cell(self, layer: Layer, components: Mapping[Kind, Component]) -> Layer:
        """Return the settings of a combination: the cell's, overridden by the request's."""
        names = {str(kind): {"name": self._name(component)} for kind, component in components.items()}
        given = _deep_merge(*user_settings(None, {}, self.settings.of(components))[0])
        own = {kind: table for kind, table in given.items() if kind in COMBINED}
        shared = _deep_merge(self.options, {kind: table for kind, table in given.items() if kind not in COMBINED})
        overriding = {section: table for section, table in shared.items() if section in layer}
        if isinstance(own.get("optimizer", {}).get("base"), Mapping):
            layer = _with_base_table(layer)
        return _absolute(_deep_merge({kind: names[kind] for kind in COMBINED}, layer, overriding, own, names))

    def _shared(self) -> Layer:
        given = _deep_merge(*user_settings(None, {}, self.request.texts)[0])
        shared = {section: table for section, table in given.items() if section not in COMBINED}
        return _absolute(_deep_merge(self.file.shared, self.options, shared))

    def _seeds(self, first: Combination, shared: Layer) -> tuple[int, ...]:
        number, start, in_file = self.request.seeds, self.request.first_seed, self.file.seeds
        if number is None and start is None and in_file is not None:
            return in_file
        if start is None and in_file:
            start = in_file[0]
        elif start is None:  # as for a single run
            start = _resolve(first, [shared, first.settings], self.recipe, self.registry).train.seed
        return tuple(range(start, start + (number or (len(in_file) if in_file else 1))))

    def _name(self, component: Component) -> str:
        clashes = component.name in self.registry.clashes(component.kind)
        return component.reference if clashes else component.name


def _unique(cells: Sequence[tuple[str, Layer]]) -> tuple[Combination, ...]:
    """Return each combination once, with the name that the file gives it or one made from its components."""
    first: dict[str, tuple[str, Layer]] = {}
    for name, layer in cells:
        first.setdefault(repr(layer), (name, layer))
    unique = list(first.values())
    given = [name for name, _ in unique if name]
    for name in given:
        if given.count(name) > 1:
            raise UsageError(f"Two cells of the study are named '{name}'; give them different names")
    unnamed = iter(combinations_named([layer for name, layer in unique if not name], given))
    return tuple(Combination(name, layer) if name else next(unnamed) for name, layer in unique)


def _check_spaces(run: PlannedRun, study: Study, registry: Registry) -> None:
    """Resolve each end of each space of a combination.

    Raises:
        UsageError: a setting does not take these values, nothing is held out for validation, or there is one epoch only
            and a pruner.
    """
    assert study.search is not None
    spaces = {space.path: space for layer in run.layers for space in spaces_of(layer)}
    first = {path: space.ends[0] for path, space in spaces.items()}
    for space in spaces.values():
        for value in space.ends:
            values = {**first, space.path: value}
            layers = [with_values(layer, lambda path, values=values: values[path]) for layer in run.layers]  # type: ignore[misc]
            try:
                config = _resolve(run.combination, layers, study.recipe, registry)
            except UsageError as error:
                raise UsageError(f"search space of `{space.name}`: {error}") from error
            if config.train.train_on == "train+val" or not config.train.epochs:
                what = "train_on=train+val" if config.train.epochs else "epochs=0"
                raise UsageError(f"`search` needs validation data to choose on, and `train.{what}` leaves none")
            if study.search.pruner != "none" and (config.train.epochs < 2 or _is_fitted(config)):
                raise UsageError(
                    f"`pruner={study.search.pruner}` stops trials between epochs: {run.combination.title} has one only"
                )


def _is_fitted(config: RunConfig) -> bool:
    return cast(HeadSpec, config.head.component.spec).fitted


def _resolve(combination: Combination, layers: Sequence[Layer], recipe: str | None, registry: Registry) -> RunConfig:
    try:
        return draft([with_first_values(layer) for layer in layers], recipe, registry).config
    except UsageError as error:
        raise UsageError(f"{combination.title}: {error}") from error


def _study_file(request: SweepRequest, registry: Registry) -> StudyFile:
    if request.file is not None:
        return read_study_file(request.file)
    if request.study is None:
        return StudyFile()  # one combination that sets nothing
    study = registry.find("study", request.study)
    content = parse_study(study.load(), f"study {study.name}")

    def own(layer: Layer) -> Layer:
        """Make the names in a plugin's study refer to the plugin's own components, where it has them."""
        tables = {kind: table for kind, table in layer.items() if kind in KINDS and "name" in table}
        names = {k: own_name(k, str(t["name"]), study.distribution, registry) for k, t in tables.items()}
        return _deep_merge(layer, {kind: {"name": name} for kind, name in names.items()})

    cells = tuple((name, own(layer)) for name, layer in content.cells)
    return replace(content, shared=own(content.shared), cells=cells)


def _deep_merge(*tables: Mapping[Any, Any]) -> dict[str, Any]:
    """Merge nested tables; later ones take precedence."""
    merged: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            below = merged.get(key)
            both = isinstance(below, Mapping) and isinstance(value, Mapping)
            merged[key] = _deep_merge(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _with_base_table(layer: Layer) -> Layer:
    """Expand `base = "adamw"` of an optimizer to the table it is short for, so that options can be merged into it."""
    optimizer = layer.get("optimizer", {})
    if not isinstance(optimizer.get("base"), str):
        return layer
    return {**layer, "optimizer": {**optimizer, "base": {"name": optimizer["base"]}}}


def _absolute(layer: Layer) -> Layer:
    """Make the path `data` independent of the current folder."""
    if "data" not in layer.get("dataset", {}):
        return layer
    data = str(expanded(str(layer["dataset"]["data"])).absolute())
    return {**layer, "dataset": {**layer["dataset"], "data": data}}
