"""Contract checks of recipes."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch

from fgvc_cli.config.recipes import Recipe, read_recipe
from fgvc_cli.config.run_config import resolve
from fgvc_cli.errors import FgvcError
from fgvc_cli.specs import Kind
from fgvc_cli.testing.check import Check, Checks, ContractBroken, expect
from fgvc_cli.testing.subject import Subject

READING: Checks[Subject] = Checks()

DEVICES, WEIGHTS = ("cpu", "cuda", "mps"), ("none", "pretrained")


def checks(subject: Subject) -> Iterator[Check]:
    """Return the checks of a recipe."""
    yield from READING.of(subject)


@READING("it is read", "A recipe is a TOML file of settings, with conditions.")
def is_read(subject: Subject) -> None:
    """Its file is valid."""
    _read(subject)


@READING("its names are there", "A recipe that chooses what nobody has installed cannot be run.")
def names(subject: Subject) -> None:
    """Every component that it chooses is registered."""
    for kind, name in _read(subject).names().items():
        try:
            subject.registry.find(kind, name)  # type: ignore[arg-type]
        except FgvcError as error:
            raise ContractBroken(
                f"a {kind} called {name!r}", str(error), "correct the name, or require its package"
            ) from error


@READING("its settings fit", "An option that does not exist would end every run of the recipe.")
def settings(subject: Subject) -> None:
    """It resolves on every kind of device, with and without weights."""
    for device in DEVICES:
        for weights in WEIGHTS:
            try:
                resolve([], subject.component.reference, {"device": device, "weights": weights}, subject.registry)
            except FgvcError as error:
                raise ContractBroken(
                    f"settings that fit where device = {device} and weights = {weights}",
                    str(error),
                    "correct that line",
                ) from error


@READING("its conditions fit", "Settings under a condition that can never hold do nothing, in silence.")
def conditions(subject: Subject) -> None:
    """Every pattern of a condition fits some device, weights or registered component; settings under it fit too."""
    recipe = _read(subject)
    for when in recipe.whens:
        for condition, patterns in when.conditions.items():
            for pattern in patterns:
                expect(
                    any(fnmatch(known, pattern) for known in _known(subject, condition, pattern)),
                    f"something that {condition} = {pattern!r} can be",
                    "there is no such thing",
                    "correct the name in [[when]]",
                )
    _expect_chosen_fit(subject, recipe)


def _expect_chosen_fit(subject: Subject, recipe: Recipe) -> None:
    """Resolve the recipe with each component that its conditions name exactly."""
    for when in recipe.whens:
        chosen = {
            kind: {"name": patterns[0]}
            for kind, patterns in when.conditions.items()
            if kind not in ("device", "weights") and not any(character in patterns[0] for character in "*?[")
        }
        facts = {
            fact: when.conditions.get(fact, (usual,))[0] for fact, usual in (("device", "cpu"), ("weights", "none"))
        }
        try:
            resolve([chosen], subject.component.reference, facts, subject.registry)
        except FgvcError as error:
            where = ", ".join(f"{name} = {' or '.join(values)}" for name, values in when.conditions.items())
            raise ContractBroken(f"settings that fit where {where}", str(error), "correct that [[when]]") from error


def _known(subject: Subject, condition: str, pattern: str) -> Iterator[str]:
    if condition in ("device", "weights"):
        yield from DEVICES if condition == "device" else WEIGHTS
        return
    kind: Kind = condition  # type: ignore[assignment]
    yield from (name for c in subject.registry.components(kind) for name in (c.name, c.reference))
    for family in subject.registry.families(kind):
        if pattern.startswith(family.family.prefix):
            yield pattern


def _read(subject: Subject) -> Recipe:
    try:
        return read_recipe(subject.component.reference, subject.registry)
    except FgvcError as error:
        raise ContractBroken("a recipe that can be read", str(error), "docs/recipes.md has its form") from error
