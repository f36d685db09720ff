"""Plugins that are really installed, as far as `importlib.metadata` can tell: a dist-info folder and a module."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from fgvc_cli import settings
from fgvc_cli.registry import lookup

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return `install(distribution, modules, entry_points, version)`; all of it is gone after the test."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    for variable in settings.VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    lookup._discovered.cache_clear()
    before = set(sys.modules)

    def _install(
        distribution: str,
        modules: Mapping[str, str],
        entry_points: Mapping[str, str] | str | None = None,
        version: str = "1.0",
    ) -> Path:
        if entry_points is None:
            entry_points = {distribution: next(iter(modules)).removesuffix(".py")}
        if not isinstance(entry_points, str):
            entry_points = "[fgvc]\n" + "".join(f"{name} = {value}\n" for name, value in entry_points.items())
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(entry_points)
        for name, text in modules.items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_text(text)
        return site

    yield _install
    lookup._discovered.cache_clear()
    for name in set(sys.modules) - before:
        if str(site) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]
