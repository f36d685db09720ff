"""Every kind of broken plugin as an installed package: each is named, each can be kept out, and the rest works."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fgvc_cli import settings
from fgvc_cli.cli.app import build_app
from fgvc_cli.registry import lookup

HEADS = "from fgvc_cli import HeadSpec, hookimpl\n\n\n@hookimpl\ndef fgvc_heads():\n    return {}\n"
TINY = "--backbone timm/test_resnet --weights none --image-size 32 --batch-size 8 --epochs 1 --device cpu --workers 0 "
DATA = "--no-cache --set dataset.train=2 --set dataset.val=1 --set dataset.test=1 --set dataset.size=32"


@dataclass(frozen=True)
class Broken:
    """A broken plugin.

    Attributes:
        modules: its package, by file; "{}" stands for the package's name.
        cause: what `fgvc list-plugins` says of it; empty where it can only be seen once the component is used.
        asked: what a person types after `--head`.
        answer: what they are told.
    """

    modules: dict[str, str]
    cause: str
    asked: str
    answer: str


def failing(text: str, cause: str, name: str) -> Broken:
    """A plugin that fails to load, and would have registered a head of that name."""
    return Broken({"__init__.py": text}, cause, name, cause)


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

KINDS = {
    "import-error": failing(
        "import torch_of_nowhere\n", "ModuleNotFoundError: No module named 'torch_of_nowhere'", "import-error-head"
    ),
    "exit": failing("import sys\n\nsys.exit(3)\n", "it called sys.exit(3)", "exit-head"),
    "raising-hook": failing(HEADS.format("[][0]"), "IndexError: list index out of range", "raising-hook-head"),
    "misspelt-hook": failing(
        HEADS.format("[]").replace("fgvc_heads", "fgvc_haeds"),
        "it implements 'fgvc_haeds', which is no hook of fgvc. Did you mean 'fgvc_heads'",
        "misspelt-hook-head",
    ),
    "no-spec": failing(HEADS.format("['bilinear']"), "'bilinear' where a HeadSpec belongs", "no-spec-head"),
    "wrong-api": failing(
        HEADS.format("[HeadSpec('wrong-api-head', 'm:A', api=99)]"),
        "was written for version 99 of the plugin interface, and this fgvc speaks version 1: upgrade fgvc-cli",
        "wrong-api-head",
    ),
    "clash": Broken(
        {"__init__.py": HEADS.format("[HeadSpec('cmal', 'm:A')]")},
        "the name is claimed twice: write fgvc-clash:cmal",
        "cmal",
        "head 'cmal': more than one plugin registers that name; write fgvc-clash:cmal or fgvc-cli:cmal.",
    ),
    "no-target": Broken(
        {"__init__.py": HEADS.format("[HeadSpec('no-target-head', '{}.head:Haed')]"), "head.py": "class Head: pass\n"},
        "",
        "no-target-head",
        "head 'no-target-head' of fgvc-no-target==1.0 could not be loaded: AttributeError: fgvc_no_target.head has no "
        "'Haed'. Did you mean 'Head'?",
    ),
    "wrong-arguments": Broken(
        {
            "__init__.py": HEADS.format("[HeadSpec('wrong-arguments-head', '{}.head:Head')]"),
            "head.py": "class Head:\n    def __init__(self, info, options): pass\n",
        },
        "",
        "wrong-arguments-head",
        "head 'wrong-arguments-head' of fgvc-wrong-arguments==1.0 breaks its contract: fgvc_wrong_arguments.head:Head "
        "is called as target(backbone=..., classes=..., options=...) and its signature is (info, options): ",
    ),
    "no-head": Broken(
        {"__init__.py": HEADS.format("[HeadSpec('no-head-head', '{}.head:no_head')]"), "head.py": CROOKED},
        "",
        "no-head-head",
        "breaks its contract: fgvc_no_head.head:no_head makes a Linear, not a Head",
    ),
    "crooked": Broken(
        {"__init__.py": HEADS.format("[HeadSpec('crooked-head', '{}.head:Crooked')]"), "head.py": CROOKED},
        "",
        "crooked-head",
        "unexpected error in fgvc-crooked==1.0: RuntimeError: ",
    ),
}
"""By the name of the distribution, after "fgvc-"."""

DEADLY = {
    "deadly": "import os\n\nos._exit(9)\n",
    "endless": "raise KeyboardInterrupt\n",  # as a person would, who waits for it in vain
}
"""What takes the whole program with it, however it is loaded."""


def package(name: str) -> str:
    return f"fgvc_{name.replace('-', '_')}"


def wheels(make_wheel: Callable[..., Path], folder: Path, contents: dict[str, dict[str, str]]) -> list[Path]:
    return [
        make_wheel(
            folder,
            f"fgvc-{name}",
            {f"{package(name)}/{file}": text.replace("{}", package(name)) for file, text in files.items()},
        )
        for name, files in contents.items()
    ]


@pytest.fixture(scope="module")
def site(make_wheel, pip_install, tmp_path_factory) -> Path:
    """The folder that all of them are installed in, but for the deadly ones."""
    folder = tmp_path_factory.mktemp("wheels")
    pip_install(folder / "site", wheels(make_wheel, folder, {name: kind.modules for name, kind in KINDS.items()}))
    return folder / "site"


@pytest.fixture
def installed(site, monkeypatch) -> Iterator[None]:
    """All of them, on the path of this process."""
    monkeypatch.syspath_prepend(str(site))
    for variable in settings.VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    lookup._discovered.cache_clear()
    importlib.invalidate_caches()
    yield
    lookup._discovered.cache_clear()
    for name in [name for name, module in sys.modules.items() if str(site) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def run(*arguments: str):
    return CliRunner().invoke(build_app(), list(arguments))


def process(site: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(site), **variables}
    command = [sys.executable, "-m", "fgvc_cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_list_names_every_one_and_says_what_is_wrong_with_it(site):
    done = process(site, "list-plugins")
    assert done.returncode == 0 and done.stderr == ""
    for name, kind in KINDS.items():
        (row,) = [line for line in done.stdout.splitlines() if line.startswith(f"fgvc-{name}==1.0  ")]
        fails = kind.cause and name != "clash"
        assert ("failed" in row) == bool(fails) and ("loaded" in row) == (not fails)
        assert re.search(r" \d+ ms( |$)", row)  # what loading it took
        assert kind.cause in " ".join(done.stdout.split())
        assert bool(fails) == (f"pip uninstall fgvc-{name}, or FGVC_DISABLE_PLUGINS=fgvc-{name}" in done.stdout)
    for builtin in ("pim", "cmal", "swin_t", "gradcam", "tensorboard"):
        assert f" {builtin} " in done.stdout


def test_training_with_other_components_works_beside_all_of_them(installed, tmp_path):
    result = run("train", *f"{TINY} {DATA} --head linear --out".split(), str(tmp_path / "run"))
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "run" / "summary.json").is_file()
    assert not [name for name in KINDS if f"fgvc-{name}" in result.output]


@pytest.mark.slow
def test_training_with_other_components_works_in_a_process_of_its_own(site, tmp_path):
    done = process(site, "train", *f"{TINY} {DATA} --head linear --out".split(), str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "summary.json").is_file()
    assert not [name for name in KINDS if f"fgvc-{name}" in done.stdout + done.stderr]


@pytest.mark.parametrize("name", KINDS)
def test_who_asks_for_it_gets_one_line(installed, tmp_path, name):
    kind = KINDS[name]
    result = run("train", *f"{TINY} {DATA} --head {kind.asked} --out".split(), str(tmp_path / "run"))
    assert result.exit_code in (1, 2)
    *notes, last = result.stderr.splitlines()
    assert last.startswith("fgvc: error: ") and kind.answer in last
    assert f"fgvc-{name}" in last
    assert "Traceback" not in result.output and not any("error" in line for line in notes)


@pytest.mark.parametrize("name", KINDS)
def test_each_can_be_kept_out_and_is_still_seen(installed, name):
    for flags in (["--disable-plugins", f"fgvc-{name}"], ["--no-external-plugins"]):
        result = run("list-plugins", "--json", *flags)
        plugins = {plugin["distribution"]: plugin for plugin in json.loads(result.stdout)["plugins"]}
        assert (plugins[f"fgvc-{name}"]["status"], plugins[f"fgvc-{name}"]["cause"]) == ("disabled", flags[0])
        assert package(name) not in sys.modules
    assert f"fgvc-{name}==1.0 is disabled (--no-external-plugins)" in run("list-plugins", *flags).stdout


def test_a_clash_that_is_kept_out_gives_the_name_back(installed):
    assert run("show", "head", "cmal").exit_code == 2
    assert run("show", "head", "cmal", "--disable-plugins", "fgvc-clash").exit_code == 0
    assert run("show", "head", "fgvc-cli:cmal").exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crooked", "no-head", "no-target"])
def test_what_loads_and_breaks_its_contract_is_found_by_the_check(installed, name):
    result = run("check-plugin", f"fgvc-{name}", "--quick")
    assert result.exit_code == 1
    assert f"{name}-head" in result.stdout and "broken" in result.stdout
    assert result.stderr.splitlines()[-1].startswith("fgvc: error: ")


@pytest.mark.parametrize("name", DEADLY)
def test_what_takes_the_program_with_it_can_be_seen_and_kept_out(name, make_wheel, pip_install, tmp_path):
    site = tmp_path / "site"
    pip_install(site, wheels(make_wheel, tmp_path, {name: {"__init__.py": DEADLY[name]}}))
    dead = process(site, "list-plugins")
    assert (dead.returncode, dead.stdout) == ({"deadly": 9, "endless": 130}[name], "")
    hint = f"interrupted while fgvc-{name}==1.0 was being loaded: FGVC_DISABLE_PLUGINS=fgvc-{name} leaves it out"
    assert (hint in dead.stderr) == (name == "endless")
    seen = process(site, "list-plugins", "--no-external-plugins")
    assert seen.returncode == 0 and f"fgvc-{name}==1.0 is disabled (--no-external-plugins)" in seen.stdout
    kept = process(site, "show", "head", "pim", FGVC_DISABLE_PLUGINS=f"fgvc-{name}")
    assert kept.returncode == 0 and "fpn_size" in kept.stdout
