from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts import Split
from fgvc_cli.data import loading, sending
from fgvc_cli.data.images import read_image
from fgvc_cli.data.loading import BatchReader, EvaluationLoader, ImageBatch, TrainingLoader
from fgvc_cli.data.order import BatchRequest
from fgvc_cli.errors import FgvcError, UsageError

MakeSplit = Callable[..., Split]
AUGMENT = AugmentOptions(policy="autoaugment", color_jitter=0.3, erase=0.5)


def training(split: Split, preprocessing, workers: int = 0, **changes: object) -> TrainingLoader:
    arguments = {"augment": AUGMENT, "batch_size": 4, "seed": 3, "workers": workers, "pin_memory": False} | changes
    return TrainingLoader(split, preprocessing, **arguments)


def assert_same_batches(first: Iterable[ImageBatch], second: Iterable[ImageBatch]) -> None:
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))


def break_image(split: Split, index: int) -> None:
    path = split.images[index]
    assert isinstance(path, Path)
    path.write_bytes(path.read_bytes()[:200])


def test_a_batch_is_pixels_labels_and_indices(make_split, preprocessing) -> None:
    split = make_split(10)
    loader = training(split, preprocessing, augment=AugmentOptions(crop="center", flip=0))
    batches = list(loader.epoch(0))
    assert [len(batch.labels) for batch in batches] == [4, 4, 2]
    assert len(loader) == 3
    seen = torch.cat([batch.indices for batch in batches])
    assert sorted(seen.tolist()) == list(range(10))
    assert seen.tolist() != list(range(10))
    for batch in batches:
        assert batch.pixels.dtype == torch.uint8
        assert batch.labels.dtype == batch.indices.dtype == torch.int64
        for pixels, label, index in zip(*batch[:3], strict=True):
            assert label == split.labels[index]
            assert torch.equal(
                pixels, EvaluationLoader(split, preprocessing, 10, 0, False)._reader._pixels(index, None)[0]
            )


def test_pixels_do_not_depend_on_the_number_of_workers(make_split, preprocessing) -> None:
    split = make_split(11)
    loaders = [training(split, preprocessing, workers) for workers in (0, 2)]
    for epoch in (0, 1):
        passes = [list(loader.epoch(epoch)) for loader in loaders]
        assert len(passes[0]) == 3
        assert_same_batches(*passes)
    loaders[1].close()


def test_epochs_differ_and_seeds_differ(make_split, preprocessing) -> None:
    split = make_split(8)
    first = next(training(split, preprocessing, batch_size=8).epoch(0))
    for other in (
        training(split, preprocessing, batch_size=8).epoch(1),
        training(split, preprocessing, batch_size=8, seed=4).epoch(0),
    ):
        batch = next(other)
        assert not torch.equal(batch.indices, first.indices)
        # the same image is augmented differently
        assert not torch.equal(batch.pixels[batch.indices.argsort()], first.pixels[first.indices.argsort()])


@pytest.mark.parametrize("workers", [0, 1])
def test_resuming_in_mid_epoch(make_split, preprocessing, workers: int) -> None:
    split = make_split(14)
    whole = list(training(split, preprocessing).epoch(2))
    loader = training(split, preprocessing, workers)
    stopped = loader.epoch(2)
    assert_same_batches([next(stopped), next(stopped)], whole[:2])
    assert loader.position == 2
    # the same loader, although batches of the abandoned pass are still under way, and a new one
    assert_same_batches(list(loader.epoch(2, skip=2)), whole[2:])
    assert_same_batches(training(split, preprocessing, workers).epoch(2, skip=2), whole[2:])
    assert list(loader.epoch(2, skip=4)) == []
    loader.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_global_random_states_are_untouched(make_split, preprocessing, workers: int) -> None:
    split = make_split(8)

    def numbers() -> tuple[float, float, float]:
        return float(torch.rand(())), random.random(), float(np.random.random())

    def seed() -> None:
        torch.manual_seed(7), random.seed(7), np.random.seed(7)

    seed()
    expected = [numbers() for _ in range(6)]
    seed()
    found = [numbers()]
    loader = training(split, preprocessing, workers)
    found += [numbers() for _ in loader.epoch(0)]
    found += [numbers() for _ in EvaluationLoader(split, preprocessing, 4, workers, False)]
    found.append(numbers())
    assert found == expected
    loader.close()


def test_unreadable_images_are_skipped_with_one_warning(make_split, preprocessing, caplog) -> None:
    split = make_split(12)
    break_image(split, 5)
    loader = training(split, preprocessing, 1)
    for epoch in range(2):
        batches = list(loader.epoch(epoch))
        assert sorted(len(batch.labels) for batch in batches) == [3, 4, 4]
        assert 5 not in torch.cat([batch.indices for batch in batches])
        assert all(len(batch.pixels) == len(batch.labels) for batch in batches)
    assert list(loader.failures) == ["005.png"] and "truncated" in loader.failures["005.png"]
    (record,) = caplog.records
    assert record.levelname == "WARNING" and str(split.images[5]) in record.getMessage()
    loader.close()


def test_a_batch_left_with_one_image_is_skipped_but_counted(make_split, preprocessing) -> None:
    split = make_split(12)
    loader = training(split, preprocessing)
    second = list(loader.epoch(0))[1].indices
    for index in second[:3].tolist():
        break_image(split, index)
    loader = training(split, preprocessing)
    epoch = loader.epoch(0)
    next(epoch)
    assert loader.position == 1
    third = next(epoch)
    assert loader.position == 3
    assert len(third.labels) == 4
    assert next(epoch, None) is None


def test_strict_stops_at_the_first_unreadable_image(make_split, preprocessing) -> None:
    split = make_split(8)
    break_image(split, 2)
    for batches in (
        training(split, preprocessing, 1, strict=True).epoch(0),
        EvaluationLoader(split, preprocessing, 4, 0, False, strict=True),
    ):
        with pytest.raises(FgvcError, match=r"002\.png.*`strict_data`"):
            list(batches)


def test_no_readable_image_is_an_error(make_split, preprocessing) -> None:
    split = make_split(6)
    for index in range(6):
        break_image(split, index)
    with pytest.raises(FgvcError, match="6 of its 6 images"):
        list(training(split, preprocessing).epoch(0))


def test_too_few_images_and_a_batch_size_of_zero(make_split, preprocessing) -> None:
    with pytest.raises(FgvcError, match="at least 2 images.* 1$"):
        training(make_split(1), preprocessing)
    with pytest.raises(UsageError, match="`batch_size=0`"):
        training(make_split(3, name="other"), preprocessing, batch_size=0)


def test_evaluation_gives_the_whole_split_in_order_without_augmentation(make_split, preprocessing) -> None:
    split = make_split(9)
    break_image(split, 8)
    loader = EvaluationLoader(split, preprocessing, 4, 1, False)
    assert len(loader) == 3
    for _ in range(2):
        batches = list(loader)
        assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(8))
        assert torch.cat([batch.labels for batch in batches]).tolist() == [0, 1] * 4
    assert list(loader.failures) == ["008.png"]
    loader.close()
    expected = torch.stack([preprocessing(read_image(path)) for path in split.images[:8]])
    assert torch.equal(torch.cat([batch.pixels for batch in batches]), expected)


def test_images_in_memory(preprocessing) -> None:
    arrays = [np.full((24, 30, 3), value, np.uint8) for value in (0, 100, 200)]
    split = Split("train", arrays, [0, 1, 0], ["a", "b", "c"])
    (batch,) = EvaluationLoader(split, preprocessing, 4, 0, False)
    assert batch.pixels.float().mean((1, 2, 3)).tolist() == [0, 100, 200]


def test_the_reader_can_be_pickled_for_a_spawned_worker(make_split, preprocessing) -> None:
    reader = BatchReader(make_split(4), preprocessing, AUGMENT, seed=1)
    request = BatchRequest(0, np.arange(4), np.zeros(4, np.int64))
    copy = pickle.loads(pickle.dumps(reader))
    assert torch.equal(copy[pickle.loads(pickle.dumps(request))].batch.pixels, reader[request].batch.pixels)


@pytest.mark.slow
def test_spawned_workers_give_the_same_pixels(make_split, preprocessing) -> None:
    split = make_split(8)
    expected = list(training(split, preprocessing).epoch(0))
    spawned = training(split, preprocessing, 1, start_method="spawn")
    assert_same_batches(spawned.epoch(0), expected)
    spawned.close()


def workers_besides(before: set[int]) -> list[multiprocessing.process.BaseProcess]:
    return [child for child in multiprocessing.active_children() if child.pid not in before]


@pytest.fixture
def others() -> set[int]:
    """Processes that earlier tests left."""
    return {child.pid for child in multiprocessing.active_children() if child.pid is not None}


def test_workers_persist_over_epochs_and_ignore_ctrl_c(make_split, preprocessing, others) -> None:
    loader = training(make_split(16), preprocessing, 1)
    expected = list(training(loader.split, preprocessing).epoch(0))
    epoch = loader.epoch(0)
    first = next(epoch)
    (worker,) = workers_besides(others)
    assert os.getpgid(worker.pid) != os.getpgid(0)
    os.kill(worker.pid, signal.SIGINT)
    assert_same_batches([first, *epoch], expected)
    list(loader.epoch(1))
    assert [child.pid for child in workers_besides(others)] == [worker.pid]
    loader.close()
    assert workers_besides(others) == []


def test_a_worker_that_is_killed(make_split, preprocessing, others, monkeypatch) -> None:
    # torch installs a handler once a process, which would raise anywhere; as if no worker had been started yet
    monkeypatch.setattr(torch.utils.data._utils.signal_handling, "_SIGCHLD_handler_set", False)
    handler = signal.getsignal(signal.SIGCHLD)
    loader = training(make_split(40), preprocessing, 1)
    expected = list(training(loader.split, preprocessing).epoch(0))
    epoch = loader.epoch(0)
    next(epoch)
    assert signal.getsignal(signal.SIGCHLD) == handler
    (worker,) = workers_besides(others)
    worker.kill()
    worker.join()
    with pytest.raises(FgvcError, match=r"killed.*memory.*`workers`"):
        list(epoch)
    assert_same_batches(loader.epoch(0), expected)  # with a new worker
    loader.close()


def test_batches_arrive_without_shared_memory(make_split, preprocessing, monkeypatch, caplog) -> None:
    loader = training(make_split(10), preprocessing, 2)
    expected = list(training(loader.split, preprocessing).epoch(0))

    def full(_: object) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(sending, "ForkingPickler", SimpleNamespace(dumps=full))  # in the workers too, which are forked
    assert_same_batches(loader.epoch(0), expected)
    assert len(caplog.messages) == 1 and "--shm-size" in caplog.messages[0]
    loader.close()


@pytest.mark.parametrize("received", [0, 2])
def test_a_process_without_open_files_loads_by_itself(make_split, preprocessing, monkeypatch, caplog, received) -> None:
    loader = training(make_split(10), preprocessing, 2)
    expected = list(training(loader.split, preprocessing).epoch(0))
    left = [received]
    value = sending.Sent.value

    def receive(sent: sending.Sent) -> object:
        if not left[0]:
            raise OSError(errno.EMFILE, "Too many open files")
        left[0] -= 1
        return value(sent)

    monkeypatch.setattr(sending.Sent, "value", receive)
    assert_same_batches(loader.epoch(0), expected)
    assert len(caplog.messages) == 1 and "ulimit" in caplog.messages[0]
    assert_same_batches(loader.epoch(0), expected)


@pytest.mark.parametrize("started", [0, 2])
def test_without_workers_this_process_loads(
    make_split, preprocessing, monkeypatch, caplog, capfd, started, others
) -> None:
    loader = training(make_split(10), preprocessing, 2)
    expected = list(training(loader.split, preprocessing).epoch(0))
    queue, left = torch.multiprocessing.Queue, [started]

    def new() -> object:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        return queue()

    monkeypatch.setattr(torch.multiprocessing, "Queue", new)
    assert_same_batches(loader.epoch(0), expected)
    assert len(caplog.messages) == 1 and "--shm-size" in caplog.messages[0]
    assert capfd.readouterr().err == "" and workers_besides(others) == []


def test_too_many_open_files_are_no_unreadable_image(make_split, preprocessing, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    loader = training(make_split(10), preprocessing)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(FgvcError, match="ulimit"):
        list(loader.epoch(0))


MEMORY = """
import multiprocessing, sys
from pathlib import Path
import numpy as np
from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.data.loading import TrainingLoader
from fgvc_cli.data.order import Batch

def own_memory(pid):  # private memory in bytes
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))

before, count = own_memory("self"), 100_000
names = [f"class-{i % 200}/image-{i}.jpg" for i in range(count)]
images = [Path(sys.argv[1])] * 2 + [Path("/data/birds/train") / name for name in names[2:]]
split = Split("train", images, [i % 200 for i in range(count)], names)
loader = TrainingLoader(split, Preprocessing(32, 36, (.5,) * 3, (.2,) * 3), AugmentOptions(), 16, 0, 1, False)
index = own_memory("self") - before
batches = loader._load([Batch(np.array([0, 1] * 8), np.zeros(16, np.int64))] * 300, 0)
for number, batch in enumerate(batches):
    (worker,) = multiprocessing.active_children()
    if number == 30:
        early = own_memory(worker.pid)
    if number == 290:
        print(index, early, own_memory(worker.pid))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads memory from Linux's /proc")
def test_the_index_of_100_000_images_is_small_and_not_copied(make_split) -> None:
    path = make_split(1).images[0]
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True, timeout=120
    )
    index, early, late = map(int, run.stdout.split())
    assert index < 300e6
    assert late < 60e6  # private memory of the worker
    assert late - early < 10e6


def test_a_worker_reports_all_exceptions_but_broken_connections(capsys) -> None:
    for error in (ConnectionResetError(), BrokenPipeError(), EOFError()):
        loading._excepthook(type(error), error, None)
    assert not capsys.readouterr().err
    loading._excepthook(ValueError, ValueError("a real error"), None)
    assert "a real error" in capsys.readouterr().err
