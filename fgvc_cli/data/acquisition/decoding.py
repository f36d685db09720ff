"""Decode images in worker processes, and find those that crash their process."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fgvc_cli.contracts import EncodedImage
from fgvc_cli.data.images import ImageError, read_image, stored_size

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

CHUNK = 8
"""Images per task of a process."""

AHEAD = 2
"""Chunks in flight per process."""

Image = Path | EncodedImage | np.ndarray


class DecodeResult(NamedTuple):
    """Why an image cannot be read (empty if it can), its upright size in pixels, its size in bytes, and measures."""

    cause: str
    width: int = 0
    height: int = 0
    size: int = 0
    measured: Any = None


Measure = Callable[["PILImage"], Any] | None
"""What else to compute of a decoded image: a function that worker processes can import."""


def decode(image: Image, measure: Measure = None) -> DecodeResult:
    """Decode one image, and measure it."""
    try:
        size = stored_size(image)
        pixels = read_image(image)
    except ImageError as error:
        return DecodeResult(error.cause)
    except FileNotFoundError:
        return DecodeResult("file not found")
    except MemoryError:
        return DecodeResult("not enough memory to decode it")
    except OSError as error:
        return DecodeResult(f"cannot be read: {error.strerror}")
    return DecodeResult("", pixels.width, pixels.height, size, None if measure is None else measure(pixels))


def decode_all(images: Sequence[Image], workers: int, measure: Measure = None) -> Iterator[tuple[int, DecodeResult]]:
    """Decode images, and yield (index, result) in the order of completion.

    Args:
        images: files, or uint8 arrays H,W,3.
        workers: number of processes; 0 decodes in this one, where an image that crashes the decoder ends the program.
        measure: what else to compute of each image.
    """
    if workers == 0:
        yield from ((index, decode(image, measure)) for index, image in enumerate(images))
        return
    starts = range(0, len(images), CHUNK)
    waiting = deque(range(start, min(start + CHUNK, len(images))) for start in starts)
    while waiting:
        suspects = yield from _in_parallel(images, waiting, workers, measure)
        yield from _one_by_one(images, suspects, measure)


def _in_parallel(
    images: Sequence[Image], waiting: deque[range], workers: int, measure: Measure
) -> Generator[tuple[int, DecodeResult], None, list[int]]:
    """Decode waiting chunks until all are done or a process dies; return the images in flight at that time."""
    running: dict[Future[list[DecodeResult]], range] = {}
    pool = _pool(workers)
    try:
        while waiting or running:
            while waiting and len(running) < AHEAD * workers:
                chunk = [images[index] for index in waiting[0]]
                running[pool.submit(_decode_chunk, chunk, measure)] = waiting[0]
                waiting.popleft()
            wait(running, return_when="FIRST_COMPLETED")
            for future in [future for future in running if future.done()]:
                results = future.result()
                yield from zip(running.pop(future), results, strict=True)
    except BrokenProcessPool:
        finished = [future for future in running if future.done() and future.exception() is None]
        for future in finished:
            yield from zip(running.pop(future), future.result(), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)
    return [index for chunk in running.values() for index in chunk]


def _one_by_one(
    images: Sequence[Image], indices: Sequence[int], measure: Measure
) -> Iterator[tuple[int, DecodeResult]]:
    """Decode images one at a time in a separate process, to find the one that crashes it."""
    pool = _pool(1)
    try:
        for index in indices:
            try:
                (result,) = pool.submit(_decode_chunk, [images[index]], measure).result()
            except BrokenProcessPool:
                result = DecodeResult("the process that decoded it was killed or crashed; it may need too much memory")
                pool = _pool(1)
            yield index, result
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, initializer=_prepare_process)


def _prepare_process() -> None:
    """Leave interrupts to the parent, which reports the results so far."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the handler inherited from the parent, which would not exit


def _decode_chunk(images: Sequence[Image], measure: Measure) -> list[DecodeResult]:
    return [decode(image, measure) for image in images]
