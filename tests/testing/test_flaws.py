"""Every check of the contract kit can fail: a component with one flaw, and the check that finds it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fgvc_cli.specs import KINDS
from fgvc_cli.testing import Check, ContractAdvice, ContractBroken, NotApplicable, contract

PACKAGES = Path(__file__).parent / "flawed"
sys.path.insert(0, str(PACKAGES))
from fgvc_flawed.details import DETAILS  # noqa: E402
from fgvc_flawed.table import FLAWS, SOUND  # noqa: E402

sys.path.pop(0)


def check_of(kind: str, name: str, title: str) -> Check:
    (found,) = [check for check in contract(kind, f"fgvc-flawed:{name}") if check.title == title]
    return found


@pytest.mark.parametrize("flaw", [*FLAWS, *DETAILS], ids=lambda flaw: f"{flaw.kind} {flaw.name}: {flaw.check}")
def test_a_flaw_is_found_by_its_check(flawed, flaw):
    outcome = check_of(flaw.kind, flaw.name, flaw.check).outcome()
    assert outcome.status in ("broken", "advice"), outcome.reason
    assert "\n" not in outcome.reason and outcome.reason.startswith("Expected ")
    assert flaw.says in outcome.reason


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_component_keeps_every_check(flawed, kind):
    outcomes = {check.title: check.outcome() for check in contract(kind, "fgvc-flawed:sound", partners=False)}
    assert not {title: o.reason for title, o in outcomes.items() if o.status in ("broken", "advice")}
    assert sum(outcome.status == "kept" for outcome in outcomes.values()) >= len(outcomes) - 5


@pytest.mark.parametrize("sound", SOUND, ids=lambda sound: sound.name)
def test_what_looks_like_a_flaw_and_is_none_is_not_called_one(flawed, sound):
    outcomes = {c.title: c.outcome() for c in contract(sound.kind, f"fgvc-flawed:{sound.name}", partners=False)}
    assert not {title: o.reason for title, o in outcomes.items() if o.status == "broken"}


def test_a_sound_member_of_a_family_keeps_its_checks(flawed):
    check_of("backbone", "sound/2", "its family knows its members")()


def test_every_check_has_a_flaw_that_it_finds(flawed):
    """All checks but those with partners, which have one name each and one flaw a kind."""
    caught = {(flaw.kind, flaw.check) for flaw in FLAWS}
    everywhere = {check for kind, check in caught}
    for kind in KINDS:
        for check in contract(kind, "fgvc-flawed:sound", partners=False):
            of_all_kinds = check.title in [c.title for c in contract("recipe", "fgvc-flawed:sound")][:7]
            assert check.title in everywhere if of_all_kinds else (kind, check.title) in caught, (
                f"{kind}: {check.title}"
            )


def test_a_broken_check_raises_in_a_line_what_is_wrong_and_what_to_do(flawed):
    with pytest.raises(ContractBroken) as raised:
        check_of("head", "no-class", "it scores every class")()
    assert str(raised.value) == (
        "Expected floating-point scores of shape (4, 5) for 4 images and 5 classes; predict returns torch.float32 of "
        "shape (4, 4). Return B,K scores, or override predict where forward puts out more than them."
    )
    assert isinstance(raised.value, AssertionError)


def test_what_a_component_raises_is_told_with_its_place(flawed):
    outcome = check_of("head", "pyramid-only", "it works on tokens").outcome()
    assert outcome.reason.startswith(
        "Expected that it works on tokens; AssertionError: the deeper map has half the grid"
    )
    assert "heads.py:" in outcome.reason and "Traceback" in outcome.trace


def test_advice_warns_and_does_not_fail(flawed):
    with pytest.warns(ContractAdvice, match="predict does not wait for the device: Expected nothing that waits"):
        check_of("head", "waiting", "predict does not wait for the device")()


def test_what_does_not_apply_is_a_skipped_test(flawed):
    with pytest.raises(NotApplicable, match="it is not of a family of names"):
        check_of("head", "sound", "its family knows its members")()


OWN_TEST = """
import pytest
from fgvc_cli.testing import contract

@pytest.mark.parametrize("check", contract("head", "fgvc-flawed:{name}", partners=False), ids=str)
def test_contract(check):
    check()
"""


@pytest.mark.slow
def test_a_plugins_own_tests_are_two_lines(flawed, tmp_path):
    for name in ("sound", "no-class"):
        (tmp_path / f"test_{name}.py").write_text(OWN_TEST.format(name=name))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(flawed), str(PACKAGES)))}
    command = [sys.executable, "-m", "pytest", "-q", "-rsf", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and "test_no-class.py::test_contract[it scores every class]" in done.stdout
    assert "ContractBroken: Expected floating-point scores of shape (4, 5)" in done.stdout
    assert "test_sound.py::" not in done.stdout and "it is not of a family of names" in done.stdout
