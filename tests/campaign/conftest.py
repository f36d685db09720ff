"""A program to run, kill and start again, and what it works on: photographs, runs and an interrupted run."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

PATIENCE = 240.0
"""Seconds after which a process hangs, of which most take one or two."""

HANG = 20.0
"""Seconds of CPU time within which bad input is refused."""

NETWORK = ("--backbone", "timm/test_resnet", "--weights", "none", "--image-size", "32", "--batch-size", "4")
NUMBERS = itertools.count()


class Server:
    """The process that forks; see server.py."""

    def __init__(self) -> None:
        program = [sys.executable, str(Path(__file__).with_name("server.py"))]
        self._process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


@dataclass
class Ended:
    """How a process ended.

    Attributes:
        arguments: of `fgvc`.
        code: exit code, negative for a signal; None if it had to be killed because it hung.
        out, err: what it printed.
        operations: its write operations below the place.
        seconds: how long it took.
        cpu: seconds of CPU time, of it and of the processes that it waited for; not those of others on this machine.
        session: its number, that of the session of all its processes.
    """

    arguments: tuple[str, ...]
    code: int | None
    out: str
    err: str
    operations: list[str]
    seconds: float
    cpu: float = 0.0
    session: int = 0

    @property
    def warnings(self) -> set[str]:
        return {line for line in self.err.splitlines() if line.startswith("warning")}

    def survivors(self) -> list[str]:
        """Return the processes of its session that still run."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.session and fields[0] != "Z":
                    found.append((entry / "cmdline").read_text().replace("\0", " ") or entry.name)
            except OSError:
                continue
        return found

    def __str__(self) -> str:
        return f"fgvc {' '.join(self.arguments)}: exit code {self.code}\n{self.out[-2000:]}{self.err[-3000:]}"


class Place:
    """A folder for one trial, `work` in it is the current one; cache, runs, data and weights are beside it."""

    def __init__(self, server: Server, root: Path) -> None:
        self.server, self.root, self.work = server, root, root / "work"
        self.work.mkdir(parents=True)
        (root / "tmp").mkdir()
        folders = {"RUNS": "runs", "DATA": "data", "WEIGHTS": "weights", "CACHE": "cache"}
        self.environment = {f"FGVC_{name}": str(root / folder) for name, folder in folders.items()}
        self.environment |= {"TMPDIR": str(root / "tmp"), "COLUMNS": "200"}

    def start(self, *arguments: str, **how: int) -> int:
        order = {"arguments": arguments, "folder": str(self.work), "environment": self.environment, **how}
        return int(self.server.ask(start=order))

    def wait(self, process: int, arguments: tuple[str, ...], started: float, seconds: float = PATIENCE) -> Ended:
        found = self.server.ask(wait=process, seconds=seconds)
        took = time.monotonic() - started
        if found is None:
            os.killpg(process, signal.SIGKILL)
            self.server.ask(wait=process, seconds=60)
        code, cpu = found or (None, 0.0)
        out, err, operations = (
            (self.root / name).read_text(errors="replace") if (self.root / name).exists() else ""
            for name in ("out", "err", "ops")
        )
        return Ended(arguments, code, out, err, operations.splitlines(), took, cpu, process)

    def run(self, *arguments: str, seconds: float = PATIENCE, **how: Any) -> Ended:
        """Run a command line to its end."""
        started = time.monotonic()
        return self.wait(self.start(*arguments, **how), arguments, started, seconds)

    def killed(self, *arguments: str, after: float, signals: tuple[int, ...]) -> Ended:
        """Run a command line and send it signals: SIGINT to its whole session, as a terminal does."""
        started = time.monotonic()
        process = self.start(*arguments)
        time.sleep(after)
        for number in signals:
            with suppress(ProcessLookupError):  # it is no session yet, or it has ended
                (os.killpg if number == signal.SIGINT else os.kill)(process, number)
            time.sleep(0.3 * (len(signals) > 1))
        return self.wait(process, arguments, started)

    def left(self) -> list[str]:
        """Return the files in the place, but for those of this test."""
        files = (str(path.relative_to(self.root)) for path in sorted(self.root.rglob("*")) if not path.is_dir())
        return [name for name in files if name not in ("out", "err", "ops")]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc")
    found = Server()
    yield found
    found.close()


@pytest.fixture
def new_place(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Place]:
    """A function that makes a place."""
    return lambda: Place(server, tmp_path_factory.mktemp("place"))


@pytest.fixture
def place(new_place: Callable[[], Place]) -> Place:
    return new_place()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twelve, six and six images of 40 px; next to it, `shards` with a tar file of `train`."""
    folder = tmp_path_factory.mktemp("photos") / "photos"
    for split, count in (("train", 12), ("val", 6), ("test", 6)):
        for k, name in enumerate(("amber", "beige", "coral")):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.random.default_rng(100 * k + i).integers(0, 120, (40, 40, 3), np.uint8)
                pixels[8:24, 8:24, k] = 250
                Image.fromarray(pixels).save(folder / split / name / f"{split}{i}.png")
    (folder.parent / "shards").mkdir()
    with tarfile.open(folder.parent / "shards" / "train-0.tar", "w") as tar:
        tar.add(folder / "train", "")
    return folder


@dataclass(frozen=True)
class World:
    """What commands work on.

    Attributes:
        photos: folder of class folders.
        runs: folder with the runs `linear`, `other`, `knn` and `interrupted`.
        weights: a state dict of the backbone.
        extra: folder of images of another class.
    """

    photos: Path
    runs: Path
    weights: Path
    extra: Path


@pytest.fixture(scope="session")
def world(server: Server, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    import timm
    import torch

    place = Place(server, tmp_path_factory.mktemp("world"))
    train = ("train", "--data", str(photos), *NETWORK, "--recipe", "scratch", "--workers", "0")
    for name, more in (("linear", ["--epochs", "1"]), ("other", ["--epochs", "1", "--seed", "1"])):
        assert (done := place.run(*train, *more, "--out", name)).code == 0, done
    knn = ("train", "--data", str(photos), *NETWORK, "--head", "knn", "--workers", "0", "--out", "knn")
    assert (done := place.run(*knn)).code == 0, done
    whole = place.run(*train, "--epochs", "3", "--out", "whole")
    assert whole.code == 0, whole
    states = [i for i, operation in enumerate(whole.operations) if "rename" in operation and "state" in operation]
    stopped = place.run(*train, "--epochs", "3", "--out", "interrupted", signal=signal.SIGTERM, at=states[1])
    assert stopped.code == 128 + signal.SIGTERM, stopped
    torch.manual_seed(0)
    weights = place.root / "backbone.pth"
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), weights)
    extra = place.root / "extra" / "dark"
    extra.mkdir(parents=True)
    for i in range(6):
        Image.new("RGB", (40, 40), (i, i, i)).save(extra / f"{i}.png")
    return World(photos, place.work, weights, extra)


@pytest.fixture
def runs_in() -> Callable[[World, Place, tuple[str, ...]], None]:
    """A function that copies runs of the world into the current folder of a place."""

    def copy(world: World, place: Place, names: tuple[str, ...]) -> None:
        for name in names:
            shutil.copytree(world.runs / name, place.work / name)

    return copy


ONE_LINE = re.compile(r"fgvc: error: [^\n]+\n")


@pytest.fixture(scope="session")
def refusal() -> Callable[[Ended], str]:
    """A function that checks that a process refused its input in one clear line, and returns that line."""

    def check(ended: Ended) -> str:
        assert ended.code is not None and ended.cpu < HANG, f"hung: {ended}"
        assert "Traceback" not in ended.err and "unexpected error" not in ended.err, ended
        found = ONE_LINE.findall(ended.err)
        assert ended.code in (1, 2) and len(found) == 1 and ended.err.endswith(found[0]), ended
        return found[0]

    return check
