"""Decoding in worker processes yields a result for every image, whatever happens to a process."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgvc_cli.data.acquisition import decoding
from fgvc_cli.data.acquisition.decoding import DecodeResult, decode_all


class Deadly:
    """An "image" that kills the process it is sent to."""

    def __reduce__(self):
        return _die, (os.getpid(),)


def _die(parent: int) -> None:
    assert os.getpid() != parent
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i}.png" for i in range(40)]
    for path in paths:
        Image.new("RGB", (40, 30)).save(path)
    paths[7].write_bytes(b"")
    return [*paths, tmp_path / "missing.png"]


def check(results: dict[int, DecodeResult], images: list[Path]) -> None:
    assert sorted(results) == list(range(len(images)))
    assert results[7].cause == "the file is empty"
    assert results[40].cause == "file not found"
    assert results[0] == DecodeResult("", 40, 30, images[0].stat().st_size)


@pytest.mark.parametrize("workers", [0, 1])
def test_every_image_has_a_result(images, workers):
    results = dict(decode_all(images, workers))
    check(results, images)
    assert sum(not result.cause for result in results.values()) == 39


def test_images_that_kill_their_process_are_found(images):
    deadly = (20, 21)
    mixed: list = [Deadly() if i in deadly else image for i, image in enumerate(images)]
    results = dict(decode_all(mixed, 2))
    check(results, images)
    killed = [i for i, result in results.items() if "was killed or crashed" in result.cause]
    assert sorted(killed) == list(deadly)
    assert sum(not result.cause for result in results.values()) == 39 - len(deadly)


def test_a_process_killed_from_outside_loses_no_image(images, monkeypatch):
    made: list = []
    new_pool = decoding._pool

    def watched(workers: int):
        made.append(new_pool(workers))
        return made[-1]

    monkeypatch.setattr(decoding, "_pool", watched)
    found = []
    for index, result in decode_all(images, 2):
        if not found:
            for process in list(made[0]._processes.values()):
                process.kill()
        found.append((index, result))
    assert len(found) == len(images) and len(made) > 1
    check(dict(found), images)


def test_an_image_in_memory(images):
    array = np.zeros((5, 6, 3), np.uint8)
    assert dict(decode_all([array, np.zeros((2, 2), np.uint8)], 1))[0] == DecodeResult("", 6, 5, 90)


def test_an_interrupt_leaves_no_process_behind(images):
    before = threading.active_count()
    results = decode_all(images, 2)
    next(results)
    results.close()  # type: ignore[attr-defined]
    until = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before
