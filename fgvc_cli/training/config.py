"""The configuration of a run: every setting, resolved; the file that it is written to reproduces the run."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fgvc_cli._version import __version__
from fgvc_cli.data.augment_options import AugmentOptions
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.options import as_toml, build
from fgvc_cli.registry import Component, Registry
from fgvc_cli.training.options import TrainOptions
from fgvc_cli.training.recipes import Layer, Recipe, read_recipe

COMPONENTS = ("backbone", "head", "optimizer", "dataset")
SECTIONS = (*COMPONENTS, "train", "augment")


@dataclass(frozen=True)
class Choice:
    """A component with its options.

    Attributes:
        component: as the registry found it.
        options: its options dataclass.
    """

    component: Component
    options: Any

    @property
    def name(self) -> str:
        """The name that reaches the component."""
        return self.component.name


@dataclass(frozen=True)
class RunConfig:
    """Every setting of a run.

    Attributes:
        recipe: name of the recipe the settings began from.
        backbone, head, optimizer, dataset: the components.
        data: the folder or file that `--data` named, for a data set made from one.
        train: settings no component owns.
        augment: what is done to training images.
    """

    recipe: str
    backbone: Choice
    head: Choice
    optimizer: Choice
    dataset: Choice
    data: Path | None
    train: TrainOptions
    augment: AugmentOptions

    def with_train(self, **changes: Any) -> RunConfig:
        """Return a copy with other `[train]` settings."""
        return replace(self, train=replace(self.train, **changes))

    def as_toml(self) -> str:
        """Write the configuration as the TOML file that reproduces it (`fgvc train --config`)."""
        import tomli_w

        document: dict[str, Any] = {"fgvc": __version__, "recipe": self.recipe}
        for kind in COMPONENTS:
            choice: Choice = getattr(self, kind)
            document[kind] = {"name": choice.component.reference, **as_toml(choice.options)}
        if self.data is not None:
            document["dataset"]["data"] = str(self.data)
        document["train"], document["augment"] = as_toml(self.train), as_toml(self.augment)
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
    base = read_recipe(recipe, registry)
    components = _components(settings, base, registry)
    names = {kind: component.spec.name for kind, component in components.items()}
    layers = [*base.layers({**facts, **names}), *settings]
    merged = {section: _merge(layers, section, components) for section in SECTIONS}
    data = merged["dataset"].pop("data", None)
    choices = {
        kind: Choice(component, build(component.options_type(), merged[kind], kind))
        for kind, component in components.items()
    }
    return RunConfig(
        recipe=base.name,
        **choices,
        data=None if data is None else Path(data).expanduser().absolute(),
        train=build(TrainOptions, merged["train"], "train"),
        augment=build(AugmentOptions, merged["augment"], "augment"),
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
    return document, recipe


def read_run_config(path: Path, needed: Sequence[str] = SECTIONS) -> tuple[Layer, str | None]:
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
            names["dataset"] = _folder_dataset(registry)
        names.update({kind: str(layer[kind]["name"]) for kind in COMPONENTS if "name" in layer.get(kind, {})})
    missing = [kind for kind in COMPONENTS if kind not in names]
    if missing:
        raise UsageError(f"recipe {base.name} chooses no {missing[0]}: name one with --{missing[0]}.")
    return {kind: registry.find(kind, names[kind]) for kind in COMPONENTS}  # type: ignore[arg-type]


def _folder_dataset(registry: Registry) -> str:
    """Return the one data set that is made from a folder, the built-in first."""
    found = [c for c in registry.components("dataset") if getattr(c.spec, "reads_folder", False)]
    if not found:
        raise UsageError("--data needs a data set that reads folders, and no plugin brings one: see fgvc list-plugins.")
    return sorted(found, key=lambda c: not c.builtin)[0].reference


def _merge(layers: Sequence[Layer], section: str, components: Mapping[str, Component]) -> dict[str, Any]:
    """Lay a section's tables over each other; options of a component that a later layer replaced are dropped."""
    merged: dict[str, Any] = {}
    for layer in layers:
        table = dict(layer.get(section, {}))
        name = table.pop("name", None)
        if name is not None and section in components and _bare(str(name)) != components[section].spec.name:
            table = {}
        merged.update(table)
    return merged


def _bare(name: str) -> str:
    return name.rpartition(":")[2]
