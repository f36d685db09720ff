"""Plugins that are really installed, as far as `importlib.metadata` can tell: a dist-info folder and a module."""

import base64
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from fgvc_cli import settings
from fgvc_cli.registry import lookup

Install = Callable[..., Path]

WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


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


@pytest.fixture(scope="session")
def make_wheel() -> Callable[..., Path]:
    """Return `make_wheel(folder, distribution, modules, version)`: a wheel as a build backend would write it."""

    def _make(folder: Path, distribution: str, modules: Mapping[str, str], version: str = "1.0") -> Path:
        stem = f"{distribution.replace('-', '_')}-{version}"
        package = next(iter(modules)).partition("/")[0].removesuffix(".py")
        files = {
            **modules,
            f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n",
            f"{stem}.dist-info/WHEEL": WHEEL,
            f"{stem}.dist-info/entry_points.txt": f"[fgvc]\n{distribution} = {package}\n",
        }
        record = f"{stem}.dist-info/RECORD"
        lines = [f"{name},{_digest(text)},{len(text.encode())}" for name, text in files.items()]
        wheel = folder / f"{stem}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, text in {**files, record: "\n".join([*lines, f"{record},,", ""])}.items():
                archive.writestr(name, text)
        return wheel

    return _make


@pytest.fixture(scope="session")
def pip_install() -> Callable[[Path, list[Path]], None]:
    """Return `pip_install(site, wheels)`, which really installs them, into a folder of their own."""

    def _install(site: Path, wheels: list[Path]) -> None:
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        target = ["--no-deps", "--no-index", "--no-compile", "--target", str(site)]
        subprocess.run([*pip, *target, *map(str, wheels)], check=True)

    return _install


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
