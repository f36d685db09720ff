"""Claims to runs: one holder at a time, whenever and wherever holders die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

import pytest

from fgvc_cli.experiments import claims
from fgvc_cli.experiments.claims import SIZE, Claim, claim_file, latest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
CALLS = ("open", "write", "fsync", "link", "unlink")
"""What creating and ending a claim calls, in `os`."""


def in_child(function, *arguments):
    """Run a function in a forked process, and return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode


def take_and_end(folder, step):
    """Take a claim and end it, but be killed before one of the calls."""
    left = [step]

    def counted(name):
        call = getattr(os, name)

        def wrapped(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        setattr(os, name, wrapped)

    for name in CALLS:
        counted(name)
    Claim.take(folder, "run", "first", {}).end("failed", "no birds")


def test_a_claim_can_be_taken_whenever_its_holder_is_killed(tmp_path):
    steps = 0
    while in_child(take_and_end, tmp_path / str(steps), steps) != 0:
        folder = tmp_path / str(steps)
        started = time.monotonic()
        claim = Claim.take(folder, "run", "second", {"seed": 1})
        assert claim is not None and time.monotonic() - started < 5
        assert latest(folder, "run") == claim.record and claim.record.number <= 2
        claim.end("finished")
        assert latest(folder, "run").state == "finished" and not list(folder.glob(".*"))
        steps += 1
    assert steps > 5
    assert latest(tmp_path / str(steps), "run").reason == "no birds"


def take_and_stay(folder, barrier, taken):
    barrier.wait()
    claim = Claim.take(folder, "run", "", {})
    if claim is not None:
        taken.value += 1
        time.sleep(1)
        claim.end("finished")


def test_one_of_several_processes_takes_a_claim(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, taken = context.Barrier(6), context.Value("i", 0)
    racing = [context.Process(target=take_and_stay, args=(tmp_path, barrier, taken)) for _ in range(6)]
    for process in racing:
        process.start()
    for process in racing:
        process.join(60)
    assert taken.value == 1 and [path.name for path in tmp_path.glob("*.json")] == ["run.1.json"]


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A claim whose holder seems to be on another machine, which gives a sign of life ten times a second."""
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(claims, "EXPIRY_SECONDS", 1.0)
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(claims, "boot", lambda: "another machine")
        return Claim.take(tmp_path, "run", "theirs", {})


def test_a_living_holder_on_another_machine_keeps_its_claim(elsewhere, tmp_path):
    assert Claim.take(tmp_path, "run", "ours", {}) is None
    elsewhere.end("stopped")
    Claim.take(tmp_path, "run", "ours", {}).end("finished")


def test_a_silent_holder_on_another_machine_loses_its_claim_and_dies(elsewhere, tmp_path, monkeypatch):
    killed = threading.Event()
    monkeypatch.setattr(claims, "_kill_all", killed.set)
    with elsewhere._writing:  # it is suspended
        started = time.monotonic()
        claim = Claim.take(tmp_path, "run", "ours", {})
        assert claim is not None and time.monotonic() - started >= 0.9
    assert killed.wait(10)
    elsewhere.end("finished")
    assert latest(tmp_path, "run") == claim.record, "what it writes no longer counts"
    claim.end("finished")


def test_a_claim_has_one_size_and_a_damaged_one_expires(tmp_path, monkeypatch):
    claim = Claim.take(tmp_path, "run", "", {})
    claim.update(text="é" * 5000)
    claim.end("failed", "\udcff" * 9000)
    file = claim_file(tmp_path, "run", 1)
    assert file.stat().st_size == SIZE and latest(tmp_path, "run").state == "failed"
    file.write_text("{")
    monkeypatch.setattr(claims, "EXPIRY_SECONDS", 0.2)
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.1)
    Claim.take(tmp_path, "run", "", {}).end("finished")
    assert latest(tmp_path, "run").number == 2
