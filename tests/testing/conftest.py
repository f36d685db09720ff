"""An installed plugin full of flaws, and what it takes to check its components."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fgvc_cli.registry import lookup

PACKAGES = Path(__file__).parent / "flawed"


def install(site: Path, distribution: str, module: str, *, metadata: str = "", record: str = "") -> None:
    """Write the metadata that makes a package on the path an installed distribution."""
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n{metadata}")
    (info / "entry_points.txt").write_text(f"[fgvc]\n{distribution} = {module}\n")
    (info / "RECORD").write_text(record)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for packages, on the path for the tests of a module."""
    site, before = tmp_path_factory.mktemp("site"), set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.syspath_prepend(str(PACKAGES))
        lookup._discovered.cache_clear()
        yield site
    lookup._discovered.cache_clear()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith((str(site), str(PACKAGES))):
            del sys.modules[name]


@pytest.fixture(scope="module")
def flawed(site: Path) -> Path:
    """The plugin fgvc-flawed, installed."""
    install(site, "fgvc-flawed", "fgvc_flawed", metadata="Requires-Dist: fgvc-cli>=0\n")
    lookup._discovered.cache_clear()
    return site


@pytest.fixture(scope="module")
def add(site: Path) -> Callable[..., None]:
    """A function that installs one more distribution: `add("fgvc-other", "text of its module")`."""

    def _add(distribution: str, text: str | None, **facts: str) -> None:
        module = distribution.replace("-", "_")
        if text is not None:
            (site / f"{module}.py").write_text(text)
        install(site, distribution, module, **facts)
        lookup._discovered.cache_clear()

    return _add


@pytest.fixture
def fgvc() -> Callable[..., Any]:
    """A function that runs the command line and returns its exit code, standard output and standard error."""
    from fgvc_cli.cli.app import build_app

    return lambda *arguments: CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
