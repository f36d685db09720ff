"""Files of a new plugin; nothing is overwritten or left incomplete."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fgvc_cli import FgvcError, UsageError, __version__
from fgvc_cli.testing.scaffolding import plugin_names, write_plugin
from fgvc_cli.testing.scaffolding.names import MAX_LENGTH, SCAFFOLDED

LONG = "a" + "-b" * ((MAX_LENGTH - 1) // 2)


@pytest.mark.parametrize("kind", SCAFFOLDED)
def test_files(kind, tmp_path):
    scaffold = write_plugin(plugin_names("gem-pool", kind), tmp_path / "plugin")
    there = {str(path.relative_to(scaffold.folder)) for path in scaffold.folder.rglob("*") if path.is_file()}
    package = {f"fgvc_gem_pool/{name}.py" for name in ("__init__", "options", kind)} | {"fgvc_gem_pool/py.typed"}
    tests = {"tests/test_contract.py", f"tests/test_{kind}.py"}
    assert there == set(scaffold.files) == {"pyproject.toml", "README.md", ".gitignore", *package, *tests}
    project = tomllib.loads((scaffold.folder / "pyproject.toml").read_text())["project"]
    assert (project["name"], project["dependencies"]) == ("fgvc-gem-pool", [f"fgvc-cli>={__version__}"])
    assert project["entry-points"] == {"fgvc": {"gem-pool": "fgvc_gem_pool"}}


def test_ruff_finds_nothing(tmp_path):
    for kind in SCAFFOLDED:
        for name in ("a", LONG):
            write_plugin(plugin_names(name, kind), tmp_path / f"{kind}-{len(name)}")
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        result = subprocess.run([sys.executable, "-m", "ruff", *command, tmp_path], capture_output=True, text=True)
        assert result.returncode == 0, result.stdout


@pytest.fixture(scope="module")
def types_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache of mypy, which needs most of its time for torch."""
    return tmp_path_factory.mktemp("types")


@pytest.mark.slow
@pytest.mark.parametrize("kind", SCAFFOLDED)
def test_mypy_finds_nothing(kind, tmp_path, types_cache):
    folder = write_plugin(plugin_names("gem-pool", kind), tmp_path / "plugin").folder
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", types_cache, "fgvc_gem_pool", "tests"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_nothing_is_overwritten(make, tmp_path):
    folder = tmp_path / "plugin"
    make(folder)
    with pytest.raises(UsageError, match=r"plugin already exists"):
        write_plugin(plugin_names("gem", "head"), folder)
    assert [path.name for path in tmp_path.iterdir()] == ["plugin"]


def test_incomplete_package_is_removed(tmp_path, monkeypatch):
    write, written = Path.write_text, []

    def full_disk(path, *given, **named):
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return write(path, *given, **named)

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(FgvcError, match=r"plugin cannot be written: No space left on device"):
        write_plugin(plugin_names("gem", "head"), tmp_path / "plugin")
    assert len(written) == 3 and not (tmp_path / "plugin").exists()


def test_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FgvcError, match="cannot be written: Not a directory"):
        write_plugin(plugin_names("gem", "head"), tmp_path / "file" / "plugin")


def test_json_document(fgvc, tmp_path):
    out = tmp_path / "my plugins" / "it"
    document = json.loads(fgvc("new-plugin", "fgvc-gem-pool", "--kind", "explainer", "--out", out, "--json").stdout)
    assert (document["kind"], document["name"], document["distribution"]) == ("explainer", "gem-pool", "fgvc-gem-pool")
    assert document["package"] == "fgvc_gem_pool" and document["folder"] == str(out)
    assert all((out / file).is_file() for file in document["files"])
    assert document["next"][0] == f"cd '{out}'" and document["next"][-1] == "pytest"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pim", "--kind", "head"], "'pim' is a built-in head"),
        (["Gem", "--kind", "head"], "Did you mean 'gem'?"),
        (["gem"], "--kind is missing"),
        (["there", "--kind", "head"], "there already exists and is not overwritten; choose another folder with --out"),
    ],
)
def test_command_refuses_in_one_line(fgvc, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    result = fgvc("new-plugin", *arguments)
    assert result.exit_code == 2 and not result.stdout
    assert len(result.stderr.splitlines()) == 1 and message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
