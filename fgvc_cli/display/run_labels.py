"""What tables and pictures call runs that stand beside each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def run_labels(runs: Sequence[str]) -> list[str]:
    """Return the name of each run's folder, or its whole path where several folders have that name."""
    names = [Path(run).absolute().name for run in runs]  # absolute: the name of "." is empty
    times = Counter(names)
    return [name if times[name] == 1 else run for name, run in zip(names, runs, strict=True)]
