"""Folders for results that belong to no single run: new ones named by the time, or what `--out` names."""

from __future__ import annotations

import os
import time
from pathlib import Path

from fgvc_cli.errors import FgvcError, UsageError


def choose_new_folder(out: Path | None, force: bool, below: str, what: str) -> Path:
    """Return the folder for the results; it is not made yet.

    Args:
        out: what `--out` names; None: a new one named by the time.
        force: whether `out` may hold results, which are then replaced.
        below: where the new one lies, in the current folder: "bench", "ensemble".
        what: the results are, as the refusal names them: "the benchmark".

    Raises:
        UsageError: `out` exists and `force` is not given, or it is a file.
        FgvcError: no folder can be made there.
    """
    if out is None:
        stem = Path(below) / time.strftime("%Y%m%d-%H%M%S")
        names = (stem, *(stem.with_name(f"{stem.name}-{number}") for number in range(2, 1000)))
        out = next((name for name in names if not name.exists()), stem)
    elif out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: name a folder.")
    elif out.is_dir() and any(out.iterdir()) and not force:
        raise UsageError(f"--out {out} exists: choose another folder, or replace {what} in it with --force.")
    _refuse_what_cannot_be_made(out)
    return out


def _refuse_what_cannot_be_made(folder: Path) -> None:
    """Say now, not after the work, that nothing can be written there."""
    above = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        cause = "cannot be written to" if above.is_dir() else "is a file"
        raise FgvcError(f"The results cannot go to {folder}: {above} {cause}. Choose another folder with --out.")
