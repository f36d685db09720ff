"""Every example of docs/plugins.md, installed and used; every hook of the host has a section there."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from fgvc_cli import FgvcError, UsageError, hookspecs, load
from fgvc_cli.contracts import Evaluation, ParameterGroup, Reads
from fgvc_cli.data.images import read_image
from fgvc_cli.options import build
from fgvc_cli.registry import get_registry, lookup
from fgvc_cli.registry.loading import HOOKS
from fgvc_cli.runs.model_file import build_backbone
from fgvc_cli.testing import Check, contract
from fgvc_cli.testing.runner import CheckPlan, Selection

PAGE = "docs/plugins.md"
TINY = ["--image-size", 32, "--batch-size", 4, "--device", "cpu", "--workers", 0, "--weights", "none", "--lr", 0.02]

LISTED = {
    "backbone": {"plain"},
    "head": {"bilinear"},
    "optimizer": {"nadam", "shaken"},
    "dataset": {"orchids"},
    "explainer": {"gradient"},
    "tracker": {"mlflow"},
    "recipe": {"quick"},
    "study": {"pim-widths"},
}
"""What the examples register, by kind."""


def install(site: Path, distribution: str, version: str, entry_points: Mapping[str, str]) -> None:
    """Write the metadata that makes a package on the path an installed distribution."""
    info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(
        "[fgvc]\n" + "".join(f"{name} = {module}\n" for name, module in entry_points.items())
    )


@pytest.fixture(scope="module")
def site(page, tmp_path_factory) -> Iterator[Path]:
    """The folder that all packages of the page are installed in."""
    site, files = tmp_path_factory.mktemp("site"), page(PAGE).files()
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    for name, text in files.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(text)
    install(site, project["name"], project["version"], project["entry-points"]["fgvc"])
    others = {name.partition("/")[0] for name in files} - {*project["entry-points"]["fgvc"].values(), "tests"}
    for package in others:
        install(site, package.replace("_", "-"), "0.1", {package: package})
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        lookup._discovered.cache_clear()
        yield site
    lookup._discovered.cache_clear()
    for name in set(sys.modules) - before:
        if str(site) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


@dataclass(frozen=True)
class Trained:
    """A run folder and what its training printed."""

    run: Path
    stdout: str
    stderr: str

    def metrics(self) -> list[dict]:
        return [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(site, page, fgvc, photos, tmp_path_factory) -> Trained:
    """The page's own command, with a small backbone on a few small photographs for two epochs."""
    (command,) = [
        line for block in page(PAGE).blocks("sh") for line in block.splitlines() if line.startswith("fgvc train")
    ]
    run = tmp_path_factory.mktemp("trained") / "run"
    given = ["--backbone", "timm/test_resnet", "--data", photos, "--epochs", 2, *TINY, "--out", run]
    result = fgvc(*shlex.split(command)[1:], *given)
    assert result.exit_code == 0, result.stderr
    return Trained(run, result.stdout, result.stderr)


def signature(hook: str) -> str:
    """Write a hook as its section's heading does."""
    return f"{hook}{inspect.signature(getattr(hookspecs, hook))}".replace("'", "")


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_section_with_its_exact_signature_and_an_example(page, hook):
    assert f"\n### `{signature(hook)}`\n" in page(PAGE).text, (
        f"docs/plugins.md has no section '### `{signature(hook)}`'"
    )
    examples = "".join(page(PAGE).files().values())
    assert re.search(rf"^@hookimpl\ndef {hook}\(", examples, re.MULTILINE), f"no example implements {hook}"


def test_no_section_is_of_a_hook_that_does_not_exist(page):
    headings = re.findall(r"^### `(\w+)", page(PAGE).text, re.MULTILINE)
    assert sorted(headings) == sorted(HOOKS)


def test_every_name_the_page_takes_from_the_contracts_is_there(page):
    from fgvc_cli import contracts

    files = page(PAGE).files()
    for names in re.findall(r"from fgvc_cli\.contracts import (.*)", "".join(files.values())):
        assert set(names.split(", ")) <= set(contracts.__all__)


def test_all_examples_are_listed_and_none_imports_torch_to_register(site):
    program = "import sys; sys.argv = ['fgvc', 'list-plugins', '--json']; from fgvc_cli.cli.app import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    output = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True).stdout
    document = json.loads(output)
    ours = [p for p in document["plugins"] if not p["builtin"]]
    packages = {path.name for path in site.iterdir() if (path / "__init__.py").is_file()}
    assert {plugin["module"] for plugin in ours} == packages
    assert {(p["status"], p["cause"], tuple(p["heavy_modules"])) for p in ours} == {("loaded", "", ())}
    for kind, names in LISTED.items():
        found = {c["name"] for c in document["kinds"][kind]["components"] if not c["builtin"]}
        assert found == names, kind
    assert "plain/" in [family["prefix"] for family in document["kinds"]["backbone"]["families"]]


def test_the_head_trains_with_the_command_of_the_page(trained):
    first, last = (line["train"]["objective"] for line in trained.metrics())
    assert last < first
    summary = json.loads((trained.run / "summary.json").read_text())
    record = summary["components"]["head"]
    assert (record["name"], record["distribution"], record["version"]) == ("bilinear", "fgvc-bilinear", "0.1")
    assert record["options"] == {"channels": 32}
    assert load(trained.run).head.reduce.out_channels == 32


def test_the_journal_heard_every_event(trained):
    lines = (trained.run / "trackers" / "journal" / "journal.txt").read_text().splitlines()
    assert lines[0] == "started fgvc-cli:timm/test_resnet False"
    assert lines[1:-1] == [f"epoch {line['epoch']} {line['train']['objective']}" for line in trained.metrics()]
    assert lines[-1].split()[0] == "finished" and float(lines[-1].split()[1]) > 0
    assert "warning" not in trained.stderr


def test_the_command_runs(trained, fgvc):
    result = fgvc("classes", trained.run)
    assert (result.exit_code, result.stdout) == (0, "ophrys\norchis\n")
    listed = fgvc("--runs", trained.run.parent, "accuracies")
    top1 = json.loads((trained.run / "summary.json").read_text())["test"]["top1"]
    assert (listed.exit_code, listed.stdout) == (0, f"run  {100 * top1:.1f} %\n")
    missing = fgvc("classes", trained.run / "nothing")
    assert missing.exit_code == 1 and "does not exist" in missing.stderr


def test_the_explainer_marks_pixels_and_leaves_the_classifier_alone(trained, photos):
    component = get_registry().find("explainer", "gradient")
    explainer, classifier = component.load()(options=None), load(trained.run)
    files = sorted((photos / "test").rglob("*.png"))
    images = classifier.normalize(torch.stack([classifier.preprocessing(read_image(file)) for file in files]))
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    with torch.no_grad():
        maps = explainer.explain(classifier, images, torch.zeros(len(files), dtype=torch.int64))
    assert maps.shape == (len(files), 32, 32)
    assert torch.equal(maps.amax((1, 2)), torch.ones(len(files))) and maps.min() >= 0
    assert all(p.grad is None for p in classifier.parameters()) and not images.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


class FakeMlflow(ModuleType):
    """MLflow as far as the page uses it; keeps what it is told."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.told: list[tuple] = []

    def set_experiment(self, name: str) -> None:
        self.told.append(("experiment", name))

    def start_run(self, run_id: str | None = None, run_name: str | None = None) -> SimpleNamespace:
        self.told.append(("run", run_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "0123"))

    def log_params(self, params: dict[str, object]) -> None:
        self.told.append(("params", params))

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        assert all(isinstance(value, float) for value in metrics.values())
        self.told.append(("metrics", step, metrics))

    def end_run(self, status: str) -> None:
        self.told.append(("end", status))


@pytest.fixture
def mlflow(monkeypatch) -> FakeMlflow:
    module = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return module


def test_the_tracker_tells_what_the_page_says(site, fgvc, photos, mlflow, tmp_path):
    run = tmp_path / "run"
    given = ["--backbone", "timm/test_resnet", "--data", photos, "--epochs", 2, *TINY, "--out", run]
    result = fgvc("train", *given, "--track", "mlflow", "--set", "tracker.mlflow.experiment=birds")
    assert result.exit_code == 0, result.stderr
    experiment, started, (_, params), *metrics, end = mlflow.told
    assert (experiment, started, end) == (("experiment", "birds"), ("run", None, "run"), ("end", "FINISHED"))
    assert params["backbone.name"] == "fgvc-cli:timm/test_resnet" and params["train.epochs"] == 2
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [step for _, step, _ in metrics[:2]] == [1, 2]
    assert [told["val/top1"] for _, _, told in metrics[:2]] == [line["val"]["top1"] for line in lines]
    assert metrics[2][2]["test/top1"] == json.loads((run / "summary.json").read_text())["test"]["top1"]
    assert len(metrics) == 3 and "warning" not in result.stderr


def test_the_tracker_goes_on_with_the_same_run_and_keeps_its_contract(site, mlflow):
    outcomes = {check.title: check.result() for check in contract("tracker", "mlflow")}
    assert not {title: o.reason for title, o in outcomes.items() if o.status == "failed"}
    assert outcomes["handles interruption and resuming"].status == "passed"
    assert ("run", "0123", "run") in mlflow.told and ("end", "KILLED") in mlflow.told


def test_without_its_package_the_tracker_is_refused_as_the_page_says(page, site, fgvc, photos, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    result = fgvc("train", "--data", photos, *TINY, "--track", "mlflow", "--out", tmp_path / "run")
    assert (result.exit_code, result.stderr) == (
        1, "fgvc: error: tracker 'mlflow' needs a package that is not installed: pip install mlflow.\n"
    )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_the_packages_that_the_page_names_are_there(page):
    section = page(PAGE).section("## A whole plugin: a head")
    named = re.findall(r"`(fgvc-\w[\w-]*)`", section)
    examples = Path(__file__).parents[2] / "docs" / "examples"
    assert sorted(named) == sorted(path.parent.name for path in examples.glob("*/pyproject.toml"))


def test_recipe_backbone_optimizer_and_data_set_train_together(site, fgvc, photos, tmp_path):
    given = ["--recipe", "quick", "--backbone", "plain/3", "--optimizer", "nadam", "--dataset", "orchids", *TINY]
    result = fgvc("train", *given, "--data-root", photos.parent, "--out", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["recipe"] == "quick" and summary["epochs"] == 2
    assert {kind: record["name"] for kind, record in summary["components"].items()} == {
        "backbone": "plain/3", "head": "linear", "optimizer": "nadam", "dataset": "orchids",
    }  # fmt: skip
    assert [summary["splits"][name]["images"] for name in ("train", "val", "test")] == [12, 6, 6]


@pytest.mark.parametrize(("name", "stages"), [("plain", 4), ("plain/2", 2), ("plain/5", 5)])
def test_the_backbone_keeps_its_contract(site, name, stages):
    backbone = build_backbone(get_registry().find("backbone", name), None, 64)
    images, every = torch.rand(2, 3, 64, 64), Reads(tuple(range(stages)), embedding=True)
    features = backbone(images, every)
    for index, info in enumerate(backbone.info.maps):
        assert features.maps[index].shape == (2, info.channels, *info.grid)
        assert info.stride * info.grid[0] == 64
        alone = backbone(images, Reads((index,)))
        assert list(alone.maps) == [index] and alone.embedding is None
        assert torch.equal(alone.maps[index], features.maps[index])
    assert features.embedding.shape == (2, backbone.info.embedding_width)
    assert backbone.cam_layer(None).module is backbone.cam_layer(stages - 1).module

    backbone.prune(Reads((0,)))
    backbone(images, Reads((0,))).maps[0].sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())
    with pytest.raises(UsageError, match=r"the size must be at least 32 and a multiple of .* Try .image_size="):
        build_backbone(get_registry().find("backbone", name), None, 63)


def test_the_specs_strides_are_the_backbones(site):
    component = get_registry().find("backbone", "plain")
    assert component.spec.strides == tuple(m.stride for m in build_backbone(component, None, 64).info.maps)


def test_a_family_has_no_member_of_any_name(site):
    for name in ("plain/", "plain/0", "plain/12", "plain/x"):
        with pytest.raises(UsageError, match="has no such member"):
            get_registry().find("backbone", name)


class Closure:
    """Leaves the gradient of the sum of squares of all parameters."""

    def __init__(self, parameters: list[torch.nn.Parameter], found_inf: float) -> None:
        self.parameters, self.found_inf = parameters, torch.tensor(found_inf)

    def __call__(self) -> Evaluation:
        for parameter in self.parameters:
            parameter.grad = 2 * parameter.detach()
        return Evaluation([], [])


def test_the_optimizer_steps_except_where_the_gradient_is_bad(site):
    component = get_registry().find("optimizer", "nadam")
    parts = {"backbone": torch.nn.Linear(3, 2), "head": torch.nn.Linear(2, 2)}
    groups = [ParameterGroup(part, dict(module.named_parameters())) for part, module in parts.items()]
    options = build(component.options_type(), {"lr": 0.1, "head_lr": 0.5}, "optimizer")
    optimizer = component.load()(groups=groups, options=options)
    weights = [p for module in parts.values() for p in module.parameters()]
    before = [p.detach().clone() for p in weights]

    optimizer.step(Closure(weights, found_inf=1.0))
    assert all(torch.equal(p, old) for p, old in zip(weights, before, strict=True))
    optimizer.step(Closure(weights, found_inf=0.0))
    assert all((p.abs() < old.abs()).any() for p, old in zip(weights, before, strict=True))
    assert optimizer.rates() == {"backbone": 0.1, "head": 0.5}
    optimizer.set_rate(0.5)
    assert optimizer.rates() == {"backbone": 0.05, "head": 0.25}


def test_the_optimizer_over_another_steps_from_the_weights_without_noise(site):
    found = [get_registry().find("optimizer", name) for name in ("sgd", "shaken")]
    module = torch.nn.Linear(3, 2)
    groups = [ParameterGroup("head", dict(module.named_parameters()))]
    plain = build(found[0].options_type(), {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}, "optimizer")
    before, base = module.weight.detach().clone(), found[0].load()(groups=groups, options=plain)
    shaken = found[1].load()(groups=groups, options=build(found[1].options_type(), {"spread": 0.1}, ""), base=base)
    shaken.step(Closure(list(module.parameters()), found_inf=0.0))
    noise = module.weight.grad / 2 - before  # the closure's gradient is twice the weights it saw
    assert 0.01 < noise.abs().max() < 1
    torch.testing.assert_close(module.weight.detach(), before - 0.1 * module.weight.grad)


def test_the_optimizer_over_another_trains(site, fgvc, photos, tmp_path):
    given = ["--optimizer", "shaken", "--set", "optimizer.base=nadam", "--epochs", 1, "--data", photos, *TINY]
    result = fgvc("train", "--backbone", "timm/test_resnet", *given, "--out", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.stderr
    recorded = json.loads(result.stdout)["components"]["optimizer"]
    assert (recorded["name"], recorded["base"]["name"]) == ("shaken", "nadam")
    assert recorded["base"]["options"]["lr"] == 0.02


def test_the_data_set_opens_or_says_what_to_put_where(site, photos, tmp_path, monkeypatch):
    from fgvc_cli.data.opening import open_dataset

    component = get_registry().find("dataset", "orchids")
    monkeypatch.setenv("FGVC_DATA", str(photos.parent))
    dataset = open_dataset(component, None, None, 0)
    assert dataset.splits() == ("train", "val", "test") and dataset.class_names == ("ophrys", "orchis")
    test = dataset.split("test")
    assert [test.keys[i].split("/")[1] for i in range(6)] == [dataset.class_names[label] for label in test.labels]
    assert all(path.is_file() for path in test.images) and len(set(test.keys)) == 6
    monkeypatch.setenv("FGVC_DATA", str(tmp_path))
    with pytest.raises(FgvcError, match=r"lacks labels\.csv\. Next: fgvc data prepare orchids"):
        open_dataset(component, None, None, 0)


@pytest.fixture
def another(site, tmp_path, monkeypatch) -> Iterator[Path]:
    """One more folder for distributions, only for a test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    lookup._discovered.cache_clear()
    yield tmp_path
    lookup._discovered.cache_clear()


def test_a_broken_plugin_is_shown_as_the_page_says(page, fgvc, another):
    install(another, "fgvc-broken", "0.1", {"fgvc-broken": "fgvc_broken"})
    (another / "fgvc_broken.py").write_text("import torch_broken\n")
    importlib.invalidate_caches()
    (shown,) = page(PAGE).blocks("text")
    result = fgvc("list-plugins")
    assert result.exit_code == 0 and shown in result.stdout
    assert fgvc("list-plugins", "--strict-plugins").exit_code == 1


def test_a_plugin_is_kept_out_by_the_commands_of_the_page(page, another):
    install(another, "fgvc-broken", "0.1", {"fgvc-broken": "fgvc_broken"})
    (another / "fgvc_broken.py").write_text("import os\nos._exit(7)\n")
    (block,) = [block for block in page(PAGE).blocks("sh") if "list-plugins" in block]
    commands = {"fgvc list-plugins": (7, False), **dict.fromkeys(block.splitlines(), (0, True))}
    assert len(commands) == 3
    environment = {**os.environ, "PYTHONPATH": str(another)}
    for shown, expected in commands.items():
        command = shown.replace("fgvc list", f"{sys.executable} -m fgvc_cli list")
        done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, "fgvc-broken==0.1 is disabled" in done.stdout) == expected, shown


def test_a_clash_is_refused_as_the_page_says(page, fgvc, another):
    install(another, "fgvc-other", "0.1", {"other": "fgvc_other"})
    module = (
        "from fgvc_cli import HeadSpec, hookimpl\n@hookimpl\ndef fgvc_heads():\n    return [HeadSpec('pim', 'm:A')]\n"
    )
    (another / "fgvc_other.py").write_text(module)
    importlib.invalidate_caches()
    (message,) = re.findall(r"\(`(head 'pim' .*)`\)", page(PAGE).text)
    assert fgvc("show", "head", "pim").stderr == f"fgvc: error: {message}\n"
    assert fgvc("show", "head", "fgvc-cli:pim").exit_code == 0


def test_options_are_read_and_refused_as_the_page_says(fgvc, site):
    result = fgvc("train", "--head", "bilinear", "--set", "head.channels=0", "--weights", "none")
    assert result.exit_code == 2 and "head.channels=0: must be at least 1" in result.stderr
    assert "channels that the outer product is taken of" in fgvc("show", "head", "bilinear").stdout


def checks_of_the_page(page) -> list[Check]:
    """The checks that the page's own test runs."""
    namespace: dict = {}
    exec(page(PAGE).files()["tests/test_contract.py"], namespace)
    (mark,) = namespace["test_contract"].pytestmark
    return mark.args[1]


def test_the_head_keeps_its_contract_by_the_test_of_the_page(page, site):
    alone = {check.title for check in contract("head", "bilinear", partners=False)}
    for check in checks_of_the_page(page):
        if check.title in alone:
            assert check.result().status in ("passed", "not applicable"), check.result().reason


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"),
    [("backbone", "plain"), ("backbone", "plain/2"), ("optimizer", "nadam"), ("optimizer", "shaken"),
     ("dataset", "orchids"), ("explainer", "gradient"), ("recipe", "quick"), ("head", "bilinear")],
)  # fmt: skip
def test_every_component_of_the_page_keeps_its_contract(site, kind, name):
    broken = {str(check): check.result() for check in contract(kind, name, partners=kind == "head")}
    assert not {title: outcome.reason for title, outcome in broken.items() if outcome.status == "failed"}


def test_every_plugin_of_the_page_keeps_what_is_asked_of_a_whole_one(site):
    registry = get_registry()
    chosen = Selection(tuple(plugin for plugin in registry.plugins if not plugin.builtin), ())
    planned = [each for each in CheckPlan(chosen, registry).checks() if "without torch" not in each.check.title]
    outcomes = {(each.name, each.check.title): each.check.result() for each in planned}
    assert {key: o.reason for key, o in outcomes.items() if o.status == "failed"} == {}
    assert outcomes["fgvc_journal", "run events accept a training run"].status == "passed"
    assert outcomes["fgvc_classes", "commands have help texts"].status == "passed"


def test_the_check_of_the_page_prints_what_it_shows(page, site, fgvc):
    (shown,) = [block for block in page(PAGE).blocks("console") if "check-plugin" in block]
    command, _, output = shown.partition("\n")
    result = fgvc(*shlex.split(command)[2:])
    assert result.exit_code == 0
    assert [line.rstrip() for line in result.stdout.splitlines()] == output.splitlines()


def test_the_study_is_listed_run_by_run(site, fgvc):
    result = fgvc("sweep", "--study", "pim-widths", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == [
        "timm-test_resnet-pim-sgd-seed0", "timm-test_resnet-pim-sgd-2-seed0",
    ]  # fmt: skip
