"""Runs that were begun before their study's file was edited: they keep what they were begun with."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fgvc_cli.studies.folder import StudyFolder
from fgvc_cli.studies.study import PlannedRun, Study
from fgvc_cli.training.config import RunConfig

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
        now = tomllib.loads(configs[study.combinations.index(run.combination)].as_toml())
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
