"""Contract checks of launchers."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fgvc_cli.contracts import Launcher, LaunchRun, LaunchStudy, RunEnded
from fgvc_cli.errors import FgvcError
from fgvc_cli.testing.check import Checks, ContractError, NotApplicable, expect
from fgvc_cli.testing.component import ComponentUnderTest

TIMEOUT = 180.0
"""Seconds until a run is given up."""
CLOSE_TIMEOUT = 10.0
"""Seconds in which processes that were closed exit."""
REASON = "this machine does not see the folder"


@dataclass(frozen=True)
class Write:
    """Work that writes the number of its process and its threads to a file, or waits, raises or exits."""

    file: Path
    then: str = ""

    def __call__(self, threads: int | None) -> None:
        """Work."""
        with self.file.open("a") as file:
            file.write(f"{os.getpid()} {threads}\n")
        if self.then == "raise":
            raise FgvcError("no birds")
        if self.then == "exit":
            os._exit(7)
        while self.then == "wait":
            time.sleep(0.1)


@dataclass(frozen=True)
class Answer:
    """A check of the study folder with a fixed answer."""

    text: str = ""

    def __call__(self) -> str:
        """Return the answer."""
        return self.text


@dataclass(frozen=True)
class LauncherUnderTest:
    """A launcher, checked with work that does not train."""

    subject: ComponentUnderTest

    @contextmanager
    def started(self, jobs: int = 2, answer: str = "") -> Iterator[tuple[Launcher, Path]]:
        """Build and start it, in a temporary folder.

        Raises:
            NotApplicable: a package that it depends on is not installed, or a cluster cannot be reached.
        """
        try:
            launcher: Launcher = self.subject.make(Launcher, options=self.subject.options(), jobs=jobs, device="cpu")
        except FgvcError as error:
            raise NotApplicable(str(error)) from None
        with tempfile.TemporaryDirectory(prefix="fgvc-check-") as folder:
            try:
                launcher.start(LaunchStudy(Path(folder), ["fgvc_cli.testing.launcher"], Answer(answer)))
                yield launcher, Path(folder)
            finally:
                launcher.close()


def ended(launcher: Launcher, count: int, seconds: float = TIMEOUT) -> dict[str, RunEnded]:
    """Wait for a number of runs to end."""
    found: list[RunEnded] = []
    until = time.monotonic() + seconds
    while len(found) < count:
        expect(time.monotonic() < until, f"{count} runs to end", f"{len(found)} have after {seconds:.0f} s", "end them")
        found += launcher.ended(0.2)
    names = [each.name for each in found]
    expect(len(set(names)) == len(names), "each run once", f"ended returned {names}", "forget what was returned")
    return {each.name: each for each in found}


def submit(launcher: Launcher, runs: dict[str, Write]) -> None:
    """Submit runs as the host does: as many as there is room for."""
    launcher.submit([LaunchRun(name, work) for name, work in runs.items()])


CHECKS: Checks[LauncherUnderTest] = Checks(LauncherUnderTest)


@CHECKS("calls the work of each run once", "A run that is never called is never trained.")
def works(launcher: LauncherUnderTest) -> None:
    """Each run is called in a process of its own, and ends without a problem."""
    with launcher.started() as (started, folder):
        submit(started, {name: Write(folder / name) for name in "ab"})
        problems = [each.problem for each in ended(started, 2).values()]
        expect(
            problems == ["", ""], "no problems", f"ended returned {problems}", "report only work that did not return"
        )
        lines = [line.split()[0] for name in "ab" for line in (folder / name).read_text().splitlines()]
        expect(len(lines) == 2, "one call for each run", f"there were {len(lines)} for 2", "call work once")
        own = len({*lines, str(os.getpid())}) == 3
        expect(own, "a process for each run", "two calls shared one", "start a process, which work may change")


@CHECKS("reports work that did not return", "The study lists such runs as failed, with this reason.")
def reports(launcher: LauncherUnderTest) -> None:
    """Work that raises, and a process that exits, have a problem of one line."""
    with launcher.started() as (started, folder):
        submit(started, {name: Write(folder / name, name) for name in ("raise", "exit")})
        found = ended(started, 2)
    for name, each in found.items():
        line = bool(each.problem) and len(each.problem.splitlines()) == 1
        expect(line, f"the problem of work that ends with {name}, in one line", f"it is {each.problem!r}", "say why")


@CHECKS("cancels runs", "Ctrl-C, and searches that give up on a run, depend on it.")
def cancels(launcher: LauncherUnderTest) -> None:
    """A cancelled run ends without a problem, and the other goes on."""
    with launcher.started() as (started, folder):
        submit(started, {name: Write(folder / name, "wait") for name in "ab"})
        until = time.monotonic() + TIMEOUT
        while not all((folder / name).exists() for name in "ab"):
            expect(time.monotonic() < until, "both runs to start", "they did not", "start them")
            expect(not started.ended(0.1), "waiting work", "it ended", "end it when it is cancelled")
        started.cancel(["a", "of yesterday"])
        found = ended(started, 1)
        expect(list(found) == ["a"] and not found["a"].problem, "the cancelled run", f"{found} ended", "end it alone")
        until = time.monotonic() + 1.0
        while time.monotonic() < until:  # `ended` may return early with nothing, as while a process is still exiting
            expect(not started.ended(0.2), "the other run to go on", "it ended", "cancel only the runs that are named")


@CHECKS("leaves no process behind", "They would go on to compute.")
def closes(launcher: LauncherUnderTest) -> None:
    """Closing ends the processes of runs."""
    with launcher.started(1) as (started, folder):
        submit(started, {"a": Write(folder / "a", "wait")})
        until = time.monotonic() + TIMEOUT
        while not (folder / "a").exists() or not (folder / "a").read_text().endswith("\n"):
            expect(time.monotonic() < until, "the run to start", "it did not", "start it")
            started.ended(0.1)
        process = int((folder / "a").read_text().split()[0])
        started.close()
    until = time.monotonic() + CLOSE_TIMEOUT
    while _is_running(process):
        if time.monotonic() > until:
            os.kill(process, signal.SIGKILL)
        expect(time.monotonic() < until, "close() to end processes", "one goes on", "end it")
        time.sleep(0.1)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@CHECKS("checks the study folder", "A study must not fail after hours in a queue.")
def checks_folder(launcher: LauncherUnderTest) -> None:
    """If the check of the study folder fails where runs are trained, start() raises `FgvcError` with the reason."""
    try:
        with launcher.started(answer=REASON):
            pass
    except FgvcError as error:
        said = str(error)
        expect(REASON in said, f"an error with {REASON!r}", f"it says {said!r}", "pass on what the check returned")
        return
    raise ContractError("an FgvcError", "start() returned", "call study.check() where runs will be trained")
