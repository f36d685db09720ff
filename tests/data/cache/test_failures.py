"""Several processes, killed ones, full disks, damaged files, removed caches: images are right regardless."""

from __future__ import annotations

import hashlib
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import lmdb
import pytest
import torch

from fgvc_cli.data.cache import index, store
from fgvc_cli.data.cache import store as image_store
from fgvc_cli.data.cache.store import DATA, CacheDamaged, CacheUnusable, DecodeCache
from fgvc_cli.data.loading import EvaluationLoader
from fgvc_cli.files import FileLock, Locked, locked


def write_many(cache, go: Event, first: int, count: int, value_bytes: int) -> None:
    """Write batches of four values; in a forked process."""
    go.wait(60)
    store.INITIAL_MAP_SIZE = 2**22
    cache.max_size = 2**31
    for number in range(first, first + count):
        key = number.to_bytes(16, "big")
        cache.write([(key + b"%d" % i, hashlib.blake2b(key).digest() * (value_bytes // 64)) for i in range(4)])
        assert not cache.error, cache.error


@pytest.fixture
def fork() -> Iterator[Callable[..., multiprocessing.Process]]:
    """A function that starts a forked process, which is killed at the end of the test."""
    started = []

    def start(target: Callable[..., None], *args: object) -> multiprocessing.Process:
        process = multiprocessing.get_context("fork").Process(target=target, args=args)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def check_all(cache) -> int:
    """Check every value of a cache against its key, and return their number."""
    count = 0
    with store.open_environment(cache.folder, cache.max_size).env.begin(buffers=True) as transaction:
        for key, value in transaction.cursor():
            pattern = hashlib.blake2b(bytes(key)[:16]).digest()
            assert bytes(value) == pattern * (len(value) // 64)
            count += 1
    return count


def test_two_processes_fill_a_cache_concurrently(cache, fork) -> None:
    # some of the same images, and more than the initial map, so that each meets the other's larger map
    cache.max_size = store.MIN_MAP_SIZE
    first, go = (0).to_bytes(16, "big") + b"0", multiprocessing.Event()
    writers = [fork(write_many, cache, go, start, 40, 2**16) for start in (0, 20)]
    assert cache.count([first]) == 0  # opens it here, which forked processes must not inherit
    go.set()
    for process in writers:
        process.join(60)
        assert process.exitcode == 0
    assert cache.count([first]) == 1  # the map was too small when it was opened
    assert check_all(cache) == 4 * 60


def test_a_killed_writer_leaves_whole_images_and_no_lock(cache, fork) -> None:
    go = multiprocessing.Event()
    go.set()
    killed = fork(write_many, cache, go, 0, 10_000, 2**16)
    deadline = time.monotonic() + 60
    while cache.count([(3).to_bytes(16, "big") + b"0"]) == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join(10)
    before = check_all(cache)
    assert before >= 16 and before % 4 == 0  # a batch is written completely or not at all
    key = b"after the killed"
    cache.write([(key + b"0", hashlib.blake2b(key).digest())])  # nobody holds the lock
    assert not cache.error and check_all(cache) == before + 1


@pytest.fixture
def evaluated(photographs, cached, preprocessing):
    """A loader of six images, one per batch, and a check of its pixels."""
    split = photographs(6)
    loader = EvaluationLoader(split, preprocessing, 1, 0, False, cached=cached(split))
    expected = [batch.pixels for batch in EvaluationLoader(split, preprocessing, 1, 0, False)]

    def check() -> None:
        assert all(torch.equal(batch.pixels, pixels) for batch, pixels in zip(loader, expected, strict=True))

    return loader, check


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


class FullDisk:
    """An environment whose commits fail as on a full disk."""

    def __init__(self, real) -> None:
        self.real = real

    def __getattr__(self, name: str):
        return getattr(self.real, name)

    def begin(self, write=False, **options):
        if write:
            raise lmdb.Error("mdb_txn_commit: Input/output error")
        return self.real.begin(**options)


def test_a_full_disk_gives_one_warning_and_images_are_decoded(evaluated, cache, monkeypatch, caplog) -> None:
    loader, check = evaluated
    batches = iter(loader)
    next(batches), next(batches)
    found = store.open_environment(cache.folder, cache.max_size)
    monkeypatch.setattr(found, "env", FullDisk(found.env))
    failing = DecodeCache(cache.folder, cache.max_size)
    failing.write([(bytes(16), b"1")])
    assert "Input/output error" in failing.write_error
    usage = shutil.disk_usage("/")._replace(free=100)
    monkeypatch.setattr(image_store.shutil, "disk_usage", lambda _: usage)
    check()
    check()
    (warning,) = warnings_of(caplog)
    assert "disk is full" in warning and str(cache.folder) in warning
    assert loader._reader.cached.count() == 2  # which are still read


def test_a_cache_removed_during_the_run(evaluated, cache, caplog) -> None:
    loader, check = evaluated
    check()
    batches = iter(loader)
    next(batches)
    index.remove(cache.folder)
    assert list(cache.folder.parent.glob("*cache*")) == []
    check()
    check()
    (warning,) = warnings_of(caplog)
    assert "it was removed. Images are decoded instead." in warning
    assert not cache.folder.exists()  # nobody made it again
    assert (os.getpid(), cache.folder) not in store._open_environments  # so the disk has its bytes back


def test_existing_images_are_not_overwritten(cache) -> None:
    for value in (b"first", b"second"):
        cache.write([(bytes(16), value)])
    with cache.reading() as find:
        assert bytes(find(bytes(16)) or b"") == b"first"


@pytest.mark.parametrize("value", [b"", bytes(7), (40).to_bytes(4, "little") * 2 + bytes(3 * 40 * 40 - 1)])
def test_an_invalid_value_is_decoded_again(evaluated, cache, value: bytes) -> None:
    loader, check = evaluated
    cache.write([(key.tobytes(), value) for key in loader._reader.cached.keys])
    check()


def test_a_large_batch_is_written_in_parts(photographs, cached, cache, preprocessing, monkeypatch) -> None:
    monkeypatch.setattr(image_store, "MAX_PENDING", 20_000)
    written: list[int] = []
    monkeypatch.setattr(cache, "write", lambda images: written.append(len(images)))
    split = photographs(12)
    list(EvaluationLoader(split, preprocessing, 12, 0, False, cached=cached(split)))
    assert sum(written) == 12 and 1 < max(written) < 5  # of 4,800 bytes and more each


def test_a_full_cache_keeps_its_images(cache) -> None:
    cache.max_size = store.MIN_MAP_SIZE
    value = bytes(100_000)
    for number in range(30):
        cache.write([(number.to_bytes(16, "big"), value)])
    assert cache.write_error == "it has reached its maximum size"
    there = cache.count(number.to_bytes(16, "big") for number in range(30))
    assert 5 < there < 10
    assert (cache.folder / DATA).stat().st_size <= store.MIN_MAP_SIZE


@pytest.mark.parametrize("size", [None, 500_000, 5000])
def test_a_damaged_file_is_found_before_it_is_read(cache, size) -> None:
    cache.write([(number.to_bytes(16, "big"), bytes(50_000)) for number in range(20)])
    cache.close()
    data = (cache.folder / DATA).read_bytes()
    (cache.folder / DATA).write_bytes(data[:size] if size else b"garbage" * 10_000)
    with pytest.raises(CacheDamaged):
        store.create(cache.folder)
    assert cache.count([bytes(16)]) == 0
    assert cache.read_error.startswith("its file is ")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheUnusable):
        store.create(tmp_path / "file")


def read_forever(cache, connection: multiprocessing.connection.Connection) -> None:
    with cache.reading():
        connection.send("reading")
        time.sleep(60)


def test_a_killed_reader_leaves_no_slot_behind(cache, fork) -> None:
    readers = []
    for _ in range(2):
        here, there = multiprocessing.Pipe()
        readers.append(fork(read_forever, cache, there))
        assert here.poll(20)
    readers[1].kill()
    readers[1].join()
    slots = store.open_environment(cache.folder, cache.max_size).env.readers()
    assert str(readers[0].pid) in slots and str(readers[1].pid) not in slots


def test_a_forked_process_does_not_use_its_parents_environment(cache, fork) -> None:
    cache.write([(bytes(16), b"1")])

    def count() -> None:
        os._exit(0 if cache.count([bytes(16)]) == 0 and cache.read_error else 1)  # LMDB opens nothing twice

    child = fork(count)
    child.join(20)
    assert child.exitcode == 0
    assert cache.count([bytes(16)]) == 1 and not cache.error


def test_nothing_is_read_while_a_batch_is_written(photographs, cached, cache, preprocessing, monkeypatch) -> None:
    busy: list[bool] = []

    def write(_: object) -> None:
        rows = store.open_environment(cache.folder, cache.max_size).env.readers().splitlines()[1:]
        busy.append(any(not row.split()[-1].startswith("-") for row in rows))

    monkeypatch.setattr(cache, "write", write)  # which may resize the map, and must not under a transaction
    split = photographs(4)
    list(EvaluationLoader(split, preprocessing, 2, 0, False, cached=cached(split)))
    assert busy == [False, False]


def test_data_is_synced_before_the_index(cache) -> None:
    flags = store.open_environment(cache.folder, cache.max_size).env.flags()
    assert flags["sync"] and not flags["metasync"] and not flags["writemap"]


def test_a_process_stopped_in_mid_write_does_not_block_others(cache, monkeypatch) -> None:
    cache._patience = 0.05
    waited: list[float] = []
    monkeypatch.setattr(image_store, "locked", lambda file, timeout: waited.append(timeout) or locked(file, timeout))
    with locked(cache.folder / image_store.WRITE_LOCK, 0):
        for number in range(20):
            cache.write([(number.to_bytes(16, "big"), b"1")])
    assert waited == [0.05, *[0.0] * 19]  # one wait for all
    assert not cache.write_error and not cache.read_error
    cache.write([(bytes(16), b"1")])
    assert cache.count([bytes(16)]) == 1


def test_writing_to_a_slow_disk_takes_at_most_half_of_the_time(cache, monkeypatch) -> None:
    monkeypatch.setattr(image_store, "SLOW", 0.02)
    clock = [100.0]
    monkeypatch.setattr(image_store.time, "monotonic", lambda: clock[0])
    written = []

    def slow(_: object, images: object) -> None:
        clock[0] += 0.3
        written.append(images)

    monkeypatch.setattr(cache, "_write", slow)
    for number in range(20):
        clock[0] += 0.11  # to decode
        cache.write([(number.to_bytes(16, "big"), b"1")])
    assert len(written) == 7  # each for 0.3 s, and then not for 0.3 s
    monkeypatch.setattr(cache, "_write", lambda _, images: written.append(images))
    for number in range(20):
        clock[0] += 0.1
        cache.write([(number.to_bytes(16, "big"), b"1")])
    assert len(written) >= 7 + 17


def test_file_locks(tmp_path: Path, fork) -> None:
    file = tmp_path / "lock"
    first, second = FileLock(file, shared=True), FileLock(file, shared=True)
    with pytest.raises(Locked):
        FileLock(file, shared=False, timeout=0.01)
    first.close(), second.close()
    exclusive = FileLock(file, shared=False)
    with pytest.raises(Locked):
        FileLock(file, shared=True)
    assert exclusive.is_of(file)
    file.unlink()
    assert not exclusive.is_of(file)
    other = FileLock(file, shared=True)  # another file of that name
    assert not exclusive.is_of(file)
    exclusive.close()
    fork(time.sleep, 60)  # which inherits the lock
    with pytest.raises(Locked):
        FileLock(file, shared=False)
    other.close()
    FileLock(file, shared=False).close()
