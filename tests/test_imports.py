"""The layers hold, and what every command imports is light."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from fgvc_cli.cli.lazy import COMMANDS

ROOT = Path(__file__).parents[1]
HOST, PLUGINS = ROOT / "fgvc_cli", ROOT / "plugins"
HEAVY = {"torch", "timm", "torchvision", "numpy", "matplotlib", "PIL", "sklearn", "safetensors", "huggingface_hub"}


def test_import_linter_finds_no_broken_contract():
    program = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run([*program, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_the_command_line_imports_is_light():
    """The program, the modules of all commands, and those that register the built-in plugins."""
    commands = [command.target.partition(":")[0] for command in COMMANDS.values()]
    modules = ["fgvc_cli.cli.app", *commands, *(path.parent.name for path in PLUGINS.glob("*/__init__.py"))]
    program = "import importlib, sys; [*map(importlib.import_module, sys.argv[1:])]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, *modules], check=True, capture_output=True, text=True)
    imported = set(done.stdout.split())
    assert {"fgvc_cli.registry.lookup", "fgvc_heads"} <= imported and not imported & HEAVY


def messages(path: Path) -> Iterator[ast.Constant]:
    """Yield the strings of a file that are not docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node


def test_no_library_message_names_an_option_of_the_command_line():
    option = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
    commands = {
        HOST / "report" / "run_sections.py",  # pages show commands
        HOST / "report" / "study_sections.py",
        HOST / "report" / "audit_page.py",
        PLUGINS / "fgvc_trackers" / "tensorboard.py",  # the commands of other programs
        PLUGINS / "fgvc_launchers" / "ray_cluster.py",
        PLUGINS / "fgvc_launchers" / "slurm.py",
        HOST / "data" / "sending.py",  # an option of Docker
    }
    library = [p for p in (*HOST.rglob("*.py"), *PLUGINS.rglob("*.py")) if not p.is_relative_to(HOST / "cli")]
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value.strip()[:90]}"
        for path in library
        if path not in commands and option.search(path.read_text(encoding="utf-8"))
        for node in messages(path)
        if option.search(str(node.value))
    ]
    assert not found, "\n".join(found)
