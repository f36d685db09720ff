"""What every test stands on: its own folders for runs and caches, no hub, and colors off."""

from __future__ import annotations

import os
import runpy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fgvc_cli.benchmarking.results import Feed, Report, Row, Timing, Work

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: threads that wait for each other make tiny models slow
os.environ.pop("COLUMNS", None)  # readline sets it in the process that the workers of pytest-xdist are children of

WAITING = {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2", "bincount"}
"""Operations whose result the program must wait for."""


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path_factory.mktemp("fgvc")
    monkeypatch.setenv("FGVC_RUNS", str(root / "runs"))
    monkeypatch.setenv("FGVC_DATA", str(root / "data"))
    monkeypatch.setenv("FGVC_CACHE", str(root / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(root / "hub"))


@pytest.fixture(scope="session")
def strict_device() -> type[Any]:
    """A context that counts operations (`operations`) and refuses those that read a value off the device."""
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


MACHINE = {
    "device": "cpu", "device_name": "A Processor", "threads": 2, "cores": 2, "torch": "2.15.0", "torchvision": "0.29",
    "timm": "1.0.31", "python": "3.12.3", "fgvc": "0.1.0", "cuda": None, "date": "2026-11-24T12:00:00",
    "multiply_adds_per_second": 50e9,
}  # fmt: skip
SETTINGS = {
    "image_size": 64, "batch_size": 8, "classes": 100, "precision": "fp32", "channels_last": "auto", "compile": False,
    "recipe": "finetune", "set": [], "seconds": 3.0, "explainers": {}, "epoch": False, "pipeline": False,
}  # fmt: skip


@pytest.fixture(scope="session")
def bench_work() -> Callable[..., Work]:
    """A function that makes a piece of work: milliseconds, images in the batch, rounds, quartiles 1 % to each side."""

    def work(milliseconds: float, images: int = 8, rounds: int = 20, **figures: Any) -> Work:
        return Work(Timing(milliseconds, 0.99 * milliseconds, 1.01 * milliseconds, rounds), images, **figures)

    return work


@pytest.fixture(scope="session")
def bench_rows(bench_work: Callable[..., Work]) -> Callable[..., tuple[Row, ...]]:
    """A function that makes the nine rows of two heads and three optimizers on some backbones, but one that fails."""

    def rows(backbones: Sequence[str] = ("resnet50", "vit_b16"), **more: Any) -> tuple[Row, ...]:
        made = []
        for backbone in backbones:
            for head, cost in (("linear", 1), ("pim", 2), ("cmal", 8)):
                for optimizer, title, passes in (("sgd", "sgd", 1), ("adamw", "adamw", 1), ("sam", "sam over sgd", 2)):
                    fits = (backbone, head) != ("vit_b16", "cmal")
                    update = bench_work(
                        100.0 * cost * passes, multiply_adds=cost * passes * 10**9, peak_memory=cost * 412 * 10**6,
                        matrix_share=0.4, ratio=1 / cost / passes, over_arithmetic=1.0,
                    )  # fmt: skip
                    made.append(
                        Row(
                            backbone, head, optimizer, title, 64, 8,
                            baseline=(head, optimizer) == ("linear", "sgd"),
                            parameters={"backbone": 23_500_000, "head": 200_000 * cost},
                            update=update if fits else None,
                            predict=bench_work(25.0 * cost) if fits else None,
                            failed=None if fits else "cmal needs three maps of different stride",
                            **more,
                        )
                    )  # fmt: skip
        return tuple(made)

    return rows


@pytest.fixture(scope="session")
def bench_report(bench_rows: Callable[..., tuple[Row, ...]]) -> Callable[..., Report]:
    """A function that makes a report of such rows, or of given ones; `machine` and `settings` change some facts."""

    def report(
        rows: Sequence[Row] | None = None,
        feeds: Sequence[Feed] = (),
        machine: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        interrupted: bool = False,
    ) -> Report:
        found = bench_rows() if rows is None else tuple(rows)
        return Report(
            {**MACHINE, **(machine or {})}, {**SETTINGS, **(settings or {})}, found, tuple(feeds), interrupted
        )

    return report


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium, started once; tests that look at pages are skipped where there is none."""
    made = runpy.run_path(str(Path(__file__).with_name("chromium.py")))
    program = made["find_chromium"]()
    if program is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium): the pages are not looked at")
    chromium = made["Chromium"](program, tmp_path_factory.mktemp("chromium"))
    yield chromium
    chromium.close()
