"""Contract checks of studies."""

from __future__ import annotations

from fgvc_cli.errors import FgvcError
from fgvc_cli.experiments.planning import SweepRequest, plan, resolve_combinations
from fgvc_cli.experiments.study import Study, parse_study
from fgvc_cli.testing.check import Checks, ContractError, expect
from fgvc_cli.testing.component import ComponentUnderTest

CHECKS: Checks[ComponentUnderTest] = Checks(lambda subject: subject)


@CHECKS("can be parsed", "A study is a TOML file of settings and cells.")
def parsed(subject: ComponentUnderTest) -> None:
    """The file is valid, its components are registered, and it has combinations."""
    _plan(subject)


@CHECKS("settings are valid", "An invalid option ends the study before the first run.")
def settings(subject: ComponentUnderTest) -> None:
    """The settings of every combination resolve."""
    try:
        resolve_combinations(_plan(subject), subject.registry)
    except FgvcError as error:
        raise ContractError("valid settings", str(error), "correct that cell") from error


@CHECKS("combinations are distinct", "Equal ones would be trained twice.")
def combinations(subject: ComponentUnderTest) -> None:
    """No two cells give the same combination, and the study is the same after it is written and read."""
    study = _plan(subject)
    cells = len(parse_study(subject.component.load(), subject.component.name).cells)
    found = f"{len(study.combinations)} of them are distinct"
    expect(len(study.combinations) == cells, f"{cells} distinct combinations", found, "remove the repeated cells")
    again = parse_study(study.as_toml(), "the written study")
    same = list(again.cells) == [(each.name, each.settings) for each in study.combinations]
    expect(same, "the same study after writing and reading it", "it differs", "simplify it")


def _plan(subject: ComponentUnderTest) -> Study:
    try:
        return plan(SweepRequest(study=subject.component.reference), subject.registry)
    except FgvcError as error:
        raise ContractError("a valid study", str(error), "see docs/studies.md for its format") from error
