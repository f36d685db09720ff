"""Claims: which process trains which run of a study, kept in the study folder, which machines may share.

A claim is a file `claims/RUN.NUMBER.json` that exactly one process can create, on any disk. The highest number counts.
Its holder rewrites the file in place every few seconds, and says in it how its work ended. Another process takes the
next number once the holder has ended, or is dead: on its own machine it sees that at once, since the holder locks the
file (`flock`); of another machine's holder it assumes so if the file has not changed for a minute, measured by its own
clock. Locks of one machine are not relied on by another: network file systems often keep them apart. A holder that
finds the next number taken (it was suspended, or cut off from the disk) kills itself before it saves anything.
"""

from __future__ import annotations

import glob
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from fgvc_cli.errors import FgvcError
from fgvc_cli.files import FileLock, Locked

BEAT_SECONDS = 5.0
"""Time between two signs of life of a holder."""
EXPIRY_SECONDS = 60.0
"""Time without a sign of life after which the holder on another machine is dead."""
POLL_SECONDS = 0.5
SIZE = 4096
"""Bytes of a claim: written at once, in place, so that a full disk does not keep a holder from saying how it ended."""

ClaimState = Literal["running", "finished", "failed", "stopped"]


@dataclass(frozen=True)
class Record:
    """What a claim says.

    Attributes:
        token: of the launch that the holder belongs to.
        run: components by kind, and the seed.
        host, pid: where the holder runs.
        boot: identifies the machine since it was started.
        locks: whether the holder could lock the file.
        since: when it took the run, in seconds since 1970 by its own clock.
        heard: when it last gave a sign of life, by the same clock.
        beat: counts its signs of life.
        state: "running" until it has ended, then how: "stopped" if its state is saved.
        reason: why it failed or stopped, in one line.
        epochs: number of epochs of the run; 0 until training starts.
        done: epochs that were done when it started or resumed.
        fraction: progress of the run in [0, 1].
        text: status in a few words.
        number: of the claim, from the name of its file.
    """

    token: str = ""
    run: Mapping[str, Any] = field(default_factory=dict)
    host: str = ""
    pid: int = 0
    boot: str = ""
    locks: bool = False
    since: float = 0.0
    heard: float = 0.0
    beat: int = 0
    state: ClaimState = "running"
    reason: str = ""
    epochs: int = 0
    done: int = 0
    fraction: float = 0.0
    text: str = ""
    number: int = 0

    @property
    def ended(self) -> bool:
        """Whether the holder has said how its work ended."""
        return self.state != "running"

    def as_bytes(self) -> bytes:
        """Return the content of the file, always of the same size."""
        document = {name: value for name, value in asdict(self).items() if name != "number"}
        for length in (3000, 700, 100):  # a letter takes up to 4 bytes, or 6 escaped
            document |= {"reason": self.reason[:length], "text": self.text[:length]}
            content = json.dumps(document, ensure_ascii=False).encode(errors="backslashreplace")
            if len(content) <= SIZE:
                break
        return content[:SIZE].ljust(SIZE)


def claim_file(folder: Path, run: str, number: int) -> Path:
    """Return the file of a claim in the folder of all claims."""
    return folder / f"{run}.{number}.json"


def latest(folder: Path, run: str) -> Record | None:
    """Return the record of the last claim to a run; None if nobody has claimed it yet."""
    number = 1
    while claim_file(folder, run, number).exists():
        number += 1
    return read(claim_file(folder, run, number - 1)) if number > 1 else None


def read(file: Path) -> Record:
    """Read a claim; of a damaged one, nothing but the number is known, as of a holder that gives no sign of life."""
    number = int(file.name.removesuffix(".json").rpartition(".")[2])
    try:
        document = json.loads(file.read_bytes())
        known = {each.name for each in fields(Record)}
        return Record(**{**{k: v for k, v in document.items() if k in known}, "number": number})
    except (OSError, ValueError, TypeError, AttributeError):
        return Record(number=number)


@dataclass
class Watch:
    """Judges whether the holder of a claim lives, from the file alone."""

    file: Path
    _beat: int | None = None
    _unchanged: float = 0.0
    _seen: float = 0.0

    def lives(self, record: Record) -> bool | None:
        """Return whether the holder lives; None if that takes longer to see. To be called at least twice a minute."""
        if record.ended:
            return False
        if record.boot == boot() and record.locks and (locked := _is_locked(self.file)) is not None:
            return locked
        now, before, self._seen = time.monotonic(), self._seen, time.monotonic()
        if self._beat is None or record.beat != self._beat:
            first, self._beat, self._unchanged = self._beat is None, record.beat, 0.0
            return None if first else True
        # If this process was stopped too, or waited for the disk, the time does not count.
        self._unchanged += min(now - before, EXPIRY_SECONDS / 4)
        return False if self._unchanged >= EXPIRY_SECONDS else None


class Claim:
    """A claim to a run, held by this process until `end`; a thread gives signs of life."""

    def __init__(self, folder: Path, name: str, record: Record, lock: FileLock | None, handle: int) -> None:
        self._record, self._lock, self._handle = record, lock, handle
        self._next = claim_file(folder, name, record.number + 1)
        self._writing, self._over = threading.Lock(), threading.Event()
        threading.Thread(target=self._live, daemon=True).start()

    @classmethod
    def take(cls, folder: Path, name: str, token: str, run: Mapping[str, Any], dead: str = "") -> Claim | None:
        """Claim a run.

        Args:
            folder: of all claims of the study.
            name: of the run.
            token: see `Record`.
            run: see `Record`.
            dead: token of a launch whose process is known to be dead.

        Returns:
            The claim; None if another process holds it.

        Raises:
            FgvcError: the claim cannot be written.
        """
        watch: Watch | None = None
        while True:
            held = latest(folder, name)
            number = 0 if held is None else held.number
            if held is not None and not held.ended and not (dead and held.token == dead):
                file = claim_file(folder, name, number)
                watch = watch if watch is not None and watch.file == file else Watch(file)
                lives = watch.lives(held)
                if lives:
                    return None
                if lives is None:
                    time.sleep(POLL_SECONDS)
                    continue
            try:
                return cls._create(folder, name, number + 1, token, run)
            except FileExistsError:  # another process was quicker
                time.sleep(0.01)
            except OSError as error:
                raise FgvcError(f"Cannot write to {folder}: {error.strerror or error}") from error

    @classmethod
    def _create(cls, folder: Path, name: str, number: int, token: str, run: Mapping[str, Any]) -> Claim:
        """Create the file with its content, locked, at once."""
        folder.mkdir(exist_ok=True)
        file, now = claim_file(folder, name, number), time.time()
        record = Record(token, run, socket.gethostname(), os.getpid(), boot(), True, now, now, number=number)
        new = folder / f".{name}.{number}.{uuid.uuid4().hex}"
        handle = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
        lock = None
        try:
            with suppress(OSError):  # a file system without locks
                lock = FileLock(new, shared=False)
            if lock is None or not _is_locked(new):  # or one that only pretends
                record = replace(record, locks=False)
            _write(handle, record)
            try:
                os.link(new, file)
            except FileExistsError:
                raise
            except FileNotFoundError:  # see below: another process was quicker
                raise FileExistsError(file) from None
            except OSError:  # a file system without links
                os.close(os.open(file, os.O_CREAT | os.O_EXCL, 0o666))
                new.replace(file)
            for left in folder.glob(f".{glob.escape(name)}.*"):  # of processes that were killed
                left.unlink(missing_ok=True)
            return cls(folder, name, record, lock, handle)
        except BaseException:
            os.close(handle)
            if lock is not None:
                lock.close()
            raise
        finally:
            with suppress(OSError):
                new.unlink(missing_ok=True)

    @property
    def record(self) -> Record:
        """What the claim says now."""
        return self._record

    def update(self, **changes: Any) -> None:
        """Change the record."""
        with self._writing:
            if not self._over.is_set():
                self._record = replace(self._record, **changes)
                with suppress(OSError):  # the thread tries again
                    _write(self._handle, self._record, sync=False)

    def end(self, state: ClaimState, reason: str = "") -> None:
        """Say how the work ended, and release the claim."""
        with self._writing:
            if self._over.is_set():
                return
            self._over.set()
            self._record = replace(self._record, state=state, reason=reason, heard=time.time())
            with suppress(OSError):  # then it counts as killed
                _write(self._handle, self._record)
            os.close(self._handle)
            if self._lock is not None:
                self._lock.close()

    def _live(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            if self._next.exists():  # another process believes this one dead
                _kill_all()
            with self._writing, suppress(OSError):
                if not self._over.is_set():
                    self._record = replace(self._record, beat=self._record.beat + 1, heard=time.time())
                    _write(self._handle, self._record)


def _write(handle: int, record: Record, sync: bool = True) -> None:
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, record.as_bytes())
    if sync:
        os.fsync(handle)


def _is_locked(file: Path) -> bool | None:
    """Return whether the lock of a claim is held; None if it cannot be tried, as with another user's file."""
    try:
        FileLock(file, shared=True).close()
    except Locked:
        return True
    except OSError:
        return None
    return False


def _kill_all() -> None:
    """Kill this process and those that it started, at once."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


@cache
def boot() -> str:
    """Return what identifies this machine since it was started."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{socket.gethostname()}-{uuid.getnode():x}"
