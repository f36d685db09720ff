"""What a study is: shared settings, combinations and seeds, and its TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from fgvc_cli._version import __version__
from fgvc_cli.config.layering import Layer
from fgvc_cli.config.run_config import SECTIONS, check_sections
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.runs.folder import Run
from fgvc_cli.specs import Kind

STUDY_FILE = "study.toml"
RUNS, LOGS, COMPARISON, FAILURES_FILE = "runs", "logs", "comparison", "failed.json"


def is_study(path: Path) -> bool:
    """Say whether a path is a study's folder."""
    return (path / STUDY_FILE).is_file()


def runs_of(study: Path) -> list[Run]:
    """Return the runs of a study that have begun, by name; a finished one even if its settings are lost."""
    folder = study / RUNS
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [run for path in found if (run := Run(path)).config_file.is_file() or run.finished]


COMBINED: tuple[Kind, ...] = ("backbone", "head", "optimizer")
"""The kinds of component that make a combination."""


@dataclass(frozen=True)
class Combination:
    """A backbone, a head and an optimizer with what is set for them alone.

    Attributes:
        name: what its runs are called after; no other combination of the study has it.
        settings: by section, laid over what the study's runs share; the three components' own tables name them.
    """

    name: str
    settings: Layer

    @property
    def components(self) -> dict[Kind, str]:
        """Return the names of the three components, by kind."""
        return {kind: str(self.settings[kind]["name"]) for kind in COMBINED}

    @property
    def title(self) -> str:
        """The components in a phrase: `swin_t + pim + sgd`."""
        return " + ".join(self.components.values())


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        name: of its folder.
        combination: what it trains.
        seed: of weights, order, augmentation and dropout.
        layers: its settings, weakest first.
    """

    name: str
    combination: Combination
    seed: int
    layers: Sequence[Layer] = field(repr=False)

    @property
    def title(self) -> str:
        """What a person reads: `swin_t + pim + sgd, seed 0`."""
        return f"{self.combination.title}, seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """Everything that is to be trained.

    Attributes:
        recipe: that all settings begin from; None: by whether there are weights, as in `fgvc train`.
        seeds: each combination is trained once with each.
        shared: settings of all runs, by section.
        combinations: in the order in which they are trained.
    """

    recipe: str | None
    seeds: tuple[int, ...]
    shared: Layer
    combinations: tuple[Combination, ...]

    def runs(self) -> list[PlannedRun]:
        """Return the runs in the order in which they are trained: every combination once, then with the next seed."""
        return [self._run(combination, seed) for seed in self.seeds for combination in self.combinations]

    def _run(self, combination: Combination, seed: int) -> PlannedRun:
        layers = [self.shared, combination.settings, {"train": {"seed": seed}}]
        return PlannedRun(f"{combination.name}-seed{seed}", combination, seed, layers)


def named(settings: Sequence[Layer], taken: Collection[str] = ()) -> tuple[Combination, ...]:
    """Name combinations after their components, with a number where that name is taken."""
    combinations: dict[str, Combination] = {}
    for layer in settings:
        stem = "-".join(_plain(name) for name in Combination("", layer).components.values())
        name = next(name for name in _numbered(stem) if name not in (*combinations, *taken))
        combinations[name] = Combination(name, layer)
    return tuple(combinations.values())


def _plain(name: str) -> str:
    """Return a component's name as part of a folder's."""
    return name.replace("/", "-").replace(":", "-")


def _numbered(stem: str) -> Iterator[str]:
    yield stem
    number = 2
    while True:
        yield f"{stem}-{number}"
        number += 1


OWN = ("fgvc", "recipe", "seeds", "cells")
"""What a study file has beside the sections of a configuration."""
MOST_SEEDS = 1000
"""More were a slip of the hand."""
LONGEST_NAME = 200
"""Bytes of a cell's name: what is put behind it must fit into a file's name as well."""


@dataclass(frozen=True)
class StudyFile:
    """A study file as it was read.

    Attributes:
        recipe: that it names.
        seeds: that it names; None: it names none.
        shared: settings of all runs.
        cells: the settings of each combination, and the name that the file gives it ("": none); components that a
            cell leaves open are not in there.
    """

    recipe: str | None
    seeds: tuple[int, ...] | None
    shared: Layer
    cells: tuple[tuple[str, Layer], ...]


def read_study_file(path: Path) -> StudyFile:
    """Read a study file from the disk.

    Raises:
        FgvcError: it is missing or no TOML.
        UsageError: it says something that study files do not.
    """
    try:
        return parse_study(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise FgvcError(f"{path}: {error.strerror or error}. Name a study file: docs/studies.md shows one.") from error
    except UnicodeDecodeError as error:
        raise FgvcError(f"{path} is no valid TOML: {error}.") from error


def parse_study(text: str, where: str) -> StudyFile:
    """Read the text of a study file.

    Args:
        text: TOML.
        where: names the file in messages.

    Raises:
        FgvcError: it is no TOML.
        UsageError: it says something that study files do not.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FgvcError(f"{where} is no valid TOML: {error}.") from error
    shared = {name: table for name, table in document.items() if name not in OWN}
    _check_names(shared, where)
    check_sections(shared, where)
    cells = document.get("cells")
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise UsageError(f"{where}: a study file has its combinations under [[cells]]; docs/studies.md shows one.")
    expanded = [named for number, cell in enumerate(cells, 1) for named in _expanded(cell, f"{where}, cell {number}")]
    return StudyFile(_recipe(document, where), _seeds(document, where), shared, tuple(expanded))


def as_toml(study: Study) -> str:
    """Write a study as the file that says all of it: reading that gives the same study."""
    import tomli_w

    document: dict[str, Any] = {"fgvc": __version__}
    if study.recipe is not None:
        document["recipe"] = study.recipe
    document["seeds"] = list(study.seeds)
    document |= study.shared
    document["cells"] = [{"name": each.name, **each.settings} for each in study.combinations]
    return tomli_w.dumps(document)


def _check_names(shared: Mapping[str, Any], where: str) -> None:
    known = (*OWN, *SECTIONS)
    for name in shared:
        if name not in known:
            raise UsageError(f"{where}: {name}: study files have no such thing.{did_you_mean(name, known)}")


def _recipe(document: Mapping[str, Any], where: str) -> str | None:
    recipe = document.get("recipe")
    if recipe is not None and not isinstance(recipe, str):
        raise UsageError(f"{where}: recipe={recipe}: give the name of a recipe.")
    return recipe


def _seeds(document: Mapping[str, Any], where: str) -> tuple[int, ...] | None:
    seeds = document.get("seeds")
    if seeds is None:
        return None
    if _is_number(seeds) and 0 < seeds <= MOST_SEEDS:
        return tuple(range(seeds))
    if isinstance(seeds, list) and seeds and all(_is_number(seed) and seed >= 0 for seed in seeds):
        return tuple(dict.fromkeys(seeds))
    raise UsageError(f"{where}: seeds={seeds}: give how many (3), or which ([0, 1, 2]).")


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _expanded(cell: Mapping[str, Any], where: str) -> Iterator[tuple[str, Layer]]:
    """Give the combinations that a cell stands for, with the name that it has for them."""
    known = ("name", *SECTIONS)
    for key in cell:
        if key not in known:
            raise UsageError(f"{where}: {key}: cells have no such thing.{did_you_mean(key, known)}")
    rest = {key: table for key, table in cell.items() if key not in ("name", *COMBINED)}
    check_sections(rest, where)
    kinds = [kind for kind in COMBINED if kind in cell]
    choices = [_choices(cell[kind], f"{where}: {kind}") for kind in kinds]
    combinations = [{**dict(zip(kinds, chosen, strict=True)), **rest} for chosen in product(*choices)]
    name = cell.get("name", "")
    if not isinstance(name, str) or not _can_name_a_folder(name):
        raise UsageError(f"{where}: name={name!r}: give a word that can name a folder.")
    if name and len(combinations) > 1:
        raise UsageError(f"{where}: '{name}' names {len(combinations)} combinations: leave the name out, or split it.")
    return ((name, layer) for layer in combinations)


def _can_name_a_folder(name: str) -> bool:
    """Say whether all systems take that name, with a seed behind it; "" stands for no name."""
    plain = name.isprintable() and not set('/\\:*?"<>|') & set(name)
    return plain and not name.startswith((".", " ", "-")) and len(name.encode()) <= LONGEST_NAME


def _choices(value: Any, where: str) -> Sequence[dict[str, Any]]:
    """Return the components that a cell names of a kind: a name, a table with a name and options, or a list of such."""
    tables = [{"name": one} if isinstance(one, str) else one for one in (value if isinstance(value, list) else [value])]
    for table in tables:
        if not isinstance(table, dict) or not isinstance(table.get("name", ""), str):
            raise UsageError(f"{where}={table}: give a name, or a table of a name and options.")
    return tables
