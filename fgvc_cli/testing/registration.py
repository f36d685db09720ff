"""Registers a plugin in a Python of its own that has no torch, timm or torchvision to import."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache

from fgvc_cli.registry.records import HEAVY_MODULES

PATIENCE = 60.0
"""Seconds that a registration may take: far more than any should."""

PROGRAM = """
import json, sys
told = json.loads(sys.argv[1])
sys.path[:] = told["path"]

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in told["heavy"]:
            raise ImportError(f"{name} must not be imported only to register")

sys.meta_path.insert(0, Absent())
from fgvc_cli.registry.installed import InstalledPlugin
from fgvc_cli.registry.loading import Loader
from fgvc_cli.registry.records import cause_of
record = Loader().load(InstalledPlugin(*told["plugin"]))
options = {}
for component in record.components:
    try:
        component.options_type()
    except BaseException as error:
        options[f"{component.kind} {component.name}"] = cause_of(error)
print(json.dumps({"cause": record.cause, "options": options}))
"""


@dataclass(frozen=True)
class Registration:
    """What came of it.

    Attributes:
        cause: why it failed, in one line; empty if it did not.
        options: for each component ("head pim") whose options could not be imported: why.
    """

    cause: str
    options: dict[str, str]


@cache
def register_alone(distribution: str, name: str, module: str, version: str) -> Registration:
    """Register a plugin where nothing heavy can be imported; the arguments are those of `InstalledPlugin`."""
    told = {"path": sys.path, "heavy": HEAVY_MODULES, "plugin": (distribution, name, module, version)}
    command = [sys.executable, "-c", PROGRAM, json.dumps(told)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return Registration(f"it took longer than {PATIENCE:.0f} s", {})
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return Registration((done.stderr.strip().splitlines() or ["Python ended without a word"])[-1], {})
    return Registration(**json.loads(lines[-1]))
