"""A folder for what a benchmark keeps while it runs: on the disk of the cache, and gone afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from fgvc_cli import settings
from fgvc_cli.data.store.locks import FileLock, Locked

PREFIX, IN_USE = "bench-", "use.lock"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give an empty folder, which is removed at the end with all that is in it.

    It is made in the cache folder, because that is the disk from which trainings read their decoded images; where that
    cannot be written, among the system's temporary files. What benchmarks that were killed have left there is removed.
    """
    with ExitStack() as at_the_end:
        folder = Path(at_the_end.enter_context(_temporary(settings.current().cache.absolute())))
        with suppress(OSError):  # a file system without locks: then nobody removes it as left over, either
            at_the_end.callback(FileLock(folder / IN_USE, shared=False).close)
        yield folder


def _temporary(cache: Path) -> TemporaryDirectory[str]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _remove_left_over(cache)
        return TemporaryDirectory(prefix=PREFIX, dir=cache, ignore_cleanup_errors=True)
    except OSError:
        return TemporaryDirectory(prefix=f"fgvc-{PREFIX}", ignore_cleanup_errors=True)


def _remove_left_over(cache: Path) -> None:
    for lock in cache.glob(f"{PREFIX}*/{IN_USE}"):
        with suppress(Locked, OSError):
            FileLock(lock, shared=False).close()
            shutil.rmtree(lock.parent)
