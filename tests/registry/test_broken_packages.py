"""Broken plugins next to working ones, through the command line: reported, kept out, and harmless to other commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fgvc_cli.cli.app import build_app

HEADS = "from fgvc_cli import HeadSpec, hookimpl\n\n\n@hookimpl\ndef fgvc_heads():\n    return {}\n"
TRAIN = (
    "train --backbone timm/test_resnet --weights none --image-size 32 --batch-size 8 --epochs 1 --device cpu "
    "--workers 0 --no-cache --set dataset.train=2 --set dataset.val=1 --set dataset.test=1 --set dataset.size=32"
)

CROOKED = """
import torch.nn.functional as F
from torch import nn

from fgvc_cli.contracts import Head, Loss, Objective, Reads


class Crooked(Head):
    def __init__(self, backbone, classes, options):
        super().__init__(backbone, classes, options)
        self.classify = nn.Linear(backbone.embedding_width + 1, classes)

    def reads(self, part=None):
        return Reads(embedding=True)

    def forward(self, features, part=None):
        return self.classify(features.embedding)

    def objectives(self, images, targets):
        yield Objective(images, lambda scores: Loss(F.cross_entropy(scores, targets), scores))


def no_head(**_):
    return nn.Linear(2, 2)
"""


@dataclass(frozen=True)
class Broken:
    """A broken plugin.

    Attributes:
        modules: its files; "{}" stands for the package's name.
        error: what `fgvc train --head NAME` reports.
        cause: what `fgvc list-plugins` reports; empty if the plugin loads.
        head: name of the head; empty: the distribution's name and "-head".
    """

    modules: dict[str, str]
    error: str
    cause: str = ""
    head: str = ""


def loading(head: str, error: str, **modules: str) -> Broken:
    """A plugin that loads and registers a head that does not work."""
    return Broken({"__init__.py": HEADS.format(f"[HeadSpec({head})]"), **modules}, error)


KINDS = {
    "import-error": Broken(
        {"__init__.py": "import torch_of_nowhere\n"}, "No module named 'torch_of_nowhere'", "ModuleNotFoundError"
    ),
    "exit": Broken({"__init__.py": "import sys\n\nsys.exit(3)\n"}, "it called sys.exit(3)", "it called sys.exit(3)"),
    "clash": Broken(
        {"__init__.py": HEADS.format("[HeadSpec('cmal', 'm:A')]")},
        "write fgvc-clash:cmal or fgvc-cli:cmal",
        "use fgvc-clash:cmal",
        "cmal",
    ),
    "no-target": loading("'no-target-head', '{}.head:Haed'", "Did you mean 'Head'?", **{"head.py": "class Head: pass"}),
    "wrong-arguments": loading(
        "'wrong-arguments-head', '{}.head:Head'",
        "target(backbone=..., classes=..., options=...), but its signature is (info, options): ",
        **{"head.py": "class Head:\n    def __init__(self, info, options): pass\n"},
    ),
    "no-head": loading("'no-head-head', '{}.head:no_head'", "expected a Head, got a Linear", **{"head.py": CROOKED}),
    "crooked": loading(
        "'crooked-head', '{}.head:Crooked'",
        "of fgvc-crooked==1.0 failed in forward(): RuntimeError: ",
        **{"head.py": CROOKED},
    ),
}
"""By the name of the distribution, after "fgvc-"."""

FATAL = {"fatal": ("import os\n\nos._exit(9)\n", 9), "endless": ("raise KeyboardInterrupt\n", 130)}
"""Plugins that end the process when imported, and the exit code."""


def package(name: str) -> str:
    return f"fgvc_{name.replace('-', '_')}"


@pytest.fixture
def broken(install) -> None:
    """All of them, installed."""
    for name, kind in KINDS.items():
        modules = {f"{package(name)}/{file}": text.replace("{}", package(name)) for file, text in kind.modules.items()}
        install(f"fgvc-{name}", modules, {name: package(name)})


def run(*arguments: object):
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])


def test_list_plugins_reports_each(broken):
    result = run("list-plugins")
    assert result.exit_code == 0
    for name, kind in KINDS.items():
        (row,) = [line for line in result.stdout.splitlines() if line.startswith(f"fgvc-{name}==1.0  ")]
        failed = bool(kind.cause) and name != "clash"
        assert ("failed" in row, "loaded" in row) == (failed, not failed) and re.search(r" \d+ ms( |$)", row)
        assert kind.cause in " ".join(result.stdout.split())
        assert failed == (f"pip uninstall fgvc-{name}, or FGVC_DISABLE_PLUGINS=fgvc-{name}" in result.stdout)
    for builtin in ("pim", "cmal", "swin_t", "gradcam", "tensorboard"):
        assert f" {builtin} " in result.stdout


def test_training_with_other_components_works(broken, tmp_path):
    result = run(*TRAIN.split(), "--head", "linear", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "run" / "summary.json").is_file()
    assert not [name for name in KINDS if f"fgvc-{name}" in result.output]


@pytest.mark.parametrize("name", KINDS)
def test_training_with_it_fails_in_one_line(broken, tmp_path, name):
    result = run(*TRAIN.split(), "--head", KINDS[name].head or f"{name}-head", "--out", tmp_path / "run")
    assert result.exit_code in (1, 2)
    *notes, last = result.stderr.splitlines()
    assert last.startswith("fgvc: error: ") and KINDS[name].error in last and f"fgvc-{name}" in last
    assert "Traceback" not in result.output and not any("error" in line for line in notes)


@pytest.mark.parametrize(
    "flags", [("--disable-plugins", ",".join(f"fgvc-{name}" for name in KINDS)), ("--no-external-plugins",)]
)
def test_disabled_plugins_are_listed_and_not_imported(broken, flags):
    plugins = json.loads(run("list-plugins", "--json", *flags).stdout)["plugins"]
    found = {plugin["distribution"]: (plugin["status"], plugin["cause"]) for plugin in plugins if not plugin["builtin"]}
    assert found == {f"fgvc-{name}": ("disabled", flags[0]) for name in KINDS}
    assert not [name for name in KINDS if package(name) in sys.modules]
    assert run("show", "head", "cmal", *flags).exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crooked", "no-head", "no-target"])
def test_check_plugin_finds_what_loading_does_not(broken, name):
    result = run("check-plugin", f"fgvc-{name}", "--quick")
    assert result.exit_code == 1
    assert f"{name}-head" in result.stdout and "failed" in result.stdout


def process(site: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]),
        **variables,
    }
    command = [sys.executable, "-m", "fgvc_cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", FATAL)
def test_plugin_that_ends_the_process_can_be_disabled(install, name):
    text, code = FATAL[name]
    site = install(f"fgvc-{name}", {f"{package(name)}.py": text})
    dead = process(site, "list-plugins")
    assert (dead.returncode, dead.stdout) == (code, "")
    assert (f"FGVC_DISABLE_PLUGINS=fgvc-{name}" in dead.stderr) == (name == "endless")
    if name == "fatal":
        kept = process(site, "show", "head", "pim", FGVC_DISABLE_PLUGINS=f"fgvc-{name}")
        assert kept.returncode == 0 and "fpn_size" in kept.stdout
