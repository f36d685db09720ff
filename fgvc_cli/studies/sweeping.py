"""The whole of `fgvc sweep`: from a request to a study folder in which every run has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc_cli.devices import pick_device
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.launch import Launch
from fgvc_cli.registry import Registry
from fgvc_cli.runs import files
from fgvc_cli.studies.edited import begun_otherwise
from fgvc_cli.studies.folder import StudyFolder, check_out, find_study, new_study
from fgvc_cli.studies.planning import configurations, plan
from fgvc_cli.studies.request import SweepRequest
from fgvc_cli.studies.running import Means, Outcome, View, run_study
from fgvc_cli.studies.study import Study
from fgvc_cli.studies.study_file import as_toml
from fgvc_cli.training.config import RunConfig
from fgvc_cli.training.setup import open_splits


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
        """Open each data set once, before any run does, and say what is in it.

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
    """Train what is not trained yet; see `fgvc_cli.studies.running.run_study`."""
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
