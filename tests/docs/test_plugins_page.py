"""Every example of docs/plugins.md, installed and used; every hook has a section there."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from fgvc_cli import FgvcError, contracts, hookspecs, load
from fgvc_cli.registry import get_registry
from fgvc_cli.registry.loading import HOOKS
from fgvc_cli.testing import contract
from fgvc_cli.testing.runner import Selection, plan_checks
from fgvc_cli.testing.scaffolding.names import SCAFFOLDED

PAGE = "docs/plugins.md"
TINY = ["--image-size", 32, "--batch-size", 4, "--device", "cpu", "--workers", 0, "--weights", "none", "--lr", 0.02]

LISTED = {
    "backbone": {"plain"},
    "head": {"bilinear"},
    "optimizer": {"nadam", "shaken"},
    "dataset": {"orchids"},
    "explainer": {"gradient"},
    "tracker": {"mlflow"},
    "exporter": {"packed"},
    "launcher": {"spawned"},
    "recipe": {"quick"},
    "study": {"pim-widths"},
}
"""What the examples register, by kind."""


@pytest.fixture(scope="module")
def site(page, installed, tmp_path_factory) -> Iterator[Path]:
    """The folder that all packages of the page are installed in."""
    site, files = tmp_path_factory.mktemp("site"), page(PAGE).files()
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    for name, text in files.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(text)
    own = project["entry-points"]["fgvc"]
    others = {name.partition("/")[0] for name in files} - {*own.values(), "tests"}
    distributions = {name.replace("_", "-"): ("0.1", {name: name}) for name in others}
    with installed(site, {project["name"]: (project["version"], own), **distributions}):
        yield site


class FakeMlflow(ModuleType):
    """MLflow as far as the page uses it; records the calls."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.calls: list[tuple] = []

    def __getattr__(self, name: str):
        return lambda *values, **named: self.calls.append((name, *values, *named.values()))

    def start_run(self, run_id: str | None = None, run_name: str | None = None) -> SimpleNamespace:
        self.calls.append(("start_run", run_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "0123"))


@pytest.fixture
def mlflow(monkeypatch) -> FakeMlflow:
    module = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return module


@pytest.fixture(scope="module")
def trained(site, page, fgvc, photos, tmp_path_factory) -> Path:
    """A run of the page's own command, with a tiny backbone and the tracker, for two epochs."""
    (command,) = [
        line for block in page(PAGE).blocks("sh") for line in block.splitlines() if line.startswith("fgvc train")
    ]
    run = tmp_path_factory.mktemp("trained") / "run"
    given = ["--backbone", "timm/test_resnet", "--data", photos, "--epochs", 2, *TINY, "--out", run]
    with pytest.MonkeyPatch.context() as patch:
        module = FakeMlflow()
        patch.setitem(sys.modules, "mlflow", module)
        tracked = ["--track", "mlflow", "--set", "tracker.mlflow.experiment=birds"]
        result = fgvc(*shlex.split(command)[1:], *given, *tracked)
    assert result.exit_code == 0 and "warning" not in result.stderr, result.stderr
    (run / "mlflow.json").write_text(json.dumps(module.calls))
    return run


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_section_with_its_signature_and_an_example(page, hook):
    signature = f"{hook}{inspect.signature(getattr(hookspecs, hook))}".replace("'", "")
    assert f"\n### `{signature}`\n" in page(PAGE).text
    examples = "".join(page(PAGE).files().values())
    assert re.search(rf"^@hookimpl\ndef {hook}\(", examples, re.MULTILINE), f"no example implements {hook}"


def test_sections_and_tables_name_existing_hooks_and_methods(page):
    text = page(PAGE).text
    assert sorted(re.findall(r"^### `(\w+)", text, re.MULTILINE)) == sorted(HOOKS)
    for kind in ("backbone", "head", "dataset", "explainer", "exporter", "launcher"):
        base = getattr(contracts, kind.capitalize())
        for row in page(PAGE).rows(next(line for line in text.splitlines() if line.startswith(f"### `fgvc_{kind}s("))):
            for method, arguments in re.findall(r"`(\w+)\((.*?)\)", row[0]):
                names = [name for name in inspect.signature(getattr(base, method)).parameters if name != "self"]
                assert [argument.split("=")[0] for argument in arguments.split(", ") if argument] == names, row


def test_examples_are_listed_and_register_without_torch(site, fgvc):
    document = json.loads(fgvc("list-plugins", "--json").stdout)
    ours = [p for p in document["plugins"] if not p["builtin"]]
    assert {plugin["module"] for plugin in ours} == {path.parent.name for path in site.glob("*/__init__.py")}
    assert {(p["status"], p["cause"]) for p in ours} == {("loaded", "")}
    for kind, names in LISTED.items():
        assert {c["name"] for c in document["kinds"][kind]["components"] if not c["builtin"]} == names, kind
    assert "plain/" in [family["prefix"] for family in document["kinds"]["backbone"]["families"]]


def test_head_trains_with_the_command_of_the_page(trained):
    first, last = (line["train"]["objective"] for line in metrics(trained))
    assert last < first
    record = json.loads((trained / "summary.json").read_text())["components"]["head"]
    assert (record["name"], record["distribution"], record["version"]) == ("bilinear", "fgvc-bilinear", "0.1")
    assert record["options"] == {"channels": 32} and load(trained).head.reduce.out_channels == 32


def test_journal_has_every_event(trained):
    lines = (trained / "trackers" / "journal" / "journal.txt").read_text().splitlines()
    assert lines[0] == "started fgvc-cli:timm/test_resnet False"
    assert lines[1:-1] == [f"epoch {line['epoch']} {line['train']['objective']}" for line in metrics(trained)]
    assert lines[-1].split()[0] == "finished" and float(lines[-1].split()[1]) > 0


def test_tracker_logs_the_run(trained):
    experiment, started, (_, params), *logged, end = json.loads((trained / "mlflow.json").read_text())
    assert (experiment, started) == (["set_experiment", "birds"], ["start_run", None, "run"])
    assert end == ["end_run", "FINISHED"] and params["train.epochs"] == 2
    assert [step for _, _, step in logged[:2]] == [1, 2]
    assert [values["val/top1"] for _, values, _ in logged[:2]] == [line["val"]["top1"] for line in metrics(trained)]
    assert logged[2][1]["test/top1"] == json.loads((trained / "summary.json").read_text())["test"]["top1"]


def test_tracker_resumes_the_same_run(site, mlflow):
    results = {check.title: check.result() for check in contract("tracker", "mlflow")}
    assert not {title: r.reason for title, r in results.items() if r.status == "failed"}
    assert ("start_run", "0123", "run") in mlflow.calls and ("end_run", "KILLED") in mlflow.calls


def test_command_runs(trained, fgvc):
    result = fgvc("species", trained)
    assert (result.exit_code, result.stdout) == (0, "ophrys\norchis\n")


def test_recipe_backbone_optimizers_and_dataset_train_together(site, fgvc, photos, tmp_path):
    chosen = ["--recipe", "quick", "--backbone", "plain/3", "--optimizer", "shaken", "--dataset", "orchids", *TINY]
    given = [*chosen, "--set", "optimizer.base=nadam", "--data-root", photos.parent, "--out", tmp_path / "run"]
    result = fgvc("train", *given, "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["recipe"] == "fgvc-quick:quick" and summary["epochs"] == 2
    assert {kind: record["name"] for kind, record in summary["components"].items()} == {
        "backbone": "plain/3", "head": "linear", "optimizer": "shaken", "dataset": "orchids",
    }  # fmt: skip
    base = summary["components"]["optimizer"]["base"]
    assert (base["name"], base["options"]["lr"]) == ("nadam", 0.02)
    assert [summary["splits"][name]["images"] for name in ("train", "val", "test")] == [12, 6, 6]


def test_dataset_opens_or_names_the_missing_files(site, photos, tmp_path, monkeypatch):
    from fgvc_cli.data.opening import open_dataset

    component = get_registry().find("dataset", "orchids")
    monkeypatch.setenv("FGVC_DATA", str(photos.parent))
    dataset = open_dataset(component, None, None, 0)
    assert dataset.splits() == ("train", "val", "test") and dataset.class_names == ("ophrys", "orchis")
    test = dataset.split("test")
    assert [test.keys[i].split("/")[1] for i in range(6)] == [dataset.class_names[label] for label in test.labels]
    monkeypatch.setenv("FGVC_DATA", str(tmp_path))
    with pytest.raises(FgvcError, match=r"lacks labels\.csv.* fgvc data prepare orchids"):
        open_dataset(component, None, None, 0)


def test_study_is_planned(site, fgvc):
    result = fgvc("sweep", "--study", "pim-widths", "--dry-run")
    assert result.exit_code == 0, result.stderr
    runs = [line.split()[0] for line in result.stdout.splitlines()[1:]]
    assert runs == ["timm-test_resnet-pim-sgd-seed0", "timm-test_resnet-pim-sgd-2-seed0"]


def test_contract_test_of_the_page(page, site):
    namespace: dict = {}
    exec(page(PAGE).files()["tests/test_contract.py"], namespace)
    (mark,) = namespace["test_contract"].pytestmark
    titles = [check.title for check in mark.args[1]]
    assert titles == [check.title for check in contract("head", "bilinear")]


@pytest.mark.parametrize(
    ("kind", "name"),
    [("backbone", "plain"), ("backbone", "plain/2"), ("optimizer", "nadam"), ("optimizer", "shaken"),
     ("dataset", "orchids"), ("explainer", "gradient"), ("exporter", "packed"), ("recipe", "quick"),
     pytest.param("launcher", "spawned", marks=pytest.mark.slow),
     ("head", "bilinear")],
)  # fmt: skip
def test_components_fulfill_their_contracts(site, kind, name):
    results = {str(check): check.result() for check in contract(kind, name, partners=False)}
    assert not {title: result.reason for title, result in results.items() if result.status == "failed"}


@pytest.mark.slow
def test_head_works_with_every_built_in_partner(site):
    results = {str(check): check.result() for check in contract("head", "bilinear", {"channels": 8})}
    assert not {title: result.reason for title, result in results.items() if result.status == "failed"}


def test_plugins_fulfill_their_contract(site):
    registry = get_registry()
    selection = Selection(tuple(plugin for plugin in registry.plugins if not plugin.builtin), ())
    planned = [each for each in plan_checks(selection, registry) if "torch" not in each.check.title]
    results = {(each.name, each.check.title): each.check.result() for each in planned}
    assert {key: r.reason for key, r in results.items() if r.status == "failed"} == {}
    assert results["fgvc_journal", "run events accept a training run"].status == "passed"
    assert results["fgvc_classes", "commands have help texts"].status == "passed"


def test_kinds_of_scaffolds_and_example_packages_are_complete(page):
    (kinds,) = re.findall(r"--kind ([\w|]+)`", page(PAGE).text)
    assert kinds.split("|") == list(SCAFFOLDED)
    named = re.findall(r"`(fgvc-\w[\w-]*)`", page(PAGE).section("## A complete plugin"))
    examples = Path(__file__).parents[2] / "docs" / "examples"
    assert sorted(named) == sorted(path.parent.name for path in examples.glob("*/pyproject.toml"))
