"""Sweep: plan a new study or resume one, and train its runs."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc_cli import files
from fgvc_cli.config.run_config import RunConfig
from fgvc_cli.contracts import Launcher
from fgvc_cli.data.identity import DataIdentity
from fgvc_cli.data.splits import quoted_names
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.experiments.folder import StudyFolder, check_new_study, find_study, new_study
from fgvc_cli.experiments.launching import LaunchRequest
from fgvc_cli.experiments.planning import SweepRequest, plan, resolve_combinations
from fgvc_cli.experiments.scheduler import RunOptions, SweepCallback, SweepResult, run_study
from fgvc_cli.experiments.search import Search, require_optuna
from fgvc_cli.experiments.study import PlannedRun, Study
from fgvc_cli.registry import Registry
from fgvc_cli.training.setup import open_splits
from fgvc_cli.training.state import recorded_data

NO_EFFECT = {"seed", "fold", "device", "workers", "cache", "strict_data", "track"}
"""Settings of `train` that may differ between a run and its study: the seed, and those without effect on the model."""


@dataclass(frozen=True)
class Sweep:
    """A study to train or to resume in a folder, and the resolved settings of each combination with the first seed."""

    study: Study
    configs: Sequence[RunConfig]
    registry: Registry
    folder: StudyFolder | None = None

    def check_data(self, allow_changed_data: bool = False) -> list[str]:
        """Open each dataset once before training, and return a line on its content.

        Raises:
            FgvcError: a dataset is missing or unusable, or, unless `allow_changed_data`, differs from that of runs that
                have started.
        """
        unique = {
            (c.dataset, c.data, c.train.split_seed, c.train.train_on, c.train.exclude, c.train.group_by): c
            for c in self.configs
        }
        lines = []
        for config in unique.values():
            dataset, splits = open_splits(config)
            counts = [f"{len(s)} {s.name}" for s in (splits.train, splits.val, splits.test) if s is not None]
            if self.study.folds and splits.val is not None:
                counts[:2] = [f"{len(splits.train) + len(splits.val)} in {self.study.folds} folds"]
            source = f" ({config.data})" if config.data else ""
            classes = len(dataset.class_names)
            lines.append(f"data       {dataset.name}{source}: {classes} classes, {' + '.join(counts)} images")
            lines += self._data_changes(config, DataIdentity.of(dataset), allow_changed_data)
        return lines

    def _data_changes(self, config: RunConfig, now: DataIdentity, allow: bool) -> list[str]:
        """Return a line for each change of a dataset since runs on it started; raise `FgvcError` unless allowed."""
        if self.folder is None:
            return []
        if self.study.search is not None:
            return self._changes_since_trials(self.folder, now, allow)
        states = [(run, self.folder.state(run.name)) for run in self.study.runs()]
        if not any(state in ("started", "waiting") for _, state in states):
            return []
        found: dict[str, list[str]] = {}
        for run, state in states:
            same = (self._config(run).dataset, self._config(run).data) == (config.dataset, config.data)
            before = recorded_data(self.folder.run(run.name)) if same and state in ("started", "finished") else None
            if before is not None and (changes := "; ".join(before.changes_to(now))):
                found.setdefault(changes, []).append(run.name)
        lines = [f"the data changed since {quoted_names(names)} started: {changes}" for changes, names in found.items()]
        if lines and self.study.folds:
            raise FgvcError(
                f"{lines[0]}. Images may have moved between folds: restore it, or start a new study with "
                f"`config={self.folder.study_file}`"
            )
        if lines and not allow:
            raise FgvcError(
                f"{lines[0]}. Restore it, start a new study with `config={self.folder.study_file}`, or train the rest "
                "on the data as it is now (`allow_changed_data=true`)"
            )
        return lines

    @staticmethod
    def _changes_since_trials(folder: StudyFolder, now: DataIdentity, allow: bool) -> list[str]:
        """Return a line on how the data changed since a trial started; raise `FgvcError` unless allowed."""
        for run in folder.trials():
            before = recorded_data(run)
            if before is not None and (changes := "; ".join(before.changes_to(now))):
                line = f"the data changed since {run.name} started: {changes}"
                if not allow:
                    raise FgvcError(
                        f"{line}. Trials on different data cannot be compared: restore it, or start a new study with "
                        f"`config={folder.study_file}`"
                    )
                return [line]
        return []

    def changed_settings(self) -> list[str]:
        """Return a line for each difference between the study file and the settings of runs that have started."""
        found: dict[str, list[str]] = {}
        for run in self.study.runs() if self.folder is not None and self.study.search is None else ():
            if changes := ", ".join(self._changes(run)):
                found.setdefault(changes, []).append(run.name)
        return [
            f"{', '.join(names)}: already started with other settings, keeping those: {changes}. "
            "To train the new settings, give the cell another name."
            for changes, names in found.items()
        ]

    def listing(self) -> list[dict[str, Any]]:
        """Return a record for each run: folder name, components, seed and state."""
        records: list[dict[str, Any]] = []
        if self.study.search is not None:
            cells = Search(self.study, self.folder or StudyFolder(Path())).cells
            return [{"cell": cell, "setting": space.name, "space": space.text}
                    for cell, (_, spaces) in cells.items() for space in spaces]  # fmt: skip
        for run in self.study.runs():
            config = self._config(run)
            names = {"backbone": config.backbone.name, "head": config.head.name, "optimizer": config.optimizer.title}
            state = "waiting" if self.folder is None else self.folder.state(run.name)
            fold = {"fold": run.fold} if run.fold else {}
            records.append({"run": run.name, **names, "seed": run.seed, **fold, "state": state})
        return records

    def prepare_folder(self, out: Path | None) -> StudyFolder:
        """Create the folder of a new study, or update the study file of a resumed one, which may have been edited."""
        if self.folder is None:
            return new_study(self.study, out, self.configs[0].dataset.name)
        files.write_text(self.folder.study_file, self.study.as_toml())
        return self.folder

    def connect(self, request: LaunchRequest) -> Launcher:
        """Return the launcher to train with, before anything is written.

        Raises:
            UsageError: several jobs, and a device that names a single GPU; or the launcher or an option does not exist.
            FgvcError: the launcher cannot be used; see `LaunchRequest.connect`.
        """
        device = self.configs[0].train.device
        if (request.jobs or 1) > 1 and ":" in device:
            raise UsageError(
                f"`jobs={request.jobs}` assigns GPUs to runs itself; use `device=cuda`, not `device={device}`"
            )
        return request.connect(device, self.registry)

    def train(
        self,
        folder: StudyFolder,
        launcher: Launcher,
        callback: SweepCallback,
        options: RunOptions,
        retry_failed: bool = False,
    ) -> SweepResult:
        """Train the runs that are not finished; see `fgvc_cli.experiments.scheduler.run_study`.

        Raises:
            FgvcError: no run is finished.
        """
        source = None
        if self.study.search is not None:
            failed = {name: folder.record(name) for name in folder.failures()} if retry_failed else {}
            retry = {name: record.number for name, record in failed.items() if record is not None}
            search = Search(self.study, folder, retry=retry)
            callback.planned(search.ended(), self.study.search.trials + len(self.study.seeds))
            source = search.next_runs
        result = run_study(folder, self.study, launcher, self.registry, callback, options, retry_failed, source)
        if not result.finished:
            name, reason = next(iter(result.failed.items()), ("", "there are none"))
            raise FgvcError(f"No run of the study could be trained. {name}: {reason}")
        return result

    def _config(self, run: PlannedRun) -> RunConfig:
        return self.configs[self.study.combinations.index(run.combination)]

    def _changes(self, run: PlannedRun) -> Iterator[str]:
        """Yield the settings of the study that differ in a run that has started: `train.epochs 1 (study: 2)`."""
        assert self.folder is not None
        try:
            of_run: Mapping[str, Any] = tomllib.loads(
                self.folder.run(run.name).config_file.read_text(encoding="utf-8-sig")
            )
        except (OSError, ValueError):  # the run has not started, or resuming it will report the error
            return
        of_study = self._config(run).as_document()
        for section, name in dict.fromkeys((s, n) for layer in run.layers for s, table in layer.items() for n in table):
            before, now = (document.get(section, {}).get(name) for document in (of_run, of_study))
            undecided = (section, name) == ("train", "weights") and now not in ("none", "imagenet")
            if (section == "train" and name in NO_EFFECT) or undecided:
                continue
            if before is not None and now is not None and before != now:
                yield f"{section}.{name} {before} (study: {now})"


def new_sweep(request: SweepRequest, registry: Registry, out: Path | None = None) -> Sweep:
    """Plan a new study.

    Raises:
        UsageError: a name, an option or a value is invalid, or `out` exists.
        FgvcError: the study file cannot be read.
    """
    if out is not None:
        check_new_study(out)
    return _sweep(plan(request, registry), registry)


def resume_sweep(path: Path, registry: Registry) -> Sweep:
    """Plan to resume a study.

    Raises:
        FgvcError: there is no study at `path`, or its file is damaged.
        UsageError: a component is not installed, or the study file has an invalid setting.
    """
    folder = find_study(path)
    return _sweep(plan(SweepRequest(file=folder.study_file), registry), registry, folder)


def _sweep(study: Study, registry: Registry, folder: StudyFolder | None = None) -> Sweep:
    """Resolve the combinations of a study."""
    if study.search is not None:
        require_optuna()
        if folder is not None:
            Search(study, folder).check_trials()
    if folder is not None:
        _check_folds(study, folder)
    return Sweep(study, resolve_combinations(study, registry), registry, folder)


def _check_folds(study: Study, folder: StudyFolder) -> None:
    """Raise `UsageError` if a run has started with another number of folds: its images are divided differently."""
    for run in folder.runs():
        with suppress(OSError, ValueError):  # resuming the run will report the error
            of_run = tomllib.loads(run.config_file.read_text(encoding="utf-8-sig")).get("train", {}).get("folds", 0)
            if of_run != study.folds:
                raise UsageError(
                    f"`folds={study.folds}`: {run.name} has started with {f'{of_run} folds' if of_run else 'none'}; "
                    f"restore that, or start a new study with `config={folder.study_file}`"
                )
