"""What a study is: settings that its runs share, combinations that differ, and seeds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from fgvc_cli.specs import Kind
from fgvc_cli.training.recipes import Layer

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
