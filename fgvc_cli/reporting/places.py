"""Where a page goes."""

from __future__ import annotations

import time
from pathlib import Path

from fgvc_cli.comparing.collecting import Collected
from fgvc_cli.errors import UsageError
from fgvc_cli.runs.files import check_writable
from fgvc_cli.runs.folder import REPORT_FILE


def page_file(collected: Collected, out: Path | None, force: bool) -> Path:
    """Return the file of a page, after finding out that it can be written.

    Args:
        collected: what it reports of.
        out: what `--out` names; None: `report.html` in the folder of the run or the study, where a new page takes the
            place of the one before, or a new file in the current folder for several runs.
        force: whether `out` may exist.

    Raises:
        UsageError: `out` exists, without `force`, or is a folder.
        FgvcError: the folder cannot be written.
    """
    home = collected.study or (collected.runs[0].path if len(collected.runs) == 1 else None)
    file = out or (_new_file() if home is None else home / REPORT_FILE)
    if file.is_dir():
        raise UsageError(f"--out {file} is a folder: name a file, such as {file / REPORT_FILE}.")
    if file.exists() and not file.is_file():  # a device or a pipe, which the page would take the place of
        raise UsageError(f"--out {file} is no ordinary file: choose another one.")
    if out is not None and out.exists() and not force:
        raise UsageError(f"--out {out} exists: choose another file, or replace it with --force.")
    check_writable(file.parent, "The page")
    return file


def _new_file() -> Path:
    stem = f"report-{time.strftime('%Y%m%d-%H%M%S')}"
    names = [f"{stem}.html", *(f"{stem}-{number}.html" for number in range(2, 1000))]
    return next(path for name in names if not (path := Path(name)).exists())
