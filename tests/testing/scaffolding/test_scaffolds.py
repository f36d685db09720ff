"""Scaffolds as written: they are listed, work, pass their own tests, and their READMEs are right."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from fgvc_cli.registry import get_registry
from fgvc_cli.testing.scaffolding import plugin_names
from fgvc_cli.testing.scaffolding.names import SCAFFOLDED, taken_elsewhere

TINY = ["--image-size", 32, "--epochs", 1, "--weights", "none"]
QUICK = ["--device", "cpu", "--workers", 0, "--batch-size", 4]
FEW = [f"--set=dataset.{name}={value}" for name, value in {"train": 2, "val": 1, "test": 1, "size": 32}.items()]
PARTNERS = {
    "backbone": ("head", "explainer"),
    "head": ("backbone", "optimizer", "explainer"),
    "optimizer": ("head",),
    "explainer": ("head", "backbone"),
}
"""Kinds of the built-in partners of each kind."""


def commands(scaffold, block: int) -> list[list[str]]:
    """Return the fgvc commands in a shell block of the README, as lists of words."""
    blocks = re.findall(r"```sh\n(.*?)```", (scaffold.folder / "README.md").read_text(), re.DOTALL)
    return [shlex.split(line)[1:] for line in blocks[block].splitlines() if line.startswith("fgvc ")]


def run(fgvc, command: list[str], out: Path, photos: Path | None = None):
    """Run a command of a README with a tiny model and dataset: later options override earlier ones."""
    given: list[object] = []
    if command[0] == "train":
        backbone = [] if "small-net" in command else ["--backbone", "timm/test_resnet"]
        data = ["--data", photos] if "--data" in command else FEW
        given = [*TINY, *QUICK, *backbone, *data, *([] if "--out" in command else ["--out", out])]
    if command[0] == "explain":
        given = [*QUICK, *(["--limit", 4] if "--limit" in command else [])]
    return fgvc(*command, *given)


def test_all_are_listed_and_register_without_torch(scaffolds, fgvc):
    document = json.loads(fgvc("list-plugins", "--json").stdout)
    ours = {plugin["distribution"]: plugin for plugin in document["plugins"] if not plugin["builtin"]}
    assert set(ours) == {scaffold.names.distribution for scaffold in scaffolds.values()}
    for scaffold in scaffolds.values():
        plugin = ours[scaffold.names.distribution]
        assert (plugin["status"], plugin["cause"], plugin["heavy_modules"]) == ("loaded", "", [])
        assert plugin["components"] == [f"{scaffold.names.kind} {scaffold.names.component}"]


def test_they_train_and_explain_together(scaffolds, fgvc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {kind: scaffold.names.component for kind, scaffold in scaffolds.items()}
    chosen = [word for kind in ("backbone", "head", "optimizer", "dataset") for word in (f"--{kind}", names[kind])]
    trained = fgvc("train", *chosen, *TINY, *QUICK, *FEW, "--set=backbone.width=4", "--out", "runs/first", "--json")
    assert trained.exit_code == 0, trained.stderr
    components = json.loads(trained.stdout)["components"]
    assert {kind: record["name"] for kind, record in components.items()} == {
        kind: name for kind, name in names.items() if kind not in ("explainer", "exporter", "launcher")
    }
    given = ["runs/first/samples", "--run", "runs/first", "--explainer", names["explainer"], "--occlude"]
    explained = fgvc("explain", *given, "--device", "cpu")
    assert explained.exit_code == 0, explained.stderr
    assert list(tmp_path.glob("*.explain.png"))
    exported = fgvc("export", "runs/first", "--format", names["exporter"], "--json")
    assert exported.exit_code == 0, exported.stderr
    assert json.loads(exported.stdout)["check"]["same_class"] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("kind", SCAFFOLDED)
def test_commands_of_the_readme(kind, scaffolds, fgvc, photos, tmp_path, monkeypatch):
    scaffold = scaffolds[kind]
    monkeypatch.chdir(tmp_path)
    for command in commands(scaffold, 0):
        result = run(fgvc, command, tmp_path)
        assert result.exit_code == 0, (command, result.stderr)
    ignored = [line.strip("/") for line in (scaffold.folder / ".gitignore").read_text().splitlines()]
    left = [path.name for path in tmp_path.iterdir() if not any(path.match(pattern) for pattern in ignored)]
    assert left == []  # everything that they write is ignored by git
    others = commands(scaffold, 1)
    assert len(others) > 1
    for command in others:
        result = run(fgvc, command, tmp_path / "run", photos)
        assert result.exit_code == 0, (command, result.stderr)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)


class Results:
    """Results of the tests in a folder, run by a pytest within this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.passed: list[str] = []
        self.skipped: list[str] = []
        self.failed: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Function]) -> None:
        for item in items:
            assert Path(item.function.__code__.co_filename).is_relative_to(self.folder)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed[report.nodeid] = report.longreprtext
        elif report.when == "call":
            (self.passed if report.passed else self.skipped).append(report.nodeid)


def run_own_tests(scaffold, *arguments: str) -> Results:
    """Run a scaffold's tests in this process; each must pass or be skipped."""
    folder, results = scaffold.folder, Results(scaffold.folder)
    # Plugins that watch over this session must not be set up again: one of them collects garbage five times at its end.
    watching = ("cacheprovider", "timeout", "faulthandler", "unraisableexception", "threadexception")
    apart = ["--import-mode=importlib", *(f"-pno:{plugin}" for plugin in watching)]
    given = [str(folder), "-q", f"--rootdir={folder}", f"-c{folder / 'pyproject.toml'}", *apart, *arguments]
    given += ["-W", "error::fgvc_cli.testing.ContractWarning"]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("tests", "tests.test_contract"):  # modules of another scaffold
            patch.delitem(sys.modules, name, raising=False)
        assert (pytest.main(given, [results]), results.failed) == (0, {})
        sys.modules.pop("tests.test_contract")
    return results


def builtin(*kinds: str) -> list[str]:
    """Return the names of the built-in components of some kinds."""
    return [c.name for kind in kinds for c in get_registry().components(kind) if c.builtin]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [k if k == "head" else pytest.param(k, marks=pytest.mark.slow) for k in SCAFFOLDED])
def test_its_own_tests_pass(kind, scaffolds):
    """Without built-in partners, as in the slow test below, and a process for what `list-plugins` shows above."""
    others = (*builtin("backbone", "head", "optimizer", "explainer"), "registers")
    results = run_own_tests(scaffolds[kind], "-k", " and ".join(f"not {word}" for word in others))
    for file, least in ((f"test_{kind}.py", 3), ("test_contract.py", 8)):
        assert sum(f"tests/{file}::" in test for test in results.passed) >= least, results.passed


@pytest.mark.slow
@pytest.mark.parametrize("kind", PARTNERS)
def test_its_own_tests_pass_with_every_built_in_partner(kind, scaffolds):
    results = run_own_tests(scaffolds[kind])
    done = [*results.passed, *results.skipped]
    words = {word for test in done for word in test.partition("test_contract[")[2].rstrip("]").split()}
    assert set(builtin(*PARTNERS[kind])) - words == set() and len(results.skipped) < 6


def test_next_commands_are_those_of_the_readme(scaffolds):
    for scaffold in scaffolds.values():
        ours = [shlex.split(command)[1:] for command in scaffold.commands if command.startswith("fgvc ")]
        assert ours == commands(scaffold, 0)
        assert scaffold.commands[0].startswith("pip install") and scaffold.commands[-1] == "pytest"


def test_options_have_bounds(scaffolds, fgvc):
    result = fgvc("train", "--head", "gem_pool", "--set", "head.p=0.5", "--weights", "none")
    assert result.exit_code == 2 and "head.p=0.5" in result.stderr and "at least 1" in result.stderr


def test_name_of_another_plugin_is_noted(scaffolds):
    registry = get_registry()
    note = taken_elsewhere(plugin_names("gem_pool", "head"), registry)
    assert note is not None and note.startswith("fgvc-gem-pool==0.1.0 registers a head 'gem_pool' too")
    assert taken_elsewhere(plugin_names("gem_pool", "dataset"), registry) is None
