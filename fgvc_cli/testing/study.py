"""Contract checks of studies."""

from __future__ import annotations

from collections.abc import Iterator

from fgvc_cli.errors import FgvcError
from fgvc_cli.experiments.planning import SweepRequest, plan, resolve_combinations
from fgvc_cli.experiments.study import Study, parse_study
from fgvc_cli.testing.check import Check, Checks, ContractBroken, expect
from fgvc_cli.testing.subject import Subject

READING: Checks[Subject] = Checks()


def checks(subject: Subject) -> Iterator[Check]:
    """Return the checks of a study."""
    yield from READING.of(subject)


@READING("it is read", "A study is a TOML file of settings and cells.")
def is_read(subject: Subject) -> None:
    """Its file is valid, its components are registered, and it has combinations."""
    _planned(subject)


@READING("its settings fit", "An option that does not exist would end the study before it begins.")
def settings(subject: Subject) -> None:
    """Every combination resolves."""
    try:
        resolve_combinations(_planned(subject), subject.registry)
    except FgvcError as error:
        raise ContractBroken("settings that fit", str(error), "correct that cell") from error


@READING("its combinations differ", "Two that are the same would be trained twice for nothing.")
def combinations(subject: Subject) -> None:
    """No two cells come to the same combination, and the file that is kept says the same study again."""
    study = _planned(subject)
    cells = len(parse_study(subject.component.load(), subject.component.name).cells)
    expect(
        len(study.combinations) == cells,
        f"{cells} combinations",
        f"{len(study.combinations)} that differ",
        "leave the repeated cells out",
    )
    again = parse_study(study.as_toml(), "the study that is kept")
    same = [(each.name, each.settings) for each in study.combinations]
    expect(list(again.cells) == same, "a study that can be written to a file", "it changes by that", "simplify it")


def _planned(subject: Subject) -> Study:
    try:
        return plan(SweepRequest(study=subject.component.reference), subject.registry)
    except FgvcError as error:
        raise ContractBroken("a study that can be read", str(error), "docs/studies.md has its form") from error
