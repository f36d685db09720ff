"""The configuration of a run: every setting, resolved; its file reproduces the run."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fgvc_cli._version import __version__
from fgvc_cli.config.datasets import made_from
from fgvc_cli.config.layering import Layer, base_component, merge, split_base, tracker_tables
from fgvc_cli.config.recipes import Recipe, read_recipe
from fgvc_cli.config.renamed import current
from fgvc_cli.config.train_options import AugmentOptions, TrainOptions
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.options import as_toml, build, parse_setting
from fgvc_cli.registry import Component, Registry

COMPONENTS = ("backbone", "head", "optimizer", "dataset")
ALWAYS = (*COMPONENTS, "train", "augment")
SECTIONS = (*ALWAYS, "tracker")
"""The sections of a configuration; those that every one has, and `[tracker.NAME]` for the trackers that are on."""


@dataclass(frozen=True)
class Choice:
    """A component with its options.

    Attributes:
        component: as the registry found it.
        options: its options dataclass.
        base: of an optimizer that is built over another one: that one.
    """

    component: Component
    options: Any
    base: Choice | None = None

    @property
    def name(self) -> str:
        """The name that reaches the component."""
        return self.component.name

    @property
    def title(self) -> str:
        """The name, and what it is built over: "sam over sgd"."""
        return self.name if self.base is None else f"{self.name} over {self.base.name}"

    def as_toml(self) -> dict[str, Any]:
        """Return the table that names the component and its options."""
        table = {"name": self.component.reference, **as_toml(self.options)}
        return table if self.base is None else {**table, "base": self.base.as_toml()}


@dataclass(frozen=True)
class RunConfig:
    """Every setting of a run.

    Attributes:
        recipe: name of the recipe the settings began from.
        backbone, head, optimizer, dataset: the components.
        data: the folder or file that `--data` named, for a dataset made from one.
        train: settings no component owns.
        augment: what is done to training images.
        trackers: who is told how it goes.
    """

    recipe: str
    backbone: Choice
    head: Choice
    optimizer: Choice
    dataset: Choice
    data: Path | None
    train: TrainOptions
    augment: AugmentOptions
    trackers: tuple[Choice, ...] = ()

    def with_train(self, **changes: Any) -> RunConfig:
        """Return a copy with other `[train]` settings."""
        return replace(self, train=replace(self.train, **changes))

    def as_toml(self) -> str:
        """Write the configuration as the TOML file that reproduces it (`fgvc train --config`)."""
        import tomli_w

        document: dict[str, Any] = {"fgvc": __version__, "recipe": self.recipe}
        for kind in COMPONENTS:
            choice: Choice = getattr(self, kind)
            document[kind] = choice.as_toml()
        if self.data is not None:
            document["dataset"]["data"] = str(self.data)
        document["train"], document["augment"] = as_toml(self.train), as_toml(self.augment)
        if tables := {choice.name: as_toml(choice.options) for choice in self.trackers}:
            document["tracker"] = tables
        return tomli_w.dumps(document)


def resolve(settings: Sequence[Layer], recipe: str, facts: Mapping[str, str], registry: Registry) -> RunConfig:
    """Lay settings over a recipe and check every one.

    Args:
        settings: a person's settings, weakest first: a file's, then the command line's.
        recipe: the recipe to begin from.
        facts: "device" ("cpu", "cuda", "mps") and "weights" ("none" or "pretrained") for the recipe's conditions.
        registry: finds the components.

    Raises:
        UsageError: a component, a section or an option does not exist, or a value does not fit.
    """
    begun = read_recipe(recipe, registry)
    components = _components(settings, begun, registry)
    base = base_component(components["optimizer"], _tables([begun.settings, *settings], "optimizer"), registry)
    names: dict[str, tuple[str, ...]] = {k: (begun.known_as(c, registry),) for k, c in components.items()}
    if base is not None:
        names["optimizer"] += (begun.known_as(base, registry),)
    layers = [*begun.layers({**{fact: (value,) for fact, value in facts.items()}, **names}), *settings]
    dataset = merge(_tables(layers, "dataset"), components["dataset"])
    data = dataset.pop("data", None)
    train = build(TrainOptions, merge(_tables(layers, "train")), "train")
    trackers = _trackers(train.track, layers, registry)
    return RunConfig(
        recipe=begun.name,
        backbone=_choice(components["backbone"], layers),
        head=_choice(components["head"], layers),
        optimizer=_optimizer(components["optimizer"], base, layers),
        dataset=Choice(components["dataset"], build(components["dataset"].options_type(), dataset, "dataset")),
        data=None if data is None else _path(data),
        train=replace(train, track=tuple(choice.component.reference for choice in trackers)),
        augment=build(AugmentOptions, merge(_tables(layers, "augment")), "augment"),
        trackers=trackers,
    )


def read_config(path: Path) -> tuple[Layer, str | None]:
    """Read a configuration file: its settings, and the recipe it names.

    Raises:
        FgvcError: it is missing or no TOML.
        UsageError: it has a section that does not exist.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FgvcError(f"{path}: {error.strerror or error}. Name a TOML file such as a run's config.toml.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FgvcError(f"{path} is no valid TOML: {error}.") from error
    document.pop("fgvc", None)
    recipe = document.pop("recipe", None)
    check_sections(document, str(path))
    return {section: current(section, table) for section, table in document.items()}, recipe


def read_run_config(path: Path, needed: Sequence[str] = ALWAYS) -> tuple[Layer, str | None]:
    """Read the configuration of a run folder, which leaves nothing to a recipe: see `read_config`.

    Raises:
        FgvcError: it is missing or damaged, or lacks a section that is needed.
    """
    settings, recipe = read_config(path)
    missing = [section for section in needed if section not in settings]
    if missing:
        raise FgvcError(f"{path} is damaged: it has no [{missing[0]}]. Restore the file, or train again.")
    return settings, recipe


def check_sections(document: Mapping[str, Any], where: str) -> None:
    """Raise `UsageError` if a section of settings does not exist or is no table."""
    for section, table in document.items():
        if section not in SECTIONS:
            known = ", ".join(SECTIONS)
            raise UsageError(f"{where}: no section '{section}'.{did_you_mean(section, SECTIONS)} Sections: {known}.")
        if not isinstance(table, dict):
            raise UsageError(f"{where}: '{section}' must be a table of settings, [{section}].")


def _components(settings: Sequence[Layer], base: Recipe, registry: Registry) -> dict[str, Component]:
    names = base.names()
    for layer in settings:
        if "data" in layer.get("dataset", {}) and "name" not in layer["dataset"]:
            names["dataset"] = made_from(_path(layer["dataset"]["data"]), registry).reference
        names.update({kind: str(layer[kind]["name"]) for kind in COMPONENTS if "name" in layer.get(kind, {})})
    missing = [kind for kind in COMPONENTS if kind not in names]
    if missing:
        raise UsageError(f"recipe {base.name} chooses no {missing[0]}: name one with --{missing[0]}.")
    return {kind: registry.find(kind, names[kind]) for kind in COMPONENTS}  # type: ignore[arg-type]


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _choice(component: Component, layers: Sequence[Layer]) -> Choice:
    kind = component.kind
    return Choice(component, build(component.options_type(), merge(_tables(layers, kind), component), kind))


def _optimizer(component: Component, base: Component | None, layers: Sequence[Layer]) -> Choice:
    if base is None:
        return _choice(component, layers)
    own, of_base = split_base(_tables(layers, "optimizer"), component, base)
    chosen = Choice(base, build(base.options_type(), of_base, "optimizer.base"))
    return Choice(component, build(component.options_type(), own, "optimizer"), chosen)


def _trackers(names: Sequence[str], layers: Sequence[Layer], registry: Registry) -> tuple[Choice, ...]:
    found = {c.reference: c for c in (registry.find("tracker", name) for name in names)}
    components = list(found.values())
    tables = tracker_tables(components, _tables(layers, "tracker"), _tables(layers, "train"))
    return tuple(Choice(c, build(c.options_type(), tables[c.name], f"tracker.{c.name}")) for c in components)


def _tables(layers: Sequence[Layer], section: str) -> list[dict[str, Any]]:
    return [layer[section] for layer in layers if section in layer]


def person_settings(
    config: Path | None, options: Mapping[str, Mapping[str, Any]], texts: Sequence[str]
) -> tuple[list[Layer], str | None]:
    """Return the layers of settings, weakest first, and the recipe that the file names.

    Args:
        config: a TOML file, or None.
        options: the command line's options by section; None where not given.
        texts: `--set` as typed, `kind.option=value`.
    """
    layers: list[Layer] = []
    recipe = None
    if config is not None:
        layer, recipe = read_config(config)
        layers.append(layer)
    layers.append(_given(options))
    for text in texts:
        kind, name, value = parse_setting(text)
        check_sections({kind: {}}, f"--set {text}")
        layers.append({kind: _nested(name, value)})
    return layers, recipe


def refuse_with_resume(options: Mapping[str, Mapping[str, Any]], **others: Any) -> None:
    """Raise `UsageError` if anything was set beside `--resume`: a run goes on with its own settings."""
    spelt = {"cache": "no-cache"}
    given = [
        section if name == "name" else spelt.get(name, name)
        for section, table in _given(options).items()
        for name in table
    ]
    given += [name for name, value in others.items() if value]
    if given:
        names = ", ".join("--" + name.strip("_").replace("_", "-") for name in given)
        raise UsageError(f"--resume goes on with the run's own settings: leave out {names}, or start a new run.")


def _given(options: Mapping[str, Mapping[str, Any]]) -> Layer:
    tables = {section: {k: v for k, v in table.items() if v is not None} for section, table in options.items()}
    return {section: table for section, table in tables.items() if table}


def _nested(name: str, value: Any) -> dict[str, Any]:
    """Return the table that a dotted name stands for: `base.lr` is `lr` in the table `base`."""
    first, dot, rest = name.partition(".")
    return {first: _nested(rest, value)} if dot and first and rest else {name: value}
