"""Shared by all tests: their own folders for runs and caches, and no hub."""

from __future__ import annotations

import itertools
import os
import runpy
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: several threads slow tiny models down
os.environ.pop("COLUMNS", None)  # readline sets it in the parent process of pytest-xdist workers

WAITING = {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2", "bincount"}
"""Operations that synchronize with the device."""

NUMBERS = itertools.count()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `gpu` where there is no CUDA device."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path_factory.getbasetemp() / f"fgvc{next(NUMBERS)}"  # `mktemp` lists the folders of all tests before
    monkeypatch.setenv("FGVC_RUNS", str(root / "runs"))
    monkeypatch.setenv("FGVC_DATA", str(root / "data"))
    monkeypatch.setenv("FGVC_WEIGHTS", str(root / "weights"))
    monkeypatch.setenv("FGVC_CACHE", str(root / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(root / "hub"))


@pytest.fixture(scope="session", autouse=True)
def figures() -> Iterator[Callable[[pytest.MonkeyPatch], None]]:
    """Leave learning curves and confusion matrices empty, which take half the time of a short training.

    Returns:
        A function that has them drawn during a test.
    """
    from fgvc_cli import viz

    real = {name: getattr(viz, name) for name in ("learning_curves", "confusion_matrix")}
    with pytest.MonkeyPatch.context() as patch:
        for name in real:
            patch.setattr(viz, name, lambda path, *_: path.touch())
        yield lambda patch: [patch.setattr(viz, name, function) for name, function in real.items()] and None


@pytest.fixture(scope="session")
def strict_device() -> type[Any]:
    """A context that counts operations (`operations`) and fails for those that read a value from the device."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class StrictDevice(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.operations: Counter[str] = Counter()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            name = func.overloadpacket.__name__
            by_mask = name in ("index", "index_put", "index_put_") and any(
                index is not None and index.dtype == torch.bool for index in args[1]
            )
            if name in WAITING or by_mask:
                raise AssertionError(f"{func} waits for the device")
            self.operations[str(func)] += 1
            return func(*args, **(kwargs or {}))

    return StrictDevice


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium, started once; without one, tests that render pages are skipped."""
    made = runpy.run_path(str(Path(__file__).with_name("chromium.py")))
    program = made["find_chromium"]()
    if program is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    chromium = made["Chromium"](program, tmp_path_factory.mktemp("chromium"))
    yield chromium
    chromium.close()
