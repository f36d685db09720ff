"""The packages in docs/examples: they are found, fulfill their contracts, train and explain."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fgvc_cli import load
from fgvc_cli.registry import get_registry
from fgvc_cli.testing import Check, contract

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PACKAGES = {folder.name: folder for folder in sorted(EXAMPLES.iterdir()) if (folder / "pyproject.toml").is_file()}
TINY = ["--image-size", 32, "--batch-size", 4, "--epochs", 1, "--device", "cpu", "--workers", 0, "--weights", "none"]
NARROW = [f"--set=head.{name}={width}" for name, width in
          {"stage_width": 8, "stage_channels": 16, "hidden_width": 8}.items()]  # fmt: skip
SMALL: dict[tuple[str, str], dict[str, Any]] = {
    ("head", "pmg"): {"stage_width": 8, "stage_channels": 16, "hidden_width": 8},
    ("explainer", "scorecam"): {"batch_size": 64},
    ("explainer", "kpcacam"): {},
    ("backbone", "pocket"): {},
}
"""What the packages register, and options that make checks fast."""


def project(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return found


@pytest.fixture(scope="module")
def site(installed, tmp_path_factory) -> Iterator[Path]:
    """A folder with the metadata of the packages, as if installed."""
    site, facts = tmp_path_factory.mktemp("site"), [project(folder) for folder in PACKAGES.values()]
    with installed(site, {f["name"]: (f["version"], f["entry-points"]["fgvc"]) for f in facts}, *PACKAGES.values()):
        yield site


@pytest.fixture(scope="module")
def trained(site, fgvc, photos, tmp_path_factory) -> Path:
    """A run with the head."""
    run = tmp_path_factory.mktemp("trained") / "run"
    given = ["--backbone", "timm/test_resnet", "--head", "pmg", *NARROW, "--data", photos, *TINY, "--epochs", 2]
    result = fgvc("train", *given, "--lr", 0.02, "--out", run)
    assert result.exit_code == 0, result.stderr
    return run


def test_packages_are_found_and_register_their_components(site):
    own = [p for p in get_registry().plugins if p.distribution in PACKAGES]
    assert sorted(p.distribution for p in own) == sorted(PACKAGES) == ["fgvc-cam-zoo", "fgvc-pmg", "fgvc-pocket"]
    assert [(p.status, p.cause) for p in own] == [("loaded", "")] * 3
    assert {(c.kind, c.name) for p in own for c in p.components} == set(SMALL)


@pytest.mark.parametrize(
    "kind_and_name",
    [pytest.param(key, marks=pytest.mark.slow if key[1] == "scorecam" else ()) for key in SMALL],
    ids=" ".join,
)
def test_contracts(site, kind_and_name):
    checks: list[Check] = contract(*kind_and_name, SMALL[kind_and_name], partners=False)
    broken = {str(check): found.reason for check in checks if (found := check.result()).status == "failed"}
    assert broken == {}
    assert len(checks) > 10


def test_head_trains_in_four_updates(trained):
    lines = [json.loads(line)["train"] for line in (trained / "metrics.jsonl").read_text().splitlines()]
    for part in ("stage1", "stage2", "stage3", "concat"):
        assert lines[-1][f"objective.{part}"] > 0
    record = json.loads((trained / "summary.json").read_text())["components"]["head"]
    assert (record["distribution"], record["version"]) == ("fgvc-pmg", project(PACKAGES["fgvc-pmg"])["version"])
    assert load(trained).head.options.stage_width == 8


@pytest.mark.parametrize("explainer", ["scorecam", "kpcacam"])
def test_explainers_explain_the_head(trained, fgvc, photos, tmp_path, explainer):
    photo = next((photos / "test").rglob("*.png"))
    given = [photo, "--run", trained, "--explainer", explainer, "--occlude", "--out", tmp_path, "--json"]
    result = fgvc("explain", *given, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) and list(tmp_path.glob("*.png"))
    assert "%|" not in result.stderr  # a progress bar of the package


def commands(name: str, kind: str) -> list[str]:
    text = (PACKAGES[name] / "README.md").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.startswith(f"fgvc {kind} ")]


def test_package_brings_its_weights_and_a_page(site, fgvc, photos, tmp_path):
    shown = fgvc("show", "backbone", "pocket")
    assert "make_weights.py" in shown.stdout and "pocket.demo" in shown.stdout
    small = [word for word in TINY if word not in ("--weights", "none")]
    result = fgvc("train", "--backbone", "pocket", "--data", photos, *small, "--offline", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert "pocket.demo" in result.stderr


@pytest.mark.slow
def test_commands_of_the_heads_readme(site, fgvc, photos, tmp_path):
    lines = commands("fgvc-pmg", "train")
    assert len(lines) == 3
    for index, line in enumerate(lines):
        words = shlex.split(line)[1:]
        tiny = ["--backbone", "timm/test_resnet", "--data", photos, *TINY, *NARROW, "--out", tmp_path / str(index)]
        result = fgvc(*words, *tiny, "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["components"]["head"]["name"] == "pmg"
    optimizers = [json.loads((tmp_path / str(i) / "summary.json").read_text())["components"]["optimizer"]["name"]
                  for i in range(3)]  # fmt: skip
    assert optimizers == ["sgd", "sam", "sgd"]


@pytest.mark.slow
def test_commands_of_the_explainers_readme(trained, fgvc, photos, tmp_path, monkeypatch):
    photo = next((photos / "test").rglob("*.png"))
    lines = commands("fgvc-cam-zoo", "explain")
    assert len(lines) == 2
    for index, line in enumerate(lines):
        words = [str(photo) if word == "photo.jpg" else word for word in shlex.split(line)[1:]]
        result = fgvc(*words, "--run", trained, "--out", tmp_path / str(index), "--device", "cpu")
        assert result.exit_code == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
def test_wheel_installs_and_passes_its_own_tests(name, photos, tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = PACKAGES[name]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)], check=True)
    assert not list(site.rglob("test_*.py"))
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    listed = json.loads(run("fgvc_cli", "list-plugins", "--json", "--strict-plugins"))
    assert name in {plugin["distribution"] for plugin in listed["plugins"]}
    output = run("pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(source), str(source / "tests"))
    assert " passed" in output and "failed" not in output
