"""Around a check: it begins from a fixed seed, and leaves generators, threads and gradient mode as they were."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Draw from a fixed seed, on one thread, with gradients enabled, and put back what was before.

    Threads that wait for each other make tiny models slow, and sums in another order make results differ.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    python, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(python)
        np.random.set_state(arrays)


def isolated(run: Callable[[], None]) -> Callable[[], None]:
    """Return a function that runs within `seeded`."""

    def inside() -> None:
        with seeded():
            run()

    return inside
