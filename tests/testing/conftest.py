"""A plugin full of flaws, installed as far as `importlib.metadata` can tell, and the command line in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fgvc_cli.registry import lookup

PACKAGES = Path(__file__).parent / "flawed"


@pytest.fixture(scope="module")
def add(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Return `add(distribution, text)`, which installs a distribution for the tests of a module."""
    site, before = tmp_path_factory.mktemp("site"), set(sys.modules)

    def _add(distribution: str, text: str | None, *, metadata: str = "", record: str = "") -> Path:
        module = distribution.replace("-", "_")
        if text is not None:
            (site / f"{module}.py").write_text(text)
        info = site / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n{metadata}")
        (info / "entry_points.txt").write_text(f"[fgvc]\n{distribution} = {module}\n")
        (info / "RECORD").write_text(record)
        lookup._discovered.cache_clear()
        return site

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.syspath_prepend(str(PACKAGES))
        yield _add
    lookup._discovered.cache_clear()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith((str(site), str(PACKAGES))):
            del sys.modules[name]


@pytest.fixture(scope="module")
def flawed(add: Callable[..., Path]) -> Path:
    """The plugin fgvc-flawed, installed."""
    return add("fgvc-flawed", None, metadata="Requires-Dist: fgvc-cli>=0\n")


@pytest.fixture(scope="session")
def fgvc() -> Callable[..., Any]:
    """Return a function that runs the command line and returns its exit code, standard output and standard error."""
    from fgvc_cli.cli.app import build_app

    return lambda *arguments: CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
