"""The configuration of a run: every setting, resolved; its file reproduces the run."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from fgvc_cli._version import __version__
from fgvc_cli.config.layering import Layer, Recipe, base_component, merge, read_recipe, split_base, tracker_tables
from fgvc_cli.config.renamed import current_document
from fgvc_cli.config.train_options import AugmentOptions, TrainOptions
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.files import mismatch
from fgvc_cli.formatting import expanded
from fgvc_cli.options import as_toml, build, parse_setting
from fgvc_cli.registry import Component, Registry
from fgvc_cli.registry.lookup import split_reference
from fgvc_cli.registry.records import BUILTIN_DISTRIBUTION, normalized
from fgvc_cli.registry.versions import made_with
from fgvc_cli.specs import DatasetSpec


def dataset_for(path: Path, registry: Registry) -> Component:
    """Return the dataset that reads a folder or a file, preferably a built-in one.

    Raises:
        UsageError: no dataset reads such a path.
    """
    found = [c for c in registry.components("dataset") if _reads(cast(DatasetSpec, c.spec), path)]
    if not found:
        known = sorted({e for c in registry.components("dataset") for e in cast(DatasetSpec, c.spec).reads_files})
        files = f" or a file that ends in {', '.join(known)}" if known else ""
        raise UsageError(f"`data={path}`: give a folder of images{files}")
    named = [c for c in found if path.suffix.lower() in cast(DatasetSpec, c.spec).reads_files and not path.is_dir()]
    return sorted(named or found, key=lambda c: not c.builtin)[0]


def check_path(component: Component, folder: Path | None) -> None:
    """Raise `UsageError` if a dataset needs a path and has none, or cannot read the one given."""
    spec = cast(DatasetSpec, component.spec)
    takes = [*["a folder"] * spec.reads_folder, *(f"a {ending} file" for ending in spec.reads_files)]
    if takes and folder is None:
        raise UsageError(f"dataset '{component.name}' reads {' or '.join(takes)}; set `data`")
    if folder is not None and not takes:
        raise UsageError(f"dataset '{component.name}' takes no folder; leave out `data={folder}` or the name")
    if folder is not None and folder.exists() and not _reads(spec, folder):
        raise UsageError(f"dataset '{component.name}' reads {' or '.join(takes)}, which {folder} is not")


def _reads(spec: DatasetSpec, path: Path) -> bool:
    """Return whether a dataset reads such a path; a path that does not exist is judged by its suffix."""
    is_file = path.is_file() or (path.suffix.lower() in spec.reads_files and not path.is_dir())
    return path.suffix.lower() in spec.reads_files if is_file else spec.reads_folder


def dataset_settings(texts: Sequence[str]) -> Layer:
    """Parse settings of the form `dataset.option=value`.

    Raises:
        UsageError: a setting is not an option of a dataset, or is malformed.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        kind, name, value = parse_setting(text)
        if kind != "dataset" or name in ("name", "data"):
            raise UsageError(f"`{text}`: only options of the dataset can be set here, as dataset.option=value")
        settings[name] = value
    return settings


COMPONENTS = ("backbone", "head", "optimizer", "dataset")
ALWAYS = (*COMPONENTS, "train", "augment")
SECTIONS = (*ALWAYS, "tracker")
"""Sections of a configuration: those that every one has, and `[tracker.NAME]` for each tracker in use."""
PLUGINS = "plugins"
"""Section of a run's configuration that holds the versions of plugins; no setting."""


@dataclass(frozen=True)
class Choice:
    """A component with its options.

    Attributes:
        component: from the registry.
        options: its options dataclass.
        base: optimizer that this one wraps, if any.
    """

    component: Component
    options: Any
    base: Choice | None = None

    @property
    def name(self) -> str:
        """Name of the component."""
        return self.component.name

    @property
    def title(self) -> str:
        """Name of the component, and of the optimizer it wraps: "sam over sgd"."""
        return self.name if self.base is None else f"{self.name} over {self.base.name}"

    def as_toml(self) -> dict[str, Any]:
        """Return the component and its options as a TOML table."""
        table = {"name": self.component.reference, **as_toml(self.options)}
        return table if self.base is None else {**table, "base": self.base.as_toml()}


@dataclass(frozen=True)
class RunConfig:
    """Every setting of a run.

    Attributes:
        recipe: name of the recipe below all other settings.
        backbone, head, optimizer, dataset: the components.
        data: folder or file of the dataset, if it reads one.
        train: settings that belong to no component.
        augment: augmentation of training images.
        trackers: experiment trackers to log to.
        plugins: version of each distribution, other than fgvc's own, that these are from.
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
    plugins: Mapping[str, str] = field(default_factory=dict)

    def with_train(self, **changes: Any) -> RunConfig:
        """Return a copy with changed `[train]` settings."""
        return replace(self, train=replace(self.train, **changes))

    def as_document(self) -> dict[str, Any]:
        """Return the configuration as TOML values, by section."""
        document: dict[str, Any] = {"fgvc": __version__, "recipe": self.recipe}
        for kind in COMPONENTS:
            choice: Choice = getattr(self, kind)
            document[kind] = choice.as_toml()
        if self.data is not None:
            document["dataset"]["data"] = str(self.data)
        document["train"], document["augment"] = as_toml(self.train), as_toml(self.augment)
        if tables := {choice.name: as_toml(choice.options) for choice in self.trackers}:
            document["tracker"] = tables
        if self.plugins:
            document[PLUGINS] = dict(self.plugins)
        return document

    def as_layer(self) -> Layer:
        """Return the settings as one layer, from which `resolve` builds the same configuration."""
        return {section: table for section, table in self.as_document().items() if section in SECTIONS}

    def as_toml(self) -> str:
        """Return the TOML file that reproduces the run."""
        import tomli_w

        return tomli_w.dumps(self.as_document())


def resolve(settings: Sequence[Layer], recipe: str, facts: Mapping[str, str], registry: Registry) -> RunConfig:
    """Merge settings over a recipe and validate them.

    Args:
        settings: the user's settings, weakest first.
        recipe: name of the recipe below them.
        facts: "device" ("cpu", "cuda", "mps") and "weights" ("none" or "pretrained") for the recipe's conditions.
        registry: where components are looked up.

    Raises:
        UsageError: a component, a section or an option does not exist, or a value is invalid.
        FgvcError: a plugin that a configuration file was made with is not installed.
    """
    with made_with(merge(_tables(settings, PLUGINS)), "the configuration", registry):
        return _resolve(settings, recipe, facts, registry)


def _resolve(settings: Sequence[Layer], recipe: str, facts: Mapping[str, str], registry: Registry) -> RunConfig:
    base_recipe = read_recipe(recipe, registry)
    components = _components(settings, base_recipe, registry)
    base = base_component(components["optimizer"], _tables([base_recipe.settings, *settings], "optimizer"), registry)
    names: dict[str, tuple[str, ...]] = {k: (base_recipe.known_as(c, registry),) for k, c in components.items()}
    if base is not None:
        names["optimizer"] += (base_recipe.known_as(base, registry),)
    layers = [*base_recipe.layers({**{fact: (value,) for fact, value in facts.items()}, **names}), *settings]
    dataset = merge(_tables(layers, "dataset"), components["dataset"])
    data = dataset.pop("data", None)
    train = build(TrainOptions, merge(_tables(layers, "train")), "train")
    val_by = train.val_by if train.val_by != "auto" else "position" if data is None else "name"
    trackers = _trackers(train.track, layers, registry)
    used = [*components.values(), *([] if base is None else [base]), *(choice.component for choice in trackers)]
    origins = {origin for origin in (base_recipe.origin, *(c.origin for c in used)) if not origin.builtin}
    return RunConfig(
        recipe=base_recipe.reference,
        backbone=_choice(components["backbone"], layers),
        head=_choice(components["head"], layers),
        optimizer=_optimizer(components["optimizer"], base, layers),
        dataset=Choice(components["dataset"], build(components["dataset"].options_type(), dataset, "dataset")),
        data=None if data is None else _path(data),
        train=replace(
            train,
            track=tuple(choice.component.reference for choice in trackers),
            val_by=val_by,
            exclude=None if train.exclude is None else str(_path(train.exclude, "train.exclude")),
        ),
        augment=build(AugmentOptions, merge(_tables(layers, "augment")), "augment"),
        trackers=trackers,
        plugins={origin.distribution: origin.version for origin in sorted(origins, key=str)},
    )


def read_config(path: Path) -> tuple[Layer, str | None]:
    """Read a configuration file and return its settings and the recipe it names.

    Raises:
        FgvcError: the file is missing or not TOML.
        UsageError: it has an unknown section.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise FgvcError(f"{path}: {error.strerror or error}; give a TOML file such as a run's config.toml") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FgvcError(f"{path} is not valid TOML: {error}") from error
    document = current_document(document)
    document.pop("fgvc", None)
    recipe = document.pop("recipe", None)
    if recipe is not None and not isinstance(recipe, str):
        raise UsageError(f"{path}: recipe={recipe}: expected the name of a recipe")
    recorded = document.pop(PLUGINS, {})
    check_sections(document, str(path))
    if mismatch(recorded, Mapping[str, str], PLUGINS):
        raise UsageError(f"{path}: [{PLUGINS}] must have the version of each plugin as text")
    if plugins := {**dict.fromkeys(_distributions(document, recipe), ""), **recorded}:
        document[PLUGINS] = plugins
    return document, recipe


def _distributions(document: Layer, recipe: str | None) -> Iterator[str]:
    """Yield the distributions that a configuration names, other than fgvc's own."""
    tables = [document[kind] for kind in COMPONENTS if kind in document]
    inner = [table["base"] for table in tables if isinstance(table.get("base"), Mapping)]
    track = document.get("train", {}).get("track", ())
    named = [recipe, *(table.get("name") for table in (*tables, *inner)), *(track if isinstance(track, list) else ())]
    for reference in filter(None, named):
        distribution, _ = split_reference(str(reference))
        if distribution is not None and normalized(distribution) != BUILTIN_DISTRIBUTION:
            yield distribution


def read_run_config(path: Path, needed: Sequence[str] = ALWAYS) -> tuple[Layer, str | None]:
    """Read the configuration of a run folder, in which every section is present: see `read_config`.

    Raises:
        FgvcError: the file is missing or damaged, or lacks a needed section.
    """
    settings, recipe = read_config(path)
    missing = [section for section in needed if section not in settings]
    if missing:
        raise FgvcError(f"{path} is damaged: it has no [{missing[0]}]; restore the file, or train again")
    return settings, recipe


def check_sections(document: Mapping[str, Any], where: str) -> None:
    """Raise `UsageError` if a section does not exist or is not a table."""
    for section, table in document.items():
        if section not in SECTIONS:
            known = ", ".join(SECTIONS)
            raise UsageError(f"{where}: no section '{section}'.{did_you_mean(section, SECTIONS)} Sections: {known}")
        if not isinstance(table, dict):
            raise UsageError(f"{where}: '{section}' must be a table of settings, [{section}]")


def _components(settings: Sequence[Layer], base: Recipe, registry: Registry) -> dict[str, Component]:
    names = base.names()
    for layer in settings:
        if "data" in layer.get("dataset", {}) and "name" not in layer["dataset"]:
            names["dataset"] = dataset_for(_path(layer["dataset"]["data"]), registry).reference
        names.update({kind: str(layer[kind]["name"]) for kind in COMPONENTS if "name" in layer.get(kind, {})})
    missing = [kind for kind in COMPONENTS if kind not in names]
    if missing:
        raise UsageError(f"recipe {base.name} chooses no {missing[0]}; set `{missing[0]}`")
    return {kind: registry.find(kind, names[kind]) for kind in COMPONENTS}  # type: ignore[arg-type]


def _path(text: Any, name: str = "data") -> Path:
    if not isinstance(text, str):
        raise UsageError(f"`{name}={text}`: expected a path")
    path = expanded(text).absolute()
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UsageError(f"`{name}={path}`: the name is not valid UTF-8; rename it") from None
    return path


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


def user_settings(
    config: Path | None, options: Mapping[str, Mapping[str, Any]], texts: Sequence[str] = ()
) -> tuple[list[Layer], str | None]:
    """Return the layers of the user's settings, weakest first, and the recipe that the file names.

    Args:
        config: TOML file of settings, or None.
        options: settings by section; None for those that are not given.
        texts: settings as `kind.option=value`.
    """
    layers: list[Layer] = []
    recipe = None
    if config is not None:
        layer, recipe = read_config(config)
        layers.append(layer)
    given = {section: {k: v for k, v in table.items() if v is not None} for section, table in options.items()}
    layers.append({section: table for section, table in given.items() if table})
    for text in texts:
        kind, name, value = parse_setting(text)
        layers.append(setting_layer(f"{kind}.{name}", value, text))
    return layers, recipe


def setting_layer(name: str, value: Any, text: str = "") -> Layer:
    """Return the layer of one setting, such as "head.fpn_size" or "optimizer.base.lr".

    Raises:
        UsageError: there is no such section; names the setting as the user wrote it (`text`).
    """
    kind, _, option = name.partition(".")
    check_sections({kind: {}}, f"setting '{text or name}'")
    return {kind: _nested(option, value)}


def _nested(name: str, value: Any) -> dict[str, Any]:
    """Return a dotted name as nested tables: `base.lr` is `lr` in the table `base`."""
    first, dot, rest = name.partition(".")
    return {first: _nested(rest, value)} if dot and first and rest else {name: value}
