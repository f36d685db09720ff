"""Several processes, killed ones, full disks, damaged files, removed stores: images are right, and training goes on."""

from __future__ import annotations

import hashlib
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest
import torch

from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.data.cache import environment, index
from fgvc_cli.data.cache import store as image_store
from fgvc_cli.data.cache import store as kept
from fgvc_cli.data.cache.environment import Damaged, Unusable
from fgvc_cli.data.cache.locks import FileLock, Locked, locked
from fgvc_cli.data.cache.resize import DATA
from fgvc_cli.data.cache.store import ImageStore, KeptImages
from fgvc_cli.data.loading import EvaluationLoader

Photographs = Callable[..., Split]
Keep = Callable[..., KeptImages]

WRITER = """
import hashlib, sys
from pathlib import Path
from fgvc_cli.data.store import environment, image_store
from fgvc_cli.data.cache.store import ImageStore

environment.FIRST_MAP = 2**22
image_store.PATIENCE, image_store.SLOW = 60.0, 60.0
folder, first, count, value_bytes = Path(sys.argv[1]), *map(int, sys.argv[2:])
store = ImageStore(folder, 2**31)
for number in range(first, first + count):
    key = number.to_bytes(16, "big")
    store.write([(key + b"%d" % i, hashlib.blake2b(key).digest() * (value_bytes // 64)) for i in range(4)])
    assert not store.trouble and not store.full, (store.trouble, store.full)
    if number == first:
        print("begun", flush=True)
"""


def writer(store: ImageStore, *numbers: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WRITER, str(store.folder), *map(str, numbers)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def check_all(store: ImageStore) -> int:
    """Check every value of a store against its key, and return how many there are."""
    found = environment.opened(store.folder, store.most)
    count = 0
    with found.environment.begin(buffers=True) as transaction:
        for key, value in transaction.cursor():
            pattern = hashlib.blake2b(bytes(key)[:16]).digest()
            assert bytes(value) == pattern * (len(value) // 64)
            count += 1
    return count


def test_two_processes_build_a_store_at_once(store: ImageStore) -> None:
    # the same images in part, and more than a map begins with, so that each meets the other's larger map
    store.most = environment.LEAST_MAP
    first = (0).to_bytes(16, "big") + b"0"
    assert store.count([first]) == 0
    writers = [writer(store, 0, 60, 2**17), writer(store, 30, 60, 2**17)]
    assert [process.wait(60) for process in writers] == [0, 0]
    assert store.count([first]) == 1  # with a map that was too small when it was opened
    assert check_all(store) == 4 * 90


def test_a_writer_that_is_killed_leaves_whole_images_and_no_lock(store: ImageStore) -> None:
    killed = writer(store, 0, 10_000, 2**16)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "begun\n"
    time.sleep(0.2)
    killed.send_signal(signal.SIGKILL)
    killed.wait(10)
    before = check_all(store)
    assert before >= 4 and before % 4 == 0  # a batch is there, or is not
    key = b"after the killed"
    store.write([(key + b"0", hashlib.blake2b(key).digest())])  # at once: nobody holds the lock
    assert not store.full
    assert check_all(store) == before + 1


@pytest.fixture
def evaluated(photographs: Photographs, keep: Keep, preprocessing: Preprocessing):
    """A loader of six images, one a batch, and what it must give."""
    split = photographs(6)
    loader = EvaluationLoader(split, preprocessing, 1, 0, False, kept=keep(split))
    expected = [batch.pixels for batch in EvaluationLoader(split, preprocessing, 1, 0, False)]

    def check() -> None:
        assert all(torch.equal(batch.pixels, pixels) for batch, pixels in zip(loader, expected, strict=True))

    return loader, check


def warnings_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]


class FullDisk:
    """An environment whose commits fail as on a full disk."""

    def __init__(self, real: lmdb.Environment) -> None:
        self.real = real

    def __getattr__(self, name: str):
        return getattr(self.real, name)

    def begin(self, write: bool = False, **options):
        if write:
            raise lmdb.Error("mdb_txn_commit: Input/output error")
        return self.real.begin(**options)


def test_a_full_disk_is_told_once_and_decoded_around(evaluated, store: ImageStore, monkeypatch, capsys) -> None:
    loader, check = evaluated
    batches = iter(loader)
    next(batches), next(batches)
    found = environment.opened(store.folder, store.most)
    monkeypatch.setattr(found, "environment", FullDisk(found.environment))
    usage = shutil.disk_usage("/")._replace(free=100)
    monkeypatch.setattr(image_store.shutil, "disk_usage", lambda _: usage)
    check()
    check()
    (warning,) = warnings_of(capsys)
    assert "it cannot be written (the disk is full)" in warning and str(store.folder) in warning
    assert loader._reader.kept.count() == 2  # which are still read


def test_a_store_that_is_removed_during_the_run(evaluated, store: ImageStore, capsys) -> None:
    loader, check = evaluated
    check()
    batches = iter(loader)
    next(batches)
    index.remove(store.folder)
    assert list(store.folder.parent.glob("*store*")) == []
    check()
    check()
    (warning,) = warnings_of(capsys)
    assert "it was removed. Images are decoded instead." in warning
    assert not store.folder.exists()  # nobody made it again
    assert (os.getpid(), store.folder) not in environment._opened  # so the disk has its bytes back


def test_a_store_that_is_removed_while_workers_use_it(
    photographs: Photographs, keep: Keep, preprocessing: Preprocessing, store: ImageStore, capsys
) -> None:
    split = photographs(8)
    loader = EvaluationLoader(split, preprocessing, 1, 2, False, kept=keep(split))
    list(loader)
    index.remove(store.folder)
    plain = EvaluationLoader(split, preprocessing, 1, 0, False)
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(loader, plain, strict=True))
    assert len(warnings_of(capsys)) == 1
    loader.close()


def test_a_disk_that_fails_is_told_as_it_is(store: ImageStore, monkeypatch) -> None:
    found = environment.opened(store.folder, store.most)
    monkeypatch.setattr(found, "environment", FullDisk(found.environment))
    store.write([(bytes(16), b"1")])
    assert store.full == "it cannot be written (mdb_txn_commit: Input/output error)"


def test_what_is_there_stays_as_it_is(store: ImageStore) -> None:
    for value in (b"first", b"second"):
        store.write([(bytes(16), value)])
    with store.reading() as find:
        assert bytes(find(bytes(16)) or b"") == b"first"


@pytest.mark.parametrize("value", [b"", bytes(7), (40).to_bytes(4, "little") * 2 + bytes(3 * 40 * 40 - 1)])
def test_what_is_no_image_is_decoded_anew(evaluated, store: ImageStore, value: bytes) -> None:
    loader, check = evaluated
    store.write([(key.tobytes(), value) for key in loader._reader.kept.keys])
    check()


def test_a_large_batch_is_written_in_parts(
    photographs: Photographs, keep: Keep, store: ImageStore, preprocessing: Preprocessing, monkeypatch
) -> None:
    monkeypatch.setattr(kept, "MOST_WAITING", 20_000)
    written: list[int] = []
    monkeypatch.setattr(store, "write", lambda images: written.append(len(images)))
    split = photographs(12)
    list(EvaluationLoader(split, preprocessing, 12, 0, False, kept=keep(split)))
    assert sum(written) == 12 and 1 < max(written) < 5  # of 4,800 bytes and more each


def test_a_store_that_may_not_grow_keeps_what_it_has(store: ImageStore) -> None:
    store.most = environment.LEAST_MAP
    value = bytes(100_000)
    for number in range(30):
        store.write([(number.to_bytes(16, "big"), value)])
    assert store.full == "it is as large as it may be"
    there = store.count(number.to_bytes(16, "big") for number in range(30))
    assert 5 < there < 10
    assert (store.folder / DATA).stat().st_size <= environment.LEAST_MAP


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"garbage" * 10_000),
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
    ],
)
def test_a_damaged_file_is_found_before_it_is_read(store: ImageStore, damage) -> None:
    for number in range(20):
        store.write([(number.to_bytes(16, "big"), bytes(50_000))])
    store.close()
    damage(store.folder / DATA)
    with pytest.raises(Damaged):
        environment.create(store.folder)
    assert store.count([bytes(16)]) == 0
    assert store.trouble.startswith("its file is ")


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unusable):
        environment.create(tmp_path / "file")


def reading(store: ImageStore, told: multiprocessing.connection.Connection) -> None:
    with store.reading():
        told.send("reading")
        time.sleep(60)


@pytest.fixture
def readers(store: ImageStore):
    """Fork processes that read from the store."""
    started = []

    def start():
        here, there = multiprocessing.Pipe()
        started.append(multiprocessing.get_context("fork").Process(target=reading, args=(store, there)))
        started[-1].start()
        assert here.poll(20) and here.recv() == "reading"
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_reader_that_is_killed_leaves_no_trace_to_those_that_come_later(store: ImageStore, readers) -> None:
    stays, killed = readers(), readers()
    killed.kill()
    killed.join()
    there = environment.opened(store.folder, store.most).environment.readers()
    assert str(stays.pid) in there and str(killed.pid) not in there


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_process_leaves_alone_what_its_parent_has_open(store: ImageStore) -> None:
    store.write([(bytes(16), b"1")])

    def count() -> None:
        os._exit(0 if store.count([bytes(16)]) == 0 and store.trouble else 1)  # LMDB opens nothing twice

    child = multiprocessing.get_context("fork").Process(target=count)
    child.start()
    child.join(20)
    assert child.exitcode == 0
    assert store.count([bytes(16)]) == 1 and not store.trouble


def test_nothing_is_read_while_a_batch_is_written(
    photographs: Photographs, keep: Keep, store: ImageStore, preprocessing: Preprocessing, monkeypatch
) -> None:
    busy: list[bool] = []

    def write(_: object) -> None:
        rows = environment.opened(store.folder, store.most).environment.readers().splitlines()[1:]
        busy.append(any(not row.split()[-1].startswith("-") for row in rows))

    monkeypatch.setattr(store, "write", write)  # which may resize the map, and must not under a transaction
    split = photographs(4)
    list(EvaluationLoader(split, preprocessing, 2, 0, False, kept=keep(split)))
    assert busy == [False, False]


def test_an_image_is_on_the_disk_before_the_store_points_to_it(store: ImageStore) -> None:
    flags = environment.opened(store.folder, store.most).environment.flags()
    assert flags["sync"] and not flags["metasync"] and not flags["writemap"]


def test_a_process_that_was_stopped_in_mid_write_holds_nobody_up(store: ImageStore) -> None:
    store._patience = 0.25
    with locked(store.folder / image_store.WRITE, 0):
        started = time.monotonic()
        for number in range(20):
            store.write([(number.to_bytes(16, "big"), b"1")])
        assert time.monotonic() - started < 2
    assert not store.full and not store.trouble
    store.write([(bytes(16), b"1")])
    assert store.count([bytes(16)]) == 1


def test_a_slow_disk_takes_half_of_the_time_at_most(store: ImageStore, monkeypatch) -> None:
    monkeypatch.setattr(image_store, "SLOW", 0.02)
    clock = [100.0]
    monkeypatch.setattr(image_store.time, "monotonic", lambda: clock[0])
    written = []

    def slow(_: object, images: object) -> None:
        clock[0] += 0.3
        written.append(images)

    monkeypatch.setattr(store, "_write", slow)
    for number in range(20):
        clock[0] += 0.11  # to decode
        store.write([(number.to_bytes(16, "big"), b"1")])
    assert len(written) == 7  # each for 0.3 s, and then not for 0.3 s
    monkeypatch.setattr(store, "_write", lambda _, images: written.append(images))
    for number in range(20):
        clock[0] += 0.1
        store.write([(number.to_bytes(16, "big"), b"1")])
    assert len(written) >= 7 + 17


def test_file_locks(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    first, second = FileLock(file, shared=True), FileLock(file, shared=True)
    with pytest.raises(Locked):
        FileLock(file, shared=False, patience=0.01)
    first.close(), second.close()
    alone = FileLock(file, shared=False)
    with pytest.raises(Locked):
        FileLock(file, shared=True)
    assert alone.is_of(file)
    file.unlink()
    assert not alone.is_of(file)
    FileLock(file, shared=True).close()  # another file of that name
    assert not alone.is_of(file)
    alone.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_lock_that_is_let_go_of_is_free_whoever_was_forked_meanwhile(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock", shared=True)
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    try:
        with pytest.raises(Locked):
            FileLock(tmp_path / "lock", shared=False)
        lock.close()
        FileLock(tmp_path / "lock", shared=False).close()
    finally:
        child.kill()
        child.join()
