"""Sweep: from a request to a study folder whose runs have all ended."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc_cli import files
from fgvc_cli.config.run_config import RunConfig
from fgvc_cli.devices import pick_device
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.experiments.folder import StudyFolder, check_out, find_study, new_study
from fgvc_cli.experiments.planning import SweepRequest, configurations, plan
from fgvc_cli.experiments.running import Means, Outcome, View, run_study
from fgvc_cli.experiments.study import PlannedRun, Study, as_toml
from fgvc_cli.launch import Launch
from fgvc_cli.registry import Registry
from fgvc_cli.training.setup import open_splits

OF_NO_RESULT = {"seed", "device", "workers", "cache", "strict_data", "track"}
"""Settings of `train` that make no other classifier; each run of a study has its own seed."""


def begun_otherwise(study: Study, configs: Sequence[RunConfig], folder: StudyFolder) -> list[str]:
    """Say which runs were begun with other settings than the study has now, and with which: a line for each change.

    Args:
        study: as it is now.
        configs: every setting of each combination.
        folder: where its runs are.
    """
    found: dict[str, list[str]] = {}
    for run in study.runs():
        now = configs[study.combinations.index(run.combination)].as_document()
        if different := ", ".join(_different(run, now, folder)):
            found.setdefault(different, []).append(run.name)
    return [
        f"{', '.join(names)}: begun with {different}, and kept so. A cell of another name is trained anew."
        for different, names in found.items()
    ]


def _different(run: PlannedRun, now: Mapping[str, Any], folder: StudyFolder) -> Iterator[str]:
    """Give the settings that the study names and the run has otherwise, as `train.epochs 1 (the study has 2)`."""
    try:
        begun = tomllib.loads(folder.run(run.name).config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it has not begun, or what reads its settings in earnest says that it cannot
        return
    for section, name in dict.fromkeys((s, n) for layer in run.layers for s, table in layer.items() for n in table):
        of_run, of_study = (document.get(section, {}).get(name) for document in (begun, now))
        open_yet = (section, name) == ("train", "weights") and of_study not in ("none", "imagenet")
        if (section == "train" and name in OF_NO_RESULT) or open_yet:
            continue
        if of_run is not None and of_study is not None and of_run != of_study:
            yield f"{section}.{name} {of_run} (the study has {of_study})"


@dataclass(frozen=True)
class Sweep:
    """A study that is about to be trained, or to go on.

    Attributes:
        study: what it is.
        configs: every setting of each combination, with the first seed.
        folder: that it goes on in; None: it is new.
    """

    study: Study
    configs: Sequence[RunConfig]
    folder: StudyFolder | None = None

    def data_lines(self) -> list[str]:
        """Open each dataset once, before any run does, and say what is in it.

        Raises:
            FgvcError: images are not there, or cannot be used.
        """
        different = {(c.dataset, c.data, c.train.split_seed, c.train.train_on): c for c in self.configs}
        return [_data_line(config) for config in different.values()]

    def edited_lines(self) -> list[str]:
        """Say which runs do not have the settings that the study's file has by now."""
        return [] if self.folder is None else begun_otherwise(self.study, self.configs, self.folder)

    def listed(self) -> list[dict[str, Any]]:
        """Return a line for each run: what its folder is called, what it trains, and what became of it."""
        lines = []
        for run in self.study.runs():
            config = self.configs[self.study.combinations.index(run.combination)]
            names = {"backbone": config.backbone.name, "head": config.head.name, "optimizer": config.optimizer.title}
            state = "waiting" if self.folder is None else self.folder.state(run.name)
            lines.append({"run": run.name, **names, "seed": run.seed, "state": state})
        return lines

    def make_folder(self, out: Path | None) -> StudyFolder:
        """Make the folder of a new study; one that goes on gets its file written again, for it may have been edited."""
        if self.folder is None:
            return new_study(self.study, out, self.configs[0].dataset.name)
        files.write_text(self.folder.study_file, as_toml(self.study))
        return self.folder


def new(request: SweepRequest, registry: Registry, out: Path | None = None) -> Sweep:
    """Plan a new study.

    Raises:
        UsageError: a name, an option or a value does not exist or does not fit, or `out` is taken.
        FgvcError: the study file cannot be read.
    """
    if out is not None:
        check_out(out)
    study = plan(request, registry)
    return Sweep(study, configurations(study, registry))


def again(path: Path, registry: Registry) -> Sweep:
    """Go on with a study.

    Raises:
        FgvcError: there is none, or its file is damaged.
        UsageError: a component that it needs is not installed, or its file was edited so that something does not fit.
    """
    folder = find_study(path)
    study = plan(SweepRequest(file=folder.study_file), registry)
    return Sweep(study, configurations(study, registry), folder)


def train(
    sweep: Sweep, folder: StudyFolder, jobs: int, offline: bool, retry_failed: bool, registry: Registry, view: View
) -> Outcome:
    """Train what is not trained yet; see `fgvc_cli.experiments.running.run_study`."""
    device = pick_device(sweep.configs[0].train.device)
    if jobs > 1 and device.index is not None:
        raise UsageError(f"--jobs {jobs} shares out the GPUs by itself: write --device cuda, not {device}.")
    return run_study(folder, sweep.study, Means(jobs, device.type, offline), registry, view, retry_failed)


def refuse_torchrun(launch: Launch) -> None:
    """Raise `UsageError` if torchrun started several of this program: each would train the whole study."""
    if launch.count > 1:
        raise UsageError("fgvc sweep starts processes by itself: leave torchrun out, and say --jobs N for N GPUs.")


def refuse_if_all_failed(outcome: Outcome, folder: StudyFolder) -> None:
    """Say in one line that nothing came of a study.

    Raises:
        FgvcError: no run is finished.
    """
    if not outcome.finished:
        name, reason = next(iter(outcome.failed.items()), ("", "there was none"))
        raise FgvcError(f"No run of the study could be trained. {name}: {reason} {retry_text(folder)}")


def retry_text(folder: StudyFolder) -> str:
    """Say how runs that failed are tried again."""
    return f"To try what failed again: {folder.resuming} --retry-failed"


def _data_line(config: RunConfig) -> str:
    dataset, splits = open_splits(config)
    counts = [f"{len(s)} {s.name}" for s in (splits.train, splits.val, splits.test) if s is not None]
    source = f" ({config.data})" if config.data else ""
    return f"data       {dataset.name}{source}: {len(dataset.class_names)} classes, {' + '.join(counts)} images"
