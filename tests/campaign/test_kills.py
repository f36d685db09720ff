"""Kill every command that writes, at its write operations and at random moments, and start it again.

A process that is killed leaves no file that it does not mean to, no process and no warning at the next start, which
ends with the same files as if nothing had happened. A training also ends with the same weights, bit for bit.

Each trial is a process forked from one that has imported torch (server.py), with its own folders. SIGKILL and SIGTERM
go to the process, SIGINT to its whole session, as Ctrl-C in a terminal does.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fgvc_cli.cli.lazy import COMMANDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]  # each process has its own

KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
ORPHAN_SECONDS = 20.0
"""Time that loader processes have to notice that their parent is gone."""
DATA = ("--data", "{photos}", "--workers", "0")
TINY = (
    "--backbone", "timm/test_resnet", "--weights", "none", "--image-size", "32", "--batch-size", "4",
    "--recipe", "scratch",
)  # fmt: skip


DEMO = tuple(f"--set=dataset.{name}" for name in ("train=1", "val=1", "test=1", "size=32"))


@dataclass(frozen=True)
class Case:
    """A command line.

    Attributes:
        arguments: `{photos}`, `{runs}`, `{weights}` and `{extra}` stand for folders of the world.
        runs: runs of the world to copy into the current folder first.
        operations: how many of its write operations to kill it before, spread evenly; each gets a trial.
        moments: number of random moments to kill it at.
        late: number of further ones in its last third.
        signals: sent in turn.
        again: command lines to try after the kill, until one succeeds; by default the same, then with `--force`.
        cached: whether decoded images are cached before.
        same: pattern of the files that must have the same content as without a kill.
    """

    arguments: tuple[str, ...]
    runs: tuple[str, ...] = ()
    operations: int = 8
    moments: int = 5
    late: int = 0
    signals: tuple[int, ...] = (KILL, TERM, KILL, INT)
    again: tuple[tuple[str, ...], ...] = ()
    cached: bool = False
    same: str = r"\.safetensors$|predictions\.csv$|\.png$|\.npz$|\.parquet$|embeddings\.csv$"

    @property
    def next_starts(self) -> tuple[tuple[str, ...], ...]:
        return self.again or (self.arguments, (*self.arguments, "--force"))


RESUME = ("train", "--resume", "run")


def train(*arguments: str, **more: Any) -> Case:
    whole = ("train", *DATA, *TINY, *arguments, "--out", "run")
    return Case(whole, again=(RESUME, whole), **more)


CASES = {
    "train": train("--epochs", "2", operations=24, moments=16),
    "train, two workers": Case(
        ("train", "--data", "{photos}", "--workers", "2", *TINY, "--epochs", "2", "--out", "run"),
        again=(RESUME, ("train", "--data", "{photos}", "--workers", "2", *TINY, "--epochs", "2", "--out", "run")),
        operations=4, moments=12,
    ),
    "train --resume": Case(
        ("train", "--resume", "interrupted"), ("interrupted",), 14, 10, again=(("train", "--resume", "interrupted"),)
    ),
    "train --force": Case(
        ("train", *DATA, *TINY, "--epochs", "1", "--out", "linear", "--force"), ("linear",), 20, 6,
        again=(("train", *DATA, *TINY, "--epochs", "1", "--out", "linear", "--force"),),
    ),
    "train, averages": train("--epochs", "2", "--set", "train.ema=0.9", "--set", "train.average_epochs=2",
                             operations=8, moments=4),
    "train knn": Case(
        ("train", *DATA, *TINY[:8], "--head", "knn", "--out", "run"),
        again=(RESUME, ("train", *DATA, *TINY[:8], "--head", "knn", "--out", "run")), operations=8, moments=4,
    ),
    "train from weights": Case(
        ("train", *DATA, "--backbone", "timm/test_resnet", "--image-size", "32", "--weights", "{weights}", "--epochs",
         "0", "--out", "run"),
        again=(RESUME, ("train", *DATA, "--backbone", "timm/test_resnet", "--image-size", "32", "--weights",
                        "{weights}", "--epochs", "0", "--out", "run")), operations=6, moments=4,
    ),
    "evaluate": Case(("evaluate", "linear", "--workers", "0"), ("linear",), 10, 6),
    "evaluate --ensemble": Case(
        ("evaluate", "linear", "other", "--ensemble", "--workers", "0", "--out", "both"), ("linear", "other"), 6, 3
    ),
    "evaluate --sharpness": Case(
        ("evaluate", "linear", "--sharpness", "--points", "3", "--limit", "6", "--workers", "0", "--out", "flat"),
        ("linear",), 4, 3,
    ),
    "predict": Case(("predict", "{photos}/test", "--run", "{runs}/linear", "--csv", "--workers", "0"), (), 0, 8),
    "explain": Case(
        ("explain", "{photos}/test/amber", "--run", "{runs}/linear", "--occlude", "--out", "pictures"), (), 8, 6
    ),
    "explain a split": Case(
        ("explain", "--run", "linear", "--split", "test", "--limit", "6", "--workers", "0"), ("linear",), 8, 6
    ),
    "embed npz": Case(
        ("embed", "{photos}/test", "--run", "{runs}/linear", "--out", "new/e.npz", "--workers", "0"), (), 6, 4
    ),
    "embed parquet": Case(
        ("embed", "{photos}/test", "--run", "{runs}/linear", "--out", "e.parquet", "--workers", "0"), (), 4, 3
    ),
    "embed csv": Case(
        ("embed", "{photos}/test", "--run", "{runs}/linear", "--out", "embeddings.csv", "--workers", "0"), (), 3, 3
    ),
    "classes add": Case(("classes", "add", "{runs}/knn", "{extra}", "--out", "more", "--workers", "0"), (), 8, 4),
    "calibrate": Case(("calibrate", "linear", "--workers", "0"), ("linear",), 8, 5),
    "export": Case(
        ("export", "{runs}/linear", "--data", "{photos}", "--images", "4", "--out", "new/linear.onnx"), (), 5, 4
    ),
    "audit": Case(
        ("audit", "--data", "{photos}", *TINY[:6], "--workers", "0", "--out", "audited"), (), 5, 4, same=r"audit\.csv$"
    ),
    "report": Case(("report", "linear", "--images", "2", "--workers", "0"), ("linear",), 5, 5),
    "compare": Case(
        ("compare", "linear", "other", "--split", "val", "--workers", "0", "--out", "table"), ("linear", "other"), 8, 4
    ),
    "weights import": Case(("weights", "import", "{weights}", "--backbone", "timm/test_resnet"), (), 5, 3),
    "data prepare": Case(("data", "prepare", "demo", *DEMO), (), 8, 6),
    "data index": Case(
        ("data", "index", "{photos}/../shards", "--out", "own.shards"), (), 6, 3,
        again=(("data", "index", "{photos}/../shards", "--out", "own.shards"),), same=r"\.shards$",
    ),
    "data cache": Case(("data", "cache", "--clear"), (), 4, 1, cached=True),
    "bench": Case(
        ("bench", *TINY[:2], "--head", "linear", "--optimizer", "sgd", "--image-size", "32", "--batch-size", "2",
         "--seconds", "0.01", "--out", "times"), (), 4, 4, same="^$"),  # its pictures are of times
    "new-plugin": Case(("new-plugin", "mine", "--kind", "head"), (), 6, 1),
    "sweep": Case(
        ("sweep", *DATA, *TINY, "--head", "linear", "--optimizer", "sgd", "--optimizer", "adamw", "--epochs", "1",
         "--out", "study"), (), 6, 5,
        again=(("sweep", "--resume", "study"), ("sweep", *DATA, *TINY, "--head", "linear", "--optimizer", "sgd",
                                                "--optimizer", "adamw", "--epochs", "1", "--out", "study")),
    ),
    "sweep --search": Case(
        ("sweep", *DATA, *TINY, "--head", "linear", "--optimizer", "sgd", "--epochs", "1", "--trials", "2", "--set",
         "optimizer.lr={low=1e-3, high=1e-1, log=true}", "--out", "study"), (), 6, 5,
        again=(("sweep", "--resume", "study"),
               ("sweep", *DATA, *TINY, "--head", "linear", "--optimizer", "sgd", "--epochs", "1", "--trials", "2",
                "--set", "optimizer.lr={low=1e-3, high=1e-1, log=true}", "--out", "study")),
    ),
    "sweep --resume": Case(
        ("sweep", "--resume", "study"), ("study",), 6, 6, late=8, again=(("sweep", "--resume", "study"),)
    ),
}  # fmt: skip

READ_ONLY = {"list-plugins", "show", "check-plugin", "serve"}
"""Commands that write nothing of their own."""


def trials() -> Iterator[Any]:
    """Yield the command, the place of the kill (a fraction of its operations or of its time) and the signal."""
    for name, case in CASES.items():
        signals = itertools.cycle(case.signals)
        for k in range(case.operations):
            at = k / max(1, case.operations - 1)
            yield pytest.param(name, "write", at, next(signals), id=f"{name}-before write {at:.2f}")
        rng = random.Random(name)
        moments = [rng.uniform(0.02, 0.95) for _ in range(case.moments)]
        moments += [rng.uniform(0.67, 1.0) for _ in range(case.late)]
        for k, moment in enumerate(moments):
            yield pytest.param(name, "time", moment, next(signals), id=f"{name}-moment {k}")


@dataclass
class Clean:
    """What a command line does when nothing kills it.

    Attributes:
        operations: number of its write operations.
        seconds: how long it takes.
        files: that are in the place then, without the cache and temporary files.
        digests: of the content of those that have to be the same.
        warnings: that it prints.
    """

    operations: int
    seconds: float
    files: list[str]
    digests: dict[str, str]
    warnings: set[str] = field(default_factory=set)


def files_in(place: Any) -> list[str]:
    """Return the files in a place but for the cache and temporary files, with the time in their names replaced.

    A run may have been claimed several times.
    """
    left = [re.sub(r"\d{8}-\d{6}", "TIME", name) for name in place.left() if not name.startswith(("cache/", "tmp/"))]
    return list(dict.fromkeys(re.sub(r"(/claims/.*)\.\d+\.json$", r"\1", name) for name in left))


def digests_in(place: Any, pattern: str) -> dict[str, str]:
    named = (name for name in files_in(place) if re.search(pattern, name) and not re.search("/last/|/claims/", name))
    return {name: hashlib.sha256((place.root / name).read_bytes()).hexdigest() for name in named if "TIME" not in name}


@pytest.fixture
def prepared(world, runs_in, new_place) -> Callable[[Case], tuple[Any, Callable[..., Any]]]:
    """A function that makes a place for a command, and a function that fills in a command line."""

    def prepare(case: Case) -> tuple[Any, Callable[..., Any]]:
        place = new_place()

        def filled(arguments: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(
                argument.format(photos=world.photos, runs=world.runs, weights=world.weights, extra=world.extra)
                for argument in arguments
            )

        runs_in(world, place, tuple(name for name in case.runs if name != "study"))
        if "study" in case.runs:
            shutil.copytree(study_of(new_place, filled), place.work / "study")
        if case.cached:
            assert place.run(*filled(CASES["train"].arguments)).code == 0
            shutil.rmtree(place.work / "run")
        return place, filled

    return prepare


STUDY: list[Path] = []


def study_of(new_place: Any, filled: Callable[..., Any]) -> Path:
    """Return a study that was stopped after its first run; made once."""
    if not STUDY:
        place = new_place()
        process = place.start(*filled(CASES["sweep"].arguments))
        until = time.monotonic() + 240
        while not list(place.work.glob("study/runs/*/summary.json")) and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(process, TERM)
        place.wait(process, (), time.monotonic())
        STUDY.append(place.work / "study")
    return STUDY[0]


CLEAN: dict[str, Clean] = {}


@pytest.fixture
def clean(prepared) -> Callable[[str], Clean]:
    """A function that returns what a command does when nothing kills it; run once."""

    def run(name: str) -> Clean:
        if name not in CLEAN:
            case = CASES[name]
            place, filled = prepared(case)
            done = place.run(*filled(case.arguments))
            assert done.code == 0 and "Traceback" not in done.err, done
            CLEAN[name] = Clean(
                len(done.operations), done.seconds, files_in(place), digests_in(place, case.same), done.warnings
            )
        return CLEAN[name]

    return run


def test_every_command_that_writes_is_here() -> None:
    assert {case.arguments[0] for case in CASES.values()} | READ_ONLY == set(COMMANDS)


EXIT_CODES = {KILL: (-KILL,), TERM: (128 + TERM, -TERM), INT: (128 + INT, -INT)}


@pytest.mark.parametrize(("name", "place_of_kill", "fraction", "number"), list(trials()))
def test_killed_and_started_again(
    name: str, place_of_kill: str, fraction: float, number: int, prepared, clean, refusal
) -> None:
    case, reference = CASES[name], clean(name)
    place, filled = prepared(case)
    arguments = filled(case.arguments)
    if place_of_kill == "write":
        at = round(fraction * (reference.operations - 1))
        killed = place.run(*arguments, signal=number, at=at)
    else:
        killed = place.killed(*arguments, after=fraction * reference.seconds, signals=(number,))
        for _ in range(3):  # this time it was quicker
            if killed.code != 0:
                break
            place, filled = prepared(case)
            fraction /= 2
            killed = place.killed(*arguments, after=fraction * reference.seconds, signals=(number,))
        if killed.code == 0:
            pytest.skip("it always ended before the signal")
    check_end(killed, number)
    again(case, filled, place, reference, refusal)


@pytest.mark.parametrize("number", [TERM, INT], ids=["SIGTERM", "Ctrl-C"])
@pytest.mark.parametrize("pause", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", ["train, two workers", "sweep", "sweep --resume"])
def test_a_second_signal_ends_it_at_once(name: str, pause: float, number: int, prepared, clean, refusal) -> None:
    case, reference = CASES[name], clean(name)
    place, filled = prepared(case)
    killed = place.killed(*filled(case.arguments), after=pause * reference.seconds, signals=(number, number))
    if killed.code == 0:
        pytest.skip("it ended before the signal")
    check_end(killed, number)
    again(case, filled, place, reference, refusal)


def check_end(killed: Any, number: int) -> None:
    """Check how a killed process ended, and that nothing of it still runs."""
    assert killed.code is not None, f"hung: {killed}"
    assert killed.code in (0, *EXIT_CODES[number]), killed  # 0: all work was done already
    for noise in ("Traceback", "unexpected error", "Exception ignored"):
        assert noise not in killed.err, killed
    until = time.monotonic() + ORPHAN_SECONDS
    while killed.survivors() and time.monotonic() < until:
        time.sleep(0.05)
    assert not killed.survivors(), killed


def again(case: Case, filled: Callable[..., Any], place: Any, reference: Clean, refusal: Any) -> None:
    """Start a killed command again, and compare the result with that of an undisturbed one."""
    for arguments in case.next_starts:
        done = place.run(*filled(arguments))
        if done.code == 0:
            assert "Traceback" not in done.err, done
            assert done.warnings <= reference.warnings, done
            break
        if "is finished" in refusal(done):
            break
    else:
        raise AssertionError(f"it cannot be started again: {done}")
    assert files_in(place) == reference.files
    assert digests_in(place, case.same) == reference.digests
    assert not [name for name in place.left() if name.endswith(".part") or ".preparing" in name]
