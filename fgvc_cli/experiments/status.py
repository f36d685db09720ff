"""The status of a study, from its folder alone: any machine that sees the folder can look."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fgvc_cli.experiments.claims import EXPIRY_SECONDS, Record, Watch, claim_file
from fgvc_cli.experiments.folder import TRIAL, StudyFolder, find_study
from fgvc_cli.experiments.planning import SweepRequest, plan
from fgvc_cli.experiments.search import Search
from fgvc_cli.registry import Registry

RunState = Literal["finished", "pruned", "running", "failed", "lost", "interrupted", "waiting"]


@dataclass(frozen=True)
class RunStatus:
    """The status of a run.

    Attributes:
        run: its name.
        state: a "lost" run has given no sign of life for a minute: its process or machine is dead, or cut off from the
            disk. It is resumed as an "interrupted" one is, whose process stopped with its state saved, or was killed on
            this machine.
        host, process: where it runs or ran last; empty and 0 if it has not started.
        since: when it started there, in seconds since 1970.
        silent: seconds since its last sign of life, if it runs or is lost.
        fraction: progress in [0, 1].
        text: progress in a few words, or why it failed.
    """

    run: str
    state: RunState
    host: str = ""
    process: int = 0
    since: float | None = None
    silent: float | None = None
    fraction: float = 0.0
    text: str = ""


@dataclass(frozen=True)
class StudyStatus:
    """The status of each run of a study, in training order."""

    folder: Path
    runs: tuple[RunStatus, ...]

    @property
    def counts(self) -> dict[str, int]:
        """The number of runs in each state that occurs."""
        counted = Counter(each.state for each in self.runs)
        return {state: counted[state] for state in RunState.__args__ if counted[state]}  # type: ignore[attr-defined]

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"study": str(self.folder), "counts": self.counts, "runs": [asdict(each) for each in self.runs]}


def study_status(path: Path, registry: Registry) -> StudyStatus:
    """Return the status of a study.

    Raises:
        FgvcError: there is no study at `path`, or its file is damaged.
        UsageError: a component is not installed.
    """
    folder = find_study(path)
    study = plan(SweepRequest(file=folder.study_file), registry)
    names = [run.name for run in study.runs()] if study.search is None else _names_of_search(Search(study, folder))
    return StudyStatus(folder.path, tuple(_run_status(folder, name, time.time()) for name in names))


def _names_of_search(search: Search) -> list[str]:
    """Return the names of the trials and of the runs of the best one; "trial-0004", "best-seed1" if not known yet."""
    assert search.study.search is not None
    folder, claims = search.folder, search.folder.claims.glob("*.1.json")
    claimed = {file.name.removesuffix(".1.json") for file in claims}
    trials = {name: int(m[1]) for name in {*(t.name for t in folder.trials()), *claimed} if (m := TRIAL.match(name))}
    unknown = sorted({*range(1, search.study.search.trials + 1)} - {*trials.values()})
    unknown = unknown[: max(0, search.study.search.trials - len(trials))]
    best = search.best()
    known = best is not None and (search.has_winner or search.ended() >= search.study.search.trials)
    stem = best.cell if best is not None and known else "best"
    numbered = {**trials, **{f"trial-{number:04d}": number for number in unknown}}
    return [
        *sorted(numbered, key=lambda name: (numbered[name], name)),
        *(f"{stem}-seed{seed}" for seed in search.study.winner_seeds),
    ]


def _run_status(folder: StudyFolder, name: str, now: float) -> RunStatus:
    record, state = folder.record(name), folder.state(name)
    if folder.is_pruned(name):
        epochs = len(folder.run(name).metrics)
        return RunStatus(name, "pruned", "" if record is None else record.host, text=f"after epoch {epochs}")
    if record is None:
        reasons = {"failed": lambda: folder.failures()[name].reason}
        found: RunState = "interrupted" if state == "started" else state
        return RunStatus(name, found, fraction=float(state == "finished"), text=reasons.get(state, str)())
    where: dict[str, Any] = {"host": record.host, "process": record.pid, "since": record.since or None}
    if state in ("finished", "failed"):
        return RunStatus(name, state, **where, fraction=_fraction(state, record), text=record.reason)
    running = _running(folder, name, record, now)
    if running == "interrupted":
        return RunStatus(name, running, **where, fraction=record.fraction, text=record.text)
    silent = max(0.0, round(now - record.heard, 1))
    return RunStatus(name, running, **where, silent=silent, fraction=record.fraction, text=record.text)


def _fraction(state: str, record: Record) -> float:
    return 1.0 if state == "finished" else record.fraction


def _running(folder: StudyFolder, name: str, record: Record, now: float) -> RunState:
    lives = Watch(claim_file(folder.claims, name, record.number)).lives(record)
    if lives is None:  # on another machine, by whose clock it was heard
        return "running" if now - record.heard < EXPIRY_SECONDS else "lost"
    return "running" if lives else "interrupted"
