"""From a request to a study whose every setting was checked before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from fgvc_cli.config.applicable import SharedSettings
from fgvc_cli.config.layering import Layer, own_name
from fgvc_cli.config.recipes import read_recipe
from fgvc_cli.config.run_config import RunConfig, user_settings
from fgvc_cli.errors import UsageError
from fgvc_cli.experiments.study import COMBINED, Combination, Study, StudyFile, named, parse_study, read_study_file
from fgvc_cli.registry import Component, Registry
from fgvc_cli.specs import KINDS, Kind
from fgvc_cli.training.setup import WITH_WEIGHTS, WITHOUT_WEIGHTS, draft


@dataclass(frozen=True)
class SweepRequest:
    """What is to be trained, as the command line says it.

    Attributes:
        names: of components, by kind ("backbone", "head", "optimizer"): those to combine; where a study file names
            some of that kind, which of its combinations are meant. A kind without names is the file's or the recipe's.
        options: the command line's options that all runs share, by section; None where not given.
        texts: `--set` as typed; a setting of a component is for those that have such an option.
        recipe: that all begin from.
        seeds: how many; None: as the file says, else one.
        first_seed: the first of them; None: as the file or the recipe says.
        file: a study file, or None.
        ready: the name of a study that a plugin brings, or None.
    """

    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    texts: Sequence[str] = ()
    recipe: str | None = None
    seeds: int | None = None
    first_seed: int | None = None
    file: Path | None = None
    ready: str | None = None

    def __post_init__(self) -> None:
        if self.file is not None and self.ready is not None:
            raise UsageError(f"--config {self.file} and --study {self.ready} both name a study: leave one of them out.")

    def refuse_without_resume(self, retry_failed: bool) -> None:
        """Raise `UsageError` if something was asked that a new study has nothing of."""
        if retry_failed:
            raise UsageError("--retry-failed goes beside --resume STUDY: a new study has no failed runs.")

    def refuse_with_resume(self, out: Path | None) -> None:
        """Raise `UsageError` if anything was asked beside `--resume`: a study goes on with its own settings."""
        shared = [name for table in self.options.values() for name, value in table.items() if value is not None]
        others = {
            **self.names, "seeds": self.seeds, "seed": self.first_seed is not None, "config": self.file,
            "study": self.ready, "recipe": self.recipe, "set": self.texts, "out": out,
        }  # fmt: skip
        given = [*(name for name, value in others.items() if value), *shared]
        if given:
            names = ", ".join("--" + name.replace("_", "-").replace("name", "dataset") for name in given)
            raise UsageError(f"--resume goes on with the study's own settings: leave out {names}, or begin a new one.")


NOTHING = StudyFile(None, None, {}, (("", {}),))
"""Stands for a study file where there is none: one combination that leaves everything open."""


def plan(request: SweepRequest, registry: Registry) -> Study:
    """Return the study that a request comes to.

    Raises:
        UsageError: a name, an option or a value does not exist or does not fit, or no combination is left.
        FgvcError: the study file cannot be read.
    """
    return _Planner(request, registry).study()


def configurations(study: Study, registry: Registry) -> list[RunConfig]:
    """Resolve the settings of each combination, with the first seed, as far as they do not depend on which weights
    there are.

    Raises:
        UsageError: a setting does not fit; the combination is named.
    """
    first = study.runs()[: len(study.combinations)]
    return [_resolved(run.combination, run.layers, study.recipe, registry) for run in first]


class _Planner:
    """Lays a request over a study file, or over nothing."""

    def __init__(self, request: SweepRequest, registry: Registry) -> None:
        self.request, self.registry = request, registry
        self.file = _file(request, registry)
        self.recipe = request.recipe or self.file.recipe
        self.person = _merged(*user_settings(None, request.options, ())[0])
        self.begun = read_recipe(self.recipe or self._usual_recipe(), registry)
        self.settings = SharedSettings(request.texts, self.begun, registry)

    def study(self) -> Study:
        """Return the study."""
        combined = [self._components(layer) for _, layer in self.file.cells]
        chosen = [
            (name, layer, components)
            for (name, layer), alternatives in zip(self.file.cells, combined, strict=True)
            for components in alternatives
        ]
        if not chosen:
            raise UsageError(
                "No combination is left to train: the study has none of those backbones, heads and optimizers together."
            )
        self.settings.check({kind: [found[kind] for _, _, found in chosen] for kind in COMBINED})
        cells = [(name, self._cell(layer, components)) for name, layer, components in chosen]
        study = Study(self.recipe, (0,), self._shared(), self._named(cells))
        seeds = self._seeds(study)
        return Study(self.recipe, seeds, _merged(_held_out(seeds[0]), study.shared), study.combinations)

    def _usual_recipe(self) -> str:
        """Return the recipe that `fgvc train` takes where none is named."""
        tables = [self.file.shared.get("train", {}), self.person.get("train", {})]
        return WITHOUT_WEIGHTS if _merged(*tables).get("weights") == "none" else WITH_WEIGHTS

    def _components(self, layer: Layer) -> list[dict[Kind, Component]]:
        """Return the components that a cell of the file comes to: without a file, all that are asked for."""
        choices = [self._choices(kind, layer) for kind in COMBINED]
        return [dict(zip(COMBINED, found, strict=True)) for found in product(*choices)]

    def _choices(self, kind: Kind, layer: Layer) -> list[Component]:
        asked = [self.registry.find(kind, name) for name in self.request.names.get(kind, ())]
        of_file = [table for table in (layer.get(kind, {}), self.file.shared.get(kind, {})) if "name" in table]
        if asked and not of_file:
            return list({component.reference: component for component in asked}.values())
        tables = [*of_file, self.begun.settings.get(kind, {})]
        name = next((str(table["name"]) for table in tables if "name" in table), None)
        if name is None:
            raise UsageError(f"recipe {self.begun.name} chooses no {kind}: name one with --{kind}.")
        own = self.registry.find(kind, name)
        return [own] if not asked or own.reference in {component.reference for component in asked} else []

    def _cell(self, layer: Layer, components: Mapping[Kind, Component]) -> Layer:
        """Return the settings of a combination: the file's, and over them those of the command line."""
        names = {str(kind): {"name": self._name(component)} for kind, component in components.items()}
        typed = _merged(*user_settings(None, {}, self.settings.of(components))[0])
        of_components: Layer = {kind: table for kind, table in typed.items() if kind in COMBINED}
        of_all = _merged(self.person, {kind: table for kind, table in typed.items() if kind not in COMBINED})
        again = {section: table for section, table in of_all.items() if section in layer}  # stronger than the cell's
        typed_base = of_components.get("optimizer", {}).get("base")
        own = _spelt_out(layer) if isinstance(typed_base, Mapping) else layer
        return _absolute(_merged({kind: names[kind] for kind in COMBINED}, own, again, of_components, names))

    def _shared(self) -> Layer:
        typed = _merged(*user_settings(None, {}, self.request.texts)[0])
        of_all = {section: table for section, table in typed.items() if section not in COMBINED}
        return _absolute(_merged(self.file.shared, self.person, of_all))

    def _named(self, cells: Sequence[tuple[str, Layer]]) -> tuple[Combination, ...]:
        """Return the combinations, each once, with the names that the file gives them, and names for the others."""
        first: dict[str, tuple[str, Layer]] = {}
        for name, layer in cells:
            first.setdefault(repr(layer), (name, layer))
        different = list(first.values())
        given = [name for name, _ in different if name]
        for name in given:
            if given.count(name) > 1:
                raise UsageError(f"Two cells of the study are called '{name}': give them different names.")
        others = iter(named([layer for name, layer in different if not name], given))
        return tuple(Combination(name, layer) if name else next(others) for name, layer in different)

    def _seeds(self, study: Study) -> tuple[int, ...]:
        request, of_file = self.request, self.file.seeds
        if request.seeds is None and request.first_seed is None and of_file is not None:
            return of_file
        first = request.first_seed
        if first is None:
            first = of_file[0] if of_file else self._usual_seed(study)
        count = request.seeds or (len(of_file) if of_file else 1)
        return tuple(range(first, first + count))

    def _usual_seed(self, study: Study) -> int:
        """Return the seed that a single training would have."""
        first = study.combinations[0]
        return _resolved(first, [study.shared, first.settings], study.recipe, self.registry).train.seed

    def _name(self, component: Component) -> str:
        clashing = component.name in self.registry.clashes(component.kind)
        return component.reference if clashing else component.name


def _resolved(combination: Combination, layers: Sequence[Layer], recipe: str | None, registry: Registry) -> RunConfig:
    """Resolve settings; what does not fit is told with the combination that it is of."""
    try:
        return draft(layers, recipe, registry).config
    except UsageError as error:
        raise UsageError(f"{combination.title}: {error}") from error


def _file(request: SweepRequest, registry: Registry) -> StudyFile:
    if request.file is not None:
        return read_study_file(request.file)
    if request.ready is not None:
        return _ready(registry.find("study", request.ready), registry)
    return NOTHING


def _ready(study: Component, registry: Registry) -> StudyFile:
    """Read a study that a plugin brings; the names in it mean the plugin's own components, where it has such."""
    read = parse_study(study.load(), f"study {study.name}")

    def own(layer: Layer) -> Layer:
        tables = {kind: table for kind, table in layer.items() if kind in KINDS and "name" in table}
        names = {k: own_name(k, str(t["name"]), study.distribution, registry) for k, t in tables.items()}
        return _merged(layer, {kind: {"name": name} for kind, name in names.items()})

    return replace(read, shared=own(read.shared), cells=tuple((name, own(layer)) for name, layer in read.cells))


def _held_out(seed: int) -> Layer:
    """Have all runs hold out the same images for validation, whatever their own seed, so that they differ in no more.

    The study's file says so: seeds that are added to that change nothing of it.
    """
    return {"train": {"val_seed": seed}}


def _merged(*tables: Mapping[str, Any]) -> dict[str, Any]:
    """Lay tables over each other, the last one uppermost, and the tables within them likewise."""
    merged: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            below = merged.get(key)
            both = isinstance(below, Mapping) and isinstance(value, Mapping)
            merged[key] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _spelt_out(layer: Layer) -> Layer:
    """Return settings in which `base = "adamw"` is the table that it is short for, so that options fit beside it."""
    optimizer = layer.get("optimizer", {})
    if not isinstance(optimizer.get("base"), str):
        return layer
    return {**layer, "optimizer": {**optimizer, "base": {"name": optimizer["base"]}}}


def _absolute(layer: Layer) -> Layer:
    """Return settings in which `data` does not depend on the current folder."""
    if "data" not in layer.get("dataset", {}):
        return layer
    data = str(Path(str(layer["dataset"]["data"])).expanduser().absolute())
    return {**layer, "dataset": {**layer["dataset"], "data": data}}
