"""Made-up results, and the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fgvc_cli.benchmarking.results import Feed, Report, Row, Timing, Work
from fgvc_cli.data import loading
from fgvc_cli.data.cache import store

MACHINE = {
    "device": "cpu", "device_name": "A Processor", "threads": 2, "cores": 2, "torch": "2.15.0", "torchvision": "0.29",
    "timm": "1.0.31", "python": "3.12.3", "fgvc": "0.1.0", "cuda": None, "date": "2026-11-24T12:00:00",
    "macs_per_second": 50e9,
}  # fmt: skip
SETTINGS = {
    "image_size": 64, "batch_size": 8, "classes": 100, "precision": "fp32", "channels_last": "auto", "compile": False,
    "recipe": "finetune", "set": [], "seconds": 3.0, "explainers": {}, "epoch": False, "pipeline": False,
}  # fmt: skip


@pytest.fixture(scope="session")
def make_work() -> Callable[..., Work]:
    """Makes a measurement from milliseconds and images per batch, with quartiles 1 % below and above."""

    def work(milliseconds: float, images: int = 8, rounds: int = 20, **figures: Any) -> Work:
        return Work(Timing(milliseconds, 0.99 * milliseconds, 1.01 * milliseconds, rounds), images, **figures)

    return work


@pytest.fixture(scope="session")
def make_rows(make_work: Callable[..., Work]) -> Callable[..., tuple[Row, ...]]:
    """Makes nine rows per backbone, of three heads and three optimizers; CMAL fails on vit_b16."""

    def rows(backbones: Sequence[str] = ("resnet50", "vit_b16"), **more: Any) -> tuple[Row, ...]:
        made = []
        for backbone in backbones:
            for head, cost in (("linear", 1), ("pim", 2), ("cmal", 8)):
                for optimizer, title, passes in (("sgd", "sgd", 1), ("adamw", "adamw", 1), ("sam", "sam over sgd", 2)):
                    fits = (backbone, head) != ("vit_b16", "cmal")
                    update = make_work(
                        100.0 * cost * passes, macs=cost * passes * 10**9, peak_memory=cost * 412 * 10**6,
                        matrix_share=0.4, ratio=1 / cost / passes, time_vs_mac_bound=1.0,
                    )  # fmt: skip
                    made.append(
                        Row(
                            backbone, head, optimizer, title, 64, 8,
                            baseline=(head, optimizer) == ("linear", "sgd"),
                            parameters={"backbone": 23_500_000, "head": 200_000 * cost},
                            update=update if fits else None,
                            predict=make_work(25.0 * cost) if fits else None,
                            failed=None if fits else "cmal needs three maps of different stride",
                            **more,
                        )
                    )  # fmt: skip
        return tuple(made)

    return rows


@pytest.fixture(scope="session")
def make_report(make_rows: Callable[..., tuple[Row, ...]]) -> Callable[..., Report]:
    """Makes a report of given rows, or of those of `make_rows`; `machine` and `settings` override facts."""

    def report(
        rows: Sequence[Row] | None = None,
        feeds: Sequence[Feed] = (),
        machine: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        interrupted: bool = False,
    ) -> Report:
        found = make_rows() if rows is None else tuple(rows)
        return Report(
            {**MACHINE, **(machine or {})}, {**SETTINGS, **(settings or {})}, found, tuple(feeds), interrupted
        )

    return report


def write_photographs(root: Path, each: int, *folders: str) -> Path:
    """Write a number of images of noise into each of several folders."""
    rng = np.random.default_rng(0)
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for number in range(each):
            pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def make_photographs() -> Callable[..., Path]:
    return write_photographs


@pytest.fixture
def whole_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decode cache is filled in one pass, however slow the disk is."""
    monkeypatch.setattr(store, "PATIENCE", 60.0)
    monkeypatch.setattr(store, "SLOW", 60.0)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are decoded in this process, in order."""
    files: list[Path] = []
    real = loading.read_image
    monkeypatch.setattr(loading, "read_image", lambda path, side=None: files.append(path) or real(path, side))
    return files


@pytest.fixture
def fgvc() -> Callable[..., Any]:
    """Runs the command line and returns exit code, standard output and standard error."""
    from fgvc_cli.cli.app import build_app

    return lambda *arguments: CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a function that prints, in a terminal of some columns, and returns what it prints."""

    def run(show: Callable[[], object], columns: int = 120) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        show()
        return capsys.readouterr().out

    return run
