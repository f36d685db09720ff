"""A study: the runs that a sweep trains, and the TOML file that describes them."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count, product
from pathlib import Path
from typing import Any, Literal

from fgvc_cli._version import __version__
from fgvc_cli.config.layering import Layer
from fgvc_cli.config.renamed import current_document
from fgvc_cli.config.run_config import SECTIONS, check_sections
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.options import option
from fgvc_cli.specs import Kind

COMBINED: tuple[Kind, ...] = ("backbone", "head", "optimizer")
"""The kinds of component that make up a combination."""
KEYS = ("fgvc", "recipe", "seeds", "folds", "search", "cells")
"""Keys of a study file besides the sections of a configuration."""
MAX_SEEDS = 1000
MAX_FOLDS = 1000
MAX_NAME_BYTES = 200
"""Longest name of a cell: with the seed appended it must still fit into a file name."""


@dataclass(frozen=True)
class Combination:
    """A backbone, a head and an optimizer, with the settings that apply to them alone.

    Attributes:
        name: unique in the study; its run folders are named after it.
        settings: by section, overriding the shared ones; the tables of the three components name them.
    """

    name: str
    settings: Layer

    @property
    def components(self) -> dict[Kind, str]:
        """The names of the three components, by kind."""
        return {kind: str(self.settings[kind]["name"]) for kind in COMBINED}

    @property
    def title(self) -> str:
        """The names of the components: `swin_t + pim + sgd`."""
        return " + ".join(self.components.values())


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study: folder name, combination, seed, layers of settings, lowest precedence first, and fold.

    The fold is that of a cross-validation, from 1; 0 without one.
    """

    name: str
    combination: Combination
    seed: int
    layers: Sequence[Layer] = field(repr=False)
    fold: int = 0
    trial: int = 0
    """number of the trial of a search, from 1; 0 if it is none"""

    @property
    def title(self) -> str:
        """The names of the components, the seed, and the fold: `swin_t + pim + sgd, seed 0`."""
        if self.trial:
            return f"trial {self.trial}, {self.combination.title}"
        return run_title(self.combination.title, self.seed, self.fold)

    @property
    def description(self) -> dict[str, Any]:
        """The names of the components by kind, the seed, and the fold if there is one."""
        names = {str(kind): name for kind, name in self.combination.components.items()}
        return {**names, "seed": self.seed, **({"fold": self.fold} if self.fold else {})}


def run_title(combination: str, seed: int, fold: int) -> str:
    """Return the title of a run of a study."""
    return f"{combination}, seed {seed}" + (f", fold {fold}" if fold else "")


@dataclass(frozen=True)
class SearchOptions:
    """How a study searches its settings; the table `search` of a study file."""

    trials: int = option(20, "number of trials", minimum=1, maximum=100_000)
    sampler: Literal["tpe", "random"] = option("tpe", "how settings are drawn: TPE, or at random")
    pruner: Literal["none", "median", "hyperband"] = option(
        "none", "stop trials early: below the median of the others at an epoch, or Hyperband; none: never"
    )


@dataclass(frozen=True)
class Study:
    """All runs of a sweep.

    Attributes:
        recipe: base recipe of all runs; None: chosen by whether pretrained weights are available, as in training.
        seeds: each combination is trained once with each of them.
        shared: settings of all runs, by section.
        combinations: in training order.
        folds: number of folds of a cross-validation, in which each combination and seed has a run per fold; 0: none.
        search: of the spaces among the settings; None without one.
    """

    recipe: str | None
    seeds: tuple[int, ...]
    shared: Layer
    combinations: tuple[Combination, ...]
    folds: int = 0
    search: SearchOptions | None = None

    @property
    def winner_seeds(self) -> tuple[int, ...]:
        """The seeds that the best settings of a search are trained with: others than that of the trials, the first."""
        return tuple(self.seeds[0] + number for number in range(1, len(self.seeds) + 1))

    def runs(self) -> list[PlannedRun]:
        """Return the runs in training order: every combination with the first seed and fold, then with the next ones.

        The runs of folds do not score the test split: what they compare is chosen without it.
        """
        return [
            PlannedRun(
                f"{c.name}-seed{seed}" + (f"-fold{fold}" if fold else ""), c, seed,
                [self.shared, c.settings, {"train": {"seed": seed, **self._of_fold(fold)}}], fold,
            )
            for seed in self.seeds
            for fold in (range(1, self.folds + 1) if self.folds else [0])
            for c in self.combinations
        ]  # fmt: skip

    def _of_fold(self, fold: int) -> dict[str, Any]:
        return {"folds": self.folds, "fold": fold, "score_test": False} if fold else {}

    def as_toml(self) -> str:
        """Return the study file; parsing it gives the same study."""
        import tomli_w

        document: dict[str, Any] = {"fgvc": __version__}
        if self.recipe is not None:
            document["recipe"] = self.recipe
        document |= {"seeds": list(self.seeds), **({"folds": self.folds} if self.folds else {}), **self.shared}
        if self.search is not None:
            document["search"] = {name: getattr(self.search, name) for name in ("trials", "sampler", "pruner")}
        document["cells"] = [{"name": each.name, **each.settings} for each in self.combinations]
        return tomli_w.dumps(document)


def combinations_named(settings: Sequence[Layer], taken: Collection[str] = ()) -> tuple[Combination, ...]:
    """Name combinations after their components, with a number appended where that name is taken."""
    combinations: dict[str, Combination] = {}
    for layer in settings:
        names = Combination("", layer).components.values()
        stem = "-".join(name.replace("/", "-").replace(":", "-") for name in names)
        candidates = chain([stem], (f"{stem}-{number}" for number in count(2)))
        name = next(name for name in candidates if name not in (*combinations, *taken))
        combinations[name] = Combination(name, layer)
    return tuple(combinations.values())


@dataclass(frozen=True)
class StudyFile:
    """The content of a study file.

    Attributes:
        recipe: base recipe; None if the file names none.
        seeds: None if the file names none.
        shared: settings of all runs.
        folds: number of folds of a cross-validation; 0 if the file names none.
        search: the table of that name; None without one.
        cells: name ("" for none) and settings of each combination; components that a cell does not set are missing.
    """

    recipe: str | None = None
    seeds: tuple[int, ...] | None = None
    shared: Layer = field(default_factory=dict)
    cells: tuple[tuple[str, Layer], ...] = (("", {}),)
    folds: int = 0
    search: Mapping[str, Any] | None = None


def read_study_file(path: Path) -> StudyFile:
    """Read a study file.

    Raises:
        FgvcError: the file is missing or not valid TOML.
        UsageError: it has an unknown key or a bad value.
    """
    try:
        return parse_study(path.read_text(encoding="utf-8-sig"), str(path))
    except OSError as error:
        raise FgvcError(f"{path}: {error.strerror or error}. Study files are described in docs/studies.md") from error
    except UnicodeDecodeError as error:
        raise FgvcError(f"{path} is not valid TOML: {error}") from error


def parse_study(text: str, where: str) -> StudyFile:
    """Parse the TOML text of a study file; `where` names it in messages.

    Raises:
        FgvcError: the text is not valid TOML.
        UsageError: it has an unknown key or a bad value.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FgvcError(f"{where} is not valid TOML: {error}") from error
    shared = {name: table for name, table in document.items() if name not in KEYS}
    _check_keys(shared, (*KEYS, *SECTIONS), where)
    check_sections(shared, where)
    cells = document.get("cells")
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise UsageError(f"{where}: a study file lists its combinations under [[cells]]; see docs/studies.md")
    recipe = document.get("recipe")
    if recipe is not None and not isinstance(recipe, str):
        raise UsageError(f"{where}: recipe={recipe}: expected the name of a recipe")
    expanded = [named for number, cell in enumerate(cells, 1) for named in _expand(cell, f"{where}, cell {number}")]
    cells_now = tuple((name, current_document(layer)) for name, layer in expanded)
    written = {"fgvc": document["fgvc"]} if "fgvc" in document else {}
    current = current_document({**written, **shared}, resolved=False)
    shared_now = {name: table for name, table in current.items() if name not in KEYS}
    folds = document.get("folds", 0)
    if "folds" in document and not (type(folds) is int and 2 <= folds <= MAX_FOLDS):
        raise UsageError(f"{where}: folds={folds}: expected their number, 2 to {MAX_FOLDS}")
    search = document.get("search")
    if search is not None and not isinstance(search, dict):
        raise UsageError(f"{where}: search={search}: expected a table such as [search] with trials, sampler and pruner")
    return StudyFile(recipe, _seeds(document.get("seeds"), where), shared_now, cells_now, folds, search)


def _check_keys(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise UsageError(f"{where}: unknown key '{key}'.{did_you_mean(key, known)} Keys: {', '.join(known)}.")


def _seeds(seeds: Any, where: str) -> tuple[int, ...] | None:
    if seeds is None:
        return None
    if type(seeds) is int and 0 < seeds <= MAX_SEEDS:
        return tuple(range(seeds))
    if isinstance(seeds, list) and seeds and all(type(seed) is int and seed >= 0 for seed in seeds):
        return tuple(dict.fromkeys(seeds))
    raise UsageError(f"{where}: seeds={seeds}: expected their number (1 to {MAX_SEEDS}) or a list such as [0, 1, 2]")


def _expand(cell: Mapping[str, Any], where: str) -> Iterator[tuple[str, Layer]]:
    """Yield the name and the settings of each combination of a cell: the product of the components it lists."""
    _check_keys(cell, ("name", *SECTIONS), where)
    rest = {key: table for key, table in cell.items() if key not in ("name", *COMBINED)}
    check_sections(rest, where)
    kinds = [kind for kind in COMBINED if kind in cell]
    choices = [_choices(cell[kind], f"{where}: {kind}") for kind in kinds]
    combinations = [{**dict(zip(kinds, chosen, strict=True)), **rest} for chosen in product(*choices)]
    name = cell.get("name", "")
    if not isinstance(name, str) or not _is_folder_name(name):
        raise UsageError(f"{where}: name={name!r} is not a valid folder name")
    if name.startswith("trial-"):
        raise UsageError(f"{where}: name={name!r}: names that start with trial- are those of the trials of a search")
    if name and len(combinations) > 1:
        raise UsageError(f"{where}: '{name}' names {len(combinations)} combinations; drop the name or split the cell")
    return ((name, layer) for layer in combinations)


def _is_folder_name(name: str) -> bool:
    """Return whether a name is a valid folder name on all systems with the seed appended; "" is no name."""
    plain = name.isprintable() and not set('/\\:*?"<>|') & set(name)
    return plain and not name.startswith((".", " ", "-")) and len(name.encode()) <= MAX_NAME_BYTES


def _choices(value: Any, where: str) -> Sequence[dict[str, Any]]:
    """Return the components that a cell lists of one kind, each as a table with a name and options."""
    tables = [{"name": one} if isinstance(one, str) else one for one in (value if isinstance(value, list) else [value])]
    for table in tables:
        if not isinstance(table, dict) or not isinstance(table.get("name", ""), str):
            raise UsageError(f"{where}={table}: expected a name, or a table with a name and options")
    return tables
