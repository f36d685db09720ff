"""Contract checks of recipes."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch

from fgvc_cli.config.layering import Recipe, read_recipe
from fgvc_cli.config.run_config import resolve
from fgvc_cli.errors import FgvcError
from fgvc_cli.specs import Kind
from fgvc_cli.testing.check import Checks, ContractError, expect
from fgvc_cli.testing.component import ComponentUnderTest

CHECKS: Checks[ComponentUnderTest] = Checks(lambda subject: subject)

DEVICES, WEIGHTS = ("cpu", "cuda", "mps"), ("none", "pretrained")


@CHECKS("can be parsed", "A recipe is a TOML file of settings, with conditions.")
def parsed(subject: ComponentUnderTest) -> None:
    """The file is valid."""
    _read(subject)


@CHECKS("components are registered", "A recipe with a component that is not installed cannot be used.")
def components(subject: ComponentUnderTest) -> None:
    """Every component in the recipe is registered."""
    for kind, name in _read(subject).names().items():
        try:
            subject.registry.find(kind, name)  # type: ignore[arg-type]
        except FgvcError as error:
            fix = "correct the name, or require its package"
            raise ContractError(f"a {kind} named {name!r}", str(error), fix) from error


@CHECKS("settings are valid", "An invalid option ends every run with the recipe.")
def settings(subject: ComponentUnderTest) -> None:
    """The settings resolve for every device, with and without pretrained weights."""
    for device in DEVICES:
        for weights in WEIGHTS:
            try:
                resolve([], subject.component.reference, {"device": device, "weights": weights}, subject.registry)
            except FgvcError as error:
                expected = f"valid settings for device = {device} and weights = {weights}"
                raise ContractError(expected, str(error), "correct that line") from error


@CHECKS("conditions are valid", "Settings under a condition that never holds have no effect.")
def conditions(subject: ComponentUnderTest) -> None:
    """Every pattern of a condition matches a device, weights or a component; settings under it are valid."""
    recipe = _read(subject)
    for when in recipe.whens:
        for condition, patterns in when.conditions.items():
            for pattern in patterns:
                matches = any(fnmatch(known, pattern) for known in _known(subject, condition, pattern))
                fix = "correct the name in [[when]]"
                expect(matches, f"a match for {condition} = {pattern!r}", "there is none", fix)
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
            raise ContractError(f"valid settings for {where}", str(error), "correct that [[when]]") from error


def _known(subject: ComponentUnderTest, condition: str, pattern: str) -> Iterator[str]:
    """Yield what a condition can be compared with."""
    if condition in ("device", "weights"):
        yield from DEVICES if condition == "device" else WEIGHTS
        return
    kind: Kind = condition  # type: ignore[assignment]
    yield from (name for c in subject.registry.components(kind) for name in (c.name, c.reference))
    for family in subject.registry.families(kind):
        if pattern.startswith(family.family.prefix):
            yield pattern


def _read(subject: ComponentUnderTest) -> Recipe:
    try:
        return read_recipe(subject.component.reference, subject.registry)
    except FgvcError as error:
        raise ContractError("a valid recipe", str(error), "see docs/recipes.md for its format") from error
