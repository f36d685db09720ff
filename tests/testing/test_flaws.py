"""Every contract check can fail: a component per flaw, and the check that must find it."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fgvc_cli.specs import KINDS
from fgvc_cli.testing import Check, ContractError, ContractWarning, NotApplicable, contract
from fgvc_cli.testing.tiny import isolated

PACKAGES = Path(__file__).parent / "flawed"
sys.path.insert(0, str(PACKAGES))
from fgvc_flawed.at_run_time.table import MISBEHAVIORS  # noqa: E402
from fgvc_flawed.table import FLAWS, SOUND  # noqa: E402

sys.path.pop(0)


def check_of(kind: str, name: str, title: str) -> Check:
    (found,) = [check for check in contract(kind, f"fgvc-flawed:{name}") if check.title == title]
    return found


def case(flaw):
    waits = flaw.name == "leaving"  # the check waits 10 s for its process to end
    return pytest.param(flaw, id=f"{flaw.kind} {flaw.name}: {flaw.check}", marks=[pytest.mark.slow] if waits else [])


@pytest.mark.parametrize("flaw", [case(flaw) for flaw in FLAWS])
def test_flaw_is_found(flawed, flaw):
    result = check_of(flaw.kind, flaw.name, flaw.check).result()
    assert result.status in ("failed", "advice"), result.reason
    assert "\n" not in result.reason and result.reason.startswith("Expected ") and flaw.says in result.reason


@pytest.mark.parametrize("kind", KINDS)
def test_sound_component_passes(flawed, kind):
    results = {check.title: check.result() for check in contract(kind, "fgvc-flawed:sound", partners=False)}
    assert not {title: r.reason for title, r in results.items() if r.status in ("failed", "advice")}
    assert sum(result.status == "passed" for result in results.values()) >= len(results) - 7


@pytest.mark.parametrize("sound", SOUND, ids=lambda sound: sound.name)
def test_unusual_component_passes(flawed, sound):
    checks = contract(sound.kind, f"fgvc-flawed:{sound.name}", partners=False)
    suspected = [check for check in checks if sound.kind == "dataset" or re.search("device|GPU|bf16", check.title)]
    results = {check.title: check.result() for check in suspected}
    assert len(results) > 3 and not {title: r.reason for title, r in results.items() if r.status == "failed"}


def test_member_of_a_family_passes(flawed):
    check_of("backbone", "sound/2", "family resolves its members")()


def test_every_check_has_a_flaw(flawed):
    caught = {(flaw.kind, flaw.check) for flaw in (*FLAWS, *MISBEHAVIORS)}
    of_specs = {check.title for check in contract("recipe", "fgvc-flawed:sound")[:7]}
    for kind in KINDS:
        for check in contract(kind, "fgvc-flawed:sound", partners=False):
            kinds = KINDS if check.title in of_specs else (kind,)
            assert any((k, check.title) in caught for k in kinds), f"{kind}: {check.title}"


def test_called_check_raises_warns_or_skips(flawed):
    with pytest.raises(ContractError, match=r"scores of shape \(4, 5\) .*; predict returned .*\(4, 4\)\. Return") as e:
        check_of("head", "no-class", "predict returns a score per class")()
    assert isinstance(e.value, AssertionError)
    title = "predict does not synchronize with the device"
    with pytest.warns(ContractWarning, match=f"{title}: Expected no synchronization"):
        check_of("head", "waiting", title)()
    with pytest.raises(NotApplicable, match="not a member of a family"):
        check_of("head", "sound", "family resolves its members")()


def test_error_of_a_component_is_located(flawed):
    result = check_of("head", "pyramid-only", "works with token maps").result()
    assert "AssertionError: the deeper map has half the grid was raised (" in result.reason
    assert "heads.py:" in result.reason and "Traceback" in result.trace


def test_isolation_fixes_and_restores_global_state():
    def state():
        threads = torch.get_num_threads()
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist(), threads

    seen = []

    def check():
        seen.append((torch.rand(()).item(), torch.is_grad_enabled(), torch.get_num_threads()))
        random.seed(5)
        np.random.seed(5)

    before = state()
    with torch.no_grad():
        for _ in range(2):
            isolated(check)()
        assert not torch.is_grad_enabled()
    assert seen[0] == seen[1] and seen[0][1:] == (True, 1) and state() == before
