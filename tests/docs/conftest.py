"""What the pages of documentation show: code blocks and tables; and a few photographs to try the examples on."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fgvc_cli.registry import lookup

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\S+\.(?:py|toml))(?: \(continued\))?\n")


@dataclass(frozen=True)
class Page:
    """A page of documentation.

    Attributes:
        path: its file.
        text: what it says.
    """

    path: Path
    text: str

    @property
    def prose(self) -> str:
        """Return the text without its code blocks."""
        return FENCE.sub("", self.text)

    def blocks(self, language: str) -> list[str]:
        """Return the code blocks of a language."""
        return [code for found, code in FENCE.findall(self.text) if found == language]

    def files(self) -> dict[str, str]:
        """Return the example files by name, continued ones as one; no Python goes without a name."""
        files: dict[str, str] = {}
        for code in [*self.blocks("toml"), *self.blocks("python")]:
            name = FILE_NAME.match(code)
            assert name is not None, f"{self.path.name} has an example whose first line is no file name:\n{code}"
            before = files.get(name[1], "")
            assert bool(before) == ("(continued)" in name[0]), f"{name[1]}: '(continued)' is wrong or missing"
            files[name[1]] = before + code
        return files

    def section(self, heading: str) -> str:
        """Return a section's text, up to the next heading."""
        start = self.text.index(f"{heading}\n") + len(heading)
        return re.split(r"^##+ ", self.text[start:], maxsplit=1, flags=re.MULTILINE)[0]

    def rows(self, heading: str, table: int = 0) -> list[list[str]]:
        """Return the cells of a table in a section, without its headings."""
        tables = re.findall(r"(?:^\|.*\|\n)+", self.section(heading), re.MULTILINE)
        return [[cell.strip() for cell in line.split("|")[1:-1]] for line in tables[table].splitlines()[2:]]


@pytest.fixture(scope="session")
def page() -> Callable[[str], Page]:
    """A function that reads a page by its path in the repository."""
    return lambda name: Page(ROOT / name, (ROOT / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def fgvc() -> Callable[..., Any]:
    """A function that runs the command line and returns its exit code, standard output and standard error."""
    from fgvc_cli.cli.app import build_app

    return lambda *arguments: CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


@contextmanager
def _installed(site: Path, distributions: Mapping[str, tuple[str, Mapping[str, str]]], *paths: Path) -> Iterator[None]:
    for name, (version, entry_points) in distributions.items():
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [f"{entry} = {module}\n" for entry, module in entry_points.items()]
        (info / "entry_points.txt").write_text("[fgvc]\n" + "".join(lines))
    before, folders = set(sys.modules), [str(path) for path in (*paths, site)]
    with pytest.MonkeyPatch.context() as patch:
        for folder in folders:
            patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")]))
        lookup._discovered.cache_clear()
        yield
    lookup._discovered.cache_clear()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(tuple(folders)):
            del sys.modules[name]


@pytest.fixture(scope="session")
def installed() -> Callable[..., AbstractContextManager[None]]:
    """A context in which distributions (version, entry points) are installed in `site`, with more code at `paths`."""
    return _installed


@pytest.fixture(scope="session")
def demo(fgvc, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run first/, trained on the demo images, and their cache/."""
    folder = tmp_path_factory.mktemp("demo")
    tiny = [
        "--backbone", "timm/test_resnet", "--set", "dataset.train=2", "--set", "dataset.val=1",
        "--set", "dataset.test=2", "--set", "dataset.size=64", "--image-size", 32, "--batch-size", 6, "--epochs", 1,
        "--weights", "none", "--device", "cpu",
    ]  # fmt: skip
    result = fgvc("train", *tiny, "--cache", folder / "cache", "--out", folder / "first")
    assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photographs of two classes, in train, val and test, with their labels in labels.csv."""
    folder = tmp_path_factory.mktemp("data") / "orchids"
    rng, rows = np.random.default_rng(0), ["file,class,genus,split"]
    for split, count in {"train": 6, "val": 3, "test": 3}.items():
        for label, color in {"ophrys": (200, 40, 60), "orchis": (60, 180, 50)}.items():
            for i in range(count):
                file = folder / split / label / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                noise = rng.integers(-40, 40, (40, 44, 3))
                Image.fromarray(np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)).save(file)
                rows.append(f"{file.relative_to(folder)},{label},{label.title()},{split}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder
