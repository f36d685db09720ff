"""Decode every image in worker processes; find the one that crashes its process."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fgvc_cli.data.images import ImageError, read_image

CHUNK = 8
"""Images that a process is given at a time."""

AHEAD = 2
"""Chunks given out ahead, by process."""

Image = Path | np.ndarray


class Outcome(NamedTuple):
    """What became of an image: why it cannot be read (empty if it can), its upright size in pixels, its bytes."""

    cause: str
    width: int = 0
    height: int = 0
    size: int = 0


def decode(image: Image) -> Outcome:
    """Decode one image."""
    try:
        size = image.nbytes if isinstance(image, np.ndarray) else image.stat().st_size
        pixels = read_image(image)
    except ImageError as error:
        return Outcome(error.cause)
    except FileNotFoundError:
        return Outcome("there is no such file.")
    except MemoryError:
        return Outcome("there is not enough memory to decode it.")
    except OSError as error:
        return Outcome(f"it cannot be read: {error.strerror}.")
    return Outcome("", pixels.width, pixels.height, size)


def decode_all(images: Sequence[Image], workers: int) -> Iterator[tuple[int, Outcome]]:
    """Decode images and give what became of each, as they are done.

    Args:
        images: files, or uint8 arrays H,W,3.
        workers: processes; 0 decodes in this one, where an image that crashes the decoder ends the program.
    """
    if workers == 0:
        yield from ((index, decode(image)) for index, image in enumerate(images))
        return
    starts = range(0, len(images), CHUNK)
    waiting = deque(range(start, min(start + CHUNK, len(images))) for start in starts)
    while waiting:
        suspects = yield from _in_processes(images, waiting, workers)
        yield from _one_by_one(images, suspects)


def _in_processes(
    images: Sequence[Image], waiting: deque[range], workers: int
) -> Generator[tuple[int, Outcome], None, list[int]]:
    """Decode what is waiting until it is done or a process dies; returns what was under way then."""
    given: dict[Future[list[Outcome]], range] = {}
    pool = _pool(workers)
    try:
        while waiting or given:
            while waiting and len(given) < AHEAD * workers:
                given[pool.submit(_decode_chunk, [images[index] for index in waiting[0]])] = waiting[0]
                waiting.popleft()
            wait(given, return_when="FIRST_COMPLETED")
            for future in [future for future in given if future.done()]:
                outcomes = future.result()
                yield from zip(given.pop(future), outcomes, strict=True)
    except BrokenProcessPool:
        finished = [future for future in given if future.done() and future.exception() is None]
        for future in finished:
            yield from zip(given.pop(future), future.result(), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)
    return [index for chunk in given.values() for index in chunk]


def _one_by_one(images: Sequence[Image], indices: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
    """Decode images one at a time in a process of their own, so that it is known which one brings it down."""
    pool = _pool(1)
    try:
        for index in indices:
            try:
                (outcome,) = pool.submit(_decode_chunk, [images[index]]).result()
            except BrokenProcessPool:
                outcome = Outcome("the process that decoded it was killed or crashed; it may need too much memory.")
                pool = _pool(1)
            yield index, outcome
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, initializer=_prepare_process)


def _prepare_process() -> None:
    """Leave interruptions to the parent, which says what was found until then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent's handler, which forking passed on, would not end it


def _decode_chunk(images: Sequence[Image]) -> list[Outcome]:
    return [decode(image) for image in images]
