"""`fgvc --help` and the like import nothing heavy, so that they start quickly."""

import subprocess
import sys

HEAVY = ("torch", "timm", "torchvision", "numpy", "matplotlib", "PIL", "sklearn")
PROGRAM = f"""
import contextlib, sys
from fgvc_cli.cli.app import main

def run(*commands):
    for command in commands:
        sys.argv = ["fgvc", *command.split()]
        with contextlib.suppress(SystemExit):
            main()

run("--help", "list-plugins", "train --help")
loaded = [name for name in ("pydantic", *{HEAVY}) if name in sys.modules]
run("show head pim")  # for a value that is given, typer imports pydantic
print("heavy:", *loaded, *[name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


def test_nothing_heavy_is_imported():
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert "sgd" in result.stdout and "fpn_size" in result.stdout and "--epochs" in result.stdout
    assert result.stderr == "heavy:\n"
