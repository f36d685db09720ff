"""Decoding every image in processes: all are told of, whatever becomes of a process."""

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
from fgvc_cli.data.acquisition.decoding import Outcome, decode_all


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


def check(outcomes: dict[int, Outcome], images: list[Path]) -> None:
    assert sorted(outcomes) == list(range(len(images)))
    assert outcomes[7].cause == "the file is empty."
    assert outcomes[40].cause == "there is no such file."
    assert outcomes[0] == Outcome("", 40, 30, images[0].stat().st_size)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_image_is_told_of(images, workers):
    outcomes = dict(decode_all(images, workers))
    check(outcomes, images)
    assert sum(not outcome.cause for outcome in outcomes.values()) == 39


def test_images_that_kill_their_process_are_named_and_no_others(images):
    deadly = (3, 20, 21)
    mixed: list = [Deadly() if i in deadly else image for i, image in enumerate(images)]
    outcomes = dict(decode_all(mixed, 2))
    check(outcomes, images)
    killed = [i for i, outcome in outcomes.items() if "was killed or crashed" in outcome.cause]
    assert sorted(killed) == list(deadly)
    assert sum(not outcome.cause for outcome in outcomes.values()) == 39 - len(deadly)


def test_a_process_that_is_killed_from_outside_costs_nothing(images, monkeypatch):
    made: list = []
    new_pool = decoding._pool

    def watched(workers: int):
        made.append(new_pool(workers))
        return made[-1]

    monkeypatch.setattr(decoding, "_pool", watched)
    found = []
    for index, outcome in decode_all(images, 2):
        if not found:
            for process in list(made[0]._processes.values()):
                process.kill()
        found.append((index, outcome))
    assert len(found) == len(images) and len(made) > 1
    check(dict(found), images)


def test_an_image_in_memory(images):
    array = np.zeros((5, 6, 3), np.uint8)
    assert dict(decode_all([array, np.zeros((2, 2), np.uint8)], 1))[0] == Outcome("", 6, 5, 90)


def test_an_interruption_leaves_no_process_behind(images):
    before = threading.active_count()
    outcomes = decode_all(images, 2)
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    until = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before
