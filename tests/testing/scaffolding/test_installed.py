"""A scaffold really installed: wheels of fgvc and of a plugin in an environment of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Environment:
    """A new virtual environment, in which the libraries of this one can be imported but not its fgvc.

    A folder named in a .pth file is on the path, yet the .pth files within it are not read: and that is how an
    editable installation is found.
    """

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True)
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        (site,) = folder.glob("**/site-packages")
        (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        self.site = site

    def run(self, command: str, folder: Path) -> str:
        """Run a line of shell code as in the activated environment, and return what it printed to standard output."""
        environment = {**os.environ, "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment in which fgvc is installed from its wheel."""
    folder = tmp_path_factory.mktemp("installed")
    made = Environment(folder / "venv")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("fgvc_cli-*.whl")
    made.run(f"pip install --quiet --no-deps {wheel}", folder)
    return made


def test_the_wheel_of_a_scaffold_installs_and_is_found(environment, tmp_path):
    written = json.loads(environment.run("fgvc new-plugin stripes --kind dataset --json", tmp_path))
    assert (tmp_path / "stripes" / "pyproject.toml").is_file() and "fgvc_stripes/py.typed" in written["files"]
    environment.run("pip wheel --quiet --no-deps --wheel-dir wheels ./stripes", tmp_path)
    environment.run("pip install --quiet --no-deps wheels/*.whl", tmp_path)
    document = json.loads(environment.run("fgvc list-plugins --json", tmp_path))
    (plugin,) = [plugin for plugin in document["plugins"] if not plugin["builtin"]]
    assert (plugin["distribution"], plugin["status"]) == ("fgvc-stripes", "loaded")
    assert plugin["components"] == ["dataset stripes"] and plugin["heavy_modules"] == []
    checked = json.loads(environment.run("fgvc check-plugin fgvc-stripes --json", tmp_path))
    assert checked["passed"] and not checked["counts"]["advice"], checked
    environment.run("pip uninstall --quiet --yes fgvc-stripes", tmp_path)
    assert "stripes" not in environment.run("fgvc list-plugins", tmp_path)
