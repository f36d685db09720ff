"""What is written where, and that nothing is overwritten or left half done."""

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
from fgvc_cli.testing.scaffolding.names import LONGEST, SCAFFOLDED

LONG = "a" + "-b" * ((LONGEST - 1) // 2)


@pytest.mark.parametrize("kind", SCAFFOLDED)
def test_the_files_are_those_of_a_package(kind, tmp_path):
    scaffold = write_plugin(plugin_names("gem-pool", kind), tmp_path / "plugin")
    there = {str(path.relative_to(scaffold.folder)) for path in scaffold.folder.rglob("*") if path.is_file()}
    package = {f"fgvc_gem_pool/{name}.py" for name in ("__init__", "options", kind)}
    tests = {"tests/test_contract.py", f"tests/test_{kind}.py"}
    assert there == set(scaffold.files) == {"pyproject.toml", "README.md", ".gitignore", *package, *tests}
    project = tomllib.loads((scaffold.folder / "pyproject.toml").read_text())["project"]
    assert (project["name"], project["dependencies"]) == ("fgvc-gem-pool", [f"fgvc-cli>={__version__}"])
    assert project["entry-points"] == {"fgvc": {"gem-pool": "fgvc_gem_pool"}}


@pytest.mark.parametrize("name", ["a", LONG], ids=len)
@pytest.mark.parametrize("kind", SCAFFOLDED)
def test_a_linter_finds_nothing_in_it(kind, name, tmp_path):
    folder = write_plugin(plugin_names(name, kind), tmp_path / "plugin").folder
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        result = subprocess.run([sys.executable, "-m", "ruff", *command, folder], capture_output=True, text=True)
        assert result.returncode == 0, result.stdout


@pytest.fixture(scope="module")
def types_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the type checker keeps what it learned of torch, which takes it most of the time."""
    return tmp_path_factory.mktemp("types")


@pytest.mark.slow
@pytest.mark.parametrize("kind", SCAFFOLDED)
def test_a_type_checker_finds_nothing_in_it(kind, tmp_path, types_cache):
    folder = write_plugin(plugin_names("gem-pool", kind), tmp_path / "plugin").folder
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", types_cache, "fgvc_gem_pool", "tests"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_is_there_is_left_alone(make, tmp_path):
    folder = tmp_path / "plugin"
    make(folder)
    with pytest.raises(UsageError, match=r"is there already, and nothing is overwritten: .* --out\."):
        write_plugin(plugin_names("gem", "head"), folder)
    assert [path.name for path in tmp_path.iterdir()] == ["plugin"]


def test_half_a_package_is_removed_again(tmp_path, monkeypatch):
    write, written = Path.write_text, []

    def full_disk(path, *given, **named):
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return write(path, *given, **named)

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(FgvcError, match=r"plugin cannot be written: No space left on device. Name another folder"):
        write_plugin(plugin_names("gem", "head"), tmp_path / "plugin")
    assert len(written) == 3 and not (tmp_path / "plugin").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FgvcError, match="cannot be written: Not a directory"):
        write_plugin(plugin_names("gem", "head"), tmp_path / "file" / "plugin")


def test_the_command_writes_and_says_what_comes_next(fgvc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = fgvc("new-plugin", "gem-pool", "--kind", "head")
    assert result.exit_code == 0, result.stderr
    first, *others = result.stdout.splitlines()
    assert first == "written: gem-pool, the plugin fgvc-gem-pool with the head 'gem-pool'"
    assert (tmp_path / "gem-pool" / "fgvc_gem_pool" / "head.py").is_file()
    assert others[others.index("next: cd gem-pool") + 1 :][0].strip() == 'pip install -e ".[test]"'
    again = fgvc("new-plugin", "gem-pool", "--kind", "head")
    assert again.exit_code == 2 and "gem-pool is there already" in again.stderr and not again.stdout


def test_the_command_prints_one_document(fgvc, tmp_path):
    out = tmp_path / "my plugins" / "it"
    result = fgvc("new-plugin", "fgvc-gem-pool", "--kind", "explainer", "--out", out, "--json")
    document = json.loads(result.stdout)
    assert (document["kind"], document["name"], document["distribution"]) == ("explainer", "gem-pool", "fgvc-gem-pool")
    assert document["package"] == "fgvc_gem_pool" and document["folder"] == str(out)
    assert all((out / file).is_file() for file in document["files"])
    assert document["next"][0] == f"cd '{out}'" and document["next"][-1] == "pytest"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pim", "--kind", "head"], "'pim' is a built-in head"),
        (["Gem", "--kind", "head"], "Did you mean 'gem'?"),
        (["gem"], "--kind: say what the plugin adds"),
        (["gem", "--kind", "haed"], "Did you mean 'head'?"),
    ],
)
def test_the_command_refuses_in_one_line(fgvc, arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = fgvc("new-plugin", *arguments)
    assert result.exit_code == 2 and not result.stdout
    assert len(result.stderr.splitlines()) == 1 and said in result.stderr
    assert list(tmp_path.iterdir()) == []
