"""Each scaffold, as it is written: it is listed, it works, and its README's commands do what they say."""

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

QUICKLY = ["--device", "cpu", "--workers", 0, "--batch-size", 4]
TINY = ["--image-size", 32, "--epochs", 1, "--weights", "none", *QUICKLY]
PARTNERS = {
    "backbone": ("head", "explainer"),
    "head": ("backbone", "optimizer", "explainer"),
    "optimizer": ("head",),
    "explainer": ("head", "backbone"),
}
"""Which kinds a component meets in its contract."""
FEW = [f"--set=dataset.{name}={value}" for name, value in {"train": 2, "val": 1, "test": 1, "size": 32}.items()]


def commands(scaffold, block: int) -> list[list[str]]:
    """Return the commands of fgvc in one of the README's blocks of shell code, as lists of words."""
    blocks = re.findall(r"```sh\n(.*?)```", (scaffold.folder / "README.md").read_text(), re.DOTALL)
    return [shlex.split(line)[1:] for line in blocks[block].splitlines() if line.startswith("fgvc ")]


def run(fgvc, command: list[str], out: Path, photos: Path | None = None):
    """Run a command of a README on small things: what is given twice, the last holds."""
    given: list[object] = []
    if command[0] == "train":
        backbone = [] if "small-net" in command else ["--backbone", "timm/test_resnet"]
        data = ["--data", photos] if "--data" in command else FEW
        given = [*TINY, *backbone, *data, *([] if "--out" in command else ["--out", out])]
    if command[0] == "explain":
        given = [*QUICKLY, *(["--limit", 4] if "--limit" in command else [])]
    return fgvc(*command, *given)


def test_all_are_listed_and_none_imports_torch_to_register(scaffolds, fgvc):
    document = json.loads(fgvc("list-plugins", "--json").stdout)
    ours = {plugin["distribution"]: plugin for plugin in document["plugins"] if not plugin["builtin"]}
    assert set(ours) == {scaffold.names.distribution for scaffold in scaffolds.values()}
    for scaffold in scaffolds.values():
        plugin = ours[scaffold.names.distribution]
        assert (plugin["status"], plugin["cause"], plugin["heavy_modules"]) == ("loaded", "", [])
        assert plugin["components"] == [f"{scaffold.names.kind} {scaffold.names.component}"]


@pytest.mark.parametrize("kind", SCAFFOLDED)
def test_the_readmes_first_commands_train_and_explain(kind, scaffolds, fgvc, tmp_path, monkeypatch):
    scaffold = scaffolds[kind]
    monkeypatch.chdir(tmp_path)
    done = {}
    for command in commands(scaffold, 0):
        result = run(fgvc, command, tmp_path)
        assert result.exit_code == 0, (command, result.stderr)
        done[command[0]] = result.stdout
    assert {"train", "explain"} < set(done)
    assert list(tmp_path.glob("*.explain.png"))
    ignored = [line.strip("/") for line in (scaffold.folder / ".gitignore").read_text().splitlines()]
    left = [path.name for path in tmp_path.iterdir() if not any(path.match(pattern) for pattern in ignored)]
    assert left == []  # or it would be published with the plugin
    if kind == "explainer":
        assert "The decision" in done["explain"]
        return
    record = json.loads((tmp_path / "runs" / "first" / "summary.json").read_text())["components"][kind]
    assert (record["name"], record["distribution"]) == (scaffold.names.component, scaffold.names.distribution)


class Results:
    """What came of each test of a pytest within this one, which must find its tests in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.passed: list[str] = []
        self.skipped: list[str] = []
        self.others: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Function]) -> None:
        for item in items:
            assert Path(item.function.__code__.co_filename).is_relative_to(self.folder)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.others[report.nodeid] = report.longreprtext
        elif report.when == "call":
            (self.passed if report.passed else self.skipped).append(report.nodeid)


def run_own_tests(scaffold, *arguments: str) -> Results:
    """Run a scaffold's tests by a pytest within this one; each has to pass, or not to apply."""
    folder, results = scaffold.folder, Results(scaffold.folder)
    # Each has a tests/test_contract.py, and what watches over this session must not be set up anew by another: one that
    # looks for unraisable exceptions collects garbage five times when it ends, which takes seconds late in a session.
    watching = ("cacheprovider", "timeout", "faulthandler", "unraisableexception", "threadexception")
    apart = ["--import-mode=importlib", *(f"-pno:{plugin}" for plugin in watching)]
    given = [str(folder), "-q", f"--rootdir={folder}", f"-c{folder / 'pyproject.toml'}", *apart, *arguments]
    given += ["-W", "error::fgvc_cli.testing.ContractAdvice"]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("tests", "tests.test_contract"):  # another scaffold's would be taken for this one's
            patch.delitem(sys.modules, name, raising=False)
        assert (pytest.main(given, [results]), results.others) == (0, {})
        sys.modules.pop("tests.test_contract")
    return results


def builtin(*kinds: str) -> list[str]:
    """The names of the built-in components of some kinds."""
    return [c.name for kind in kinds for c in get_registry().components(kind) if c.builtin]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", SCAFFOLDED)
def test_its_own_tests_pass(kind, scaffolds):
    """Without the partners that take seconds each: the slow test below has them."""
    large = [name for name in builtin("backbone", "head") if name != "linear"]
    results = run_own_tests(scaffolds[kind], "-k", " and ".join(f"not {name}" for name in large))
    for file, least in ((f"test_{kind}.py", 3), ("test_contract.py", 8)):
        assert sum(f"tests/{file}::" in test for test in results.passed) >= least, results.passed


@pytest.mark.slow
@pytest.mark.parametrize("kind", PARTNERS)
def test_its_own_tests_pass_with_every_built_in_partner(kind, scaffolds):
    results = run_own_tests(scaffolds[kind])
    done = [*results.passed, *results.skipped]  # no attention of the head's own: `native` does not apply
    words = {word for test in done for word in test.partition("test_contract[")[2].rstrip("]").split()}
    assert set(builtin(*PARTNERS[kind])) - words == set() and len(results.skipped) < 6


@pytest.mark.slow
@pytest.mark.parametrize("kind", SCAFFOLDED)
def test_the_readmes_other_commands_run(kind, scaffolds, fgvc, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (first,) = [command for command in commands(scaffolds[kind], 0) if command[0] == "train"]
    assert run(fgvc, first, tmp_path).exit_code == 0
    others = commands(scaffolds[kind], 1)
    assert len(others) > 1
    for command in others:
        result = run(fgvc, command, tmp_path / "run", photos)
        assert result.exit_code == 0, (command, result.stderr)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)


def test_the_next_commands_are_the_readmes(scaffolds):
    for scaffold in scaffolds.values():
        ours = [shlex.split(command)[1:] for command in scaffold.commands if command.startswith("fgvc ")]
        assert ours == commands(scaffold, 0)
        assert scaffold.commands[0].startswith("pip install") and scaffold.commands[-1] == "pytest"


def test_options_have_bounds(scaffolds, fgvc):
    result = fgvc("train", "--head", "gem_pool", "--set", "head.p=0.5", "--weights", "none")
    assert result.exit_code == 2 and "head.p=0.5: must be at least 1" in result.stderr
    assert "exponent of the mean" in fgvc("show", "head", "gem_pool").stdout


def test_a_name_that_another_installed_plugin_has_is_noted(scaffolds):
    registry = get_registry()
    note = taken_elsewhere(plugin_names("gem_pool", "head"), registry)
    assert note is not None and note.startswith("fgvc-gem-pool==0.1.0 registers a head 'gem_pool' too")
    assert taken_elsewhere(plugin_names("gem_pool", "dataset"), registry) is None
