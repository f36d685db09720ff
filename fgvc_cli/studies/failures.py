"""The runs of a study that cannot be trained, and why; free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fgvc_cli.errors import FgvcError
from fgvc_cli.runs import files
from fgvc_cli.studies.places import FAILURES_FILE


@dataclass(frozen=True)
class FailedRun:
    """A run that cannot be trained.

    Attributes:
        name: of its folder.
        backbone, head, optimizer: what it combines.
        seed: its seed.
        reason: in one line.
    """

    name: str
    backbone: str
    head: str
    optimizer: str
    seed: int
    reason: str


def read_failures(study: Path) -> dict[str, FailedRun]:
    """Return the failed runs of a study, by name.

    Raises:
        FgvcError: the file that lists them is damaged.
    """
    file = study / FAILURES_FILE
    if not file.is_file():
        return {}
    try:
        return {each["name"]: FailedRun(**each) for each in files.read_json(file)}
    except (FgvcError, TypeError, KeyError) as error:
        raise FgvcError(f"{file} is damaged ({error}): delete it, and failed runs are tried again.") from error


def write_failures(study: Path, failures: Mapping[str, FailedRun]) -> None:
    """Keep the failed runs of a study."""
    files.write_json(study / FAILURES_FILE, [asdict(each) for each in failures.values()])
