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


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


HOST_MODULES = {module_name(path, ROOT): path for path in sorted(HOST.rglob("*.py"))}
PLUGIN_MODULES = {module_name(path, PLUGINS): path for path in sorted(PLUGINS.rglob("*.py"))}
MODULES = {**HOST_MODULES, **PLUGIN_MODULES}


def imports(path: Path, *, top_level_only: bool) -> Iterator[str]:
    """Yield the full name of everything a file imports, except under TYPE_CHECKING."""
    package = path.relative_to(PLUGINS if path.is_relative_to(PLUGINS) else ROOT).parent.parts

    def visit(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if top_level_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            parent = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            source = ".".join(part for part in (parent, node.module) if part)
            yield from (f"{source}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")))


def test_import_linter_finds_no_broken_contract():
    program = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run([*program, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def reached(starts: list[str]) -> set[str]:
    """Return the modules of ours that are imported when some are, packages above them included."""
    found: set[str] = set()
    pending = list(starts)
    while pending:
        name = pending.pop()
        parts = name.split(".")
        for module in (".".join(parts[:end]) for end in range(1, len(parts) + 1)):
            if module in MODULES and module not in found:
                found.add(module)
                pending += imports(MODULES[module], top_level_only=True)
    return found


def test_what_the_command_line_imports_is_light():
    commands = [command.target.partition(":")[0] for command in COMMANDS.values()]
    registering = [name for name in PLUGIN_MODULES if "." not in name]
    modules = reached(["fgvc_cli.cli.app", *commands, *registering])
    assert {"fgvc_cli.registry.lookup", "fgvc_cli.cli.app", "fgvc_cli.specs"} <= modules
    heavy = {
        (module, name)
        for module in modules
        for name in imports(MODULES[module], top_level_only=True)
        if name.partition(".")[0] in HEAVY
    }
    assert not heavy


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
        PLUGINS / "fgvc_trackers" / "tensorboard.py",  # the command of another program
    }
    library = [p for p in (*HOST.rglob("*.py"), *PLUGINS.rglob("*.py")) if not p.is_relative_to(HOST / "cli")]
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value.strip()[:90]}"
        for path in library
        if path not in commands
        for node in messages(path)
        if option.search(str(node.value))
    ]
    assert not found, "\n".join(found)
