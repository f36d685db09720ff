"""Imports run one way: commands, the host's parts, contracts, specs; plugins see the contracts and specs alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOST, PLUGINS = ROOT / "fgvc_cli", ROOT / "plugins"
HEAVY = {"torch", "timm", "torchvision", "numpy", "matplotlib", "PIL", "sklearn", "safetensors", "huggingface_hub"}
FOR_PLUGINS = ("fgvc_cli.contracts", "fgvc_cli.errors", "fgvc_cli.options", "fgvc_cli.specs")

FOUNDATION = {"_version", "errors", "options", "specs", "hookspecs", "settings", "sizes", "cores"}
COMMAND_LINE = {"commands", "app", "__main__"}


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


HOST_MODULES = {module_name(path, ROOT): path for path in sorted(HOST.rglob("*.py"))}
PLUGIN_MODULES = {module_name(path, PLUGINS): path for path in sorted(PLUGINS.rglob("*.py"))}
MODULES = {**HOST_MODULES, **PLUGIN_MODULES}


def imports(path: Path, *, top_level_only: bool) -> Iterator[str]:
    """Give the full name of all that a file imports; what only the type checker sees does not count."""
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


def layer(module: str) -> int:
    """Return how high a module of the host stands: 0 foundation, 1 contracts, 2 parts, 3 the command line."""
    _, _, rest = module.partition(".")
    part = rest.split(".")[0]
    if not part or part in FOUNDATION:
        return 0
    if part == "contracts":
        return 1
    return 3 if part in COMMAND_LINE else 2


def host_module(imported: str) -> str:
    """Return the module of the host that an imported name lies in."""
    while imported not in HOST_MODULES:
        imported = imported.rpartition(".")[0]
    return imported


@pytest.mark.parametrize("module", HOST_MODULES)
def test_the_host_imports_no_plugin(module):
    plugins = {name.partition(".")[0] for name in PLUGIN_MODULES}
    wrong = [name for name in imports(HOST_MODULES[module], top_level_only=False) if name.split(".")[0] in plugins]
    assert not wrong


@pytest.mark.parametrize("module", [name for name in HOST_MODULES if name != "fgvc_cli"])
def test_the_host_imports_downwards_only(module):
    names = imports(HOST_MODULES[module], top_level_only=False)
    imported = {host_module(name) for name in names if name.partition(".")[0] == "fgvc_cli"}
    assert not [name for name in imported if layer(name) > layer(module)]


def test_the_package_itself_stands_on_the_foundation():
    names = imports(HOST_MODULES["fgvc_cli"], top_level_only=True)
    assert {layer(host_module(name)) for name in names if name.partition(".")[0] == "fgvc_cli"} == {0}


@pytest.mark.parametrize("module", PLUGIN_MODULES)
def test_plugins_import_contracts_and_specs_alone(module):
    own = module.partition(".")[0]
    others = {name.partition(".")[0] for name in PLUGIN_MODULES} - {own}
    for name in imports(PLUGIN_MODULES[module], top_level_only=False):
        assert name.partition(".")[0] not in others, f"{module} imports another plugin"
        if name.partition(".")[0] == "fgvc_cli":
            from_package = name.rpartition(".")[0] == "fgvc_cli" and name not in HOST_MODULES
            allowed = any(name == prefix or name.startswith(f"{prefix}.") for prefix in FOR_PLUGINS)
            assert from_package or allowed, f"{module} imports {name}"


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
    commands = [name for name in HOST_MODULES if name.startswith("fgvc_cli.commands")]
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
