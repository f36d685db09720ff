"""The wheel holds the host and every built-in plugin, and works where only it is installed."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

RUN = """
import sys
sys.path[:0] = {paths!r}
import fgvc_cli
assert fgvc_cli.__file__.startswith(sys.path[0]), fgvc_cli.__file__
sys.argv = ["fgvc", "list-plugins", "--json"]
from fgvc_cli.cli.app import main
main()
"""


@pytest.mark.slow
def test_the_wheel_lists_every_built_in_component(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("fgvc_cli-*.whl")
    packages = {p.name for p in (ROOT / "plugins").iterdir() if p.name.startswith("fgvc_")}
    with zipfile.ZipFile(wheel) as archive:
        assert {name.split("/")[0] for name in archive.namelist() if ".dist-info" not in name} == {
            "fgvc_cli",
            *packages,
        }
        for page in ("report", "serving"):
            templates = {p.relative_to(ROOT).as_posix() for p in (ROOT / "fgvc_cli" / page / "templates").iterdir()}
            assert templates and templates <= set(archive.namelist()), page
        archive.extractall(tmp_path / "site")
    paths = [str(tmp_path / "site"), sysconfig.get_paths()["purelib"]]
    code = RUN.format(paths=paths)
    # -S: no site-packages, so that an editable installation of the same distribution is not what is found
    done = subprocess.run([sys.executable, "-S", "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    text = json.dumps(json.loads(done.stdout))
    for name in ("resnet50", "swin_t", "linear", "pim", "sgd", "adamw", "demo", "folder", "scratch", "timm/"):
        assert name in text, name
