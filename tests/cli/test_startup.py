"""`fgvc --help` and `fgvc list-plugins` start quickly and import nothing heavy."""

import statistics
import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "timm", "torchvision", "numpy", "matplotlib", "PIL", "sklearn")
ROUNDS = 7
ALLOWED = 4.0

COMMANDS = {"--help": ["--help"], "list-plugins": ["list-plugins"], "list-plugins --json": ["list-plugins", "--json"]}


@pytest.mark.parametrize("arguments", [*COMMANDS.values(), ["show", "head", "pim"]], ids=" ".join)
def test_nothing_heavy_is_imported(arguments):
    program = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('heavy:', *[m for m in {HEAVY} if m in sys.modules], file=sys.stderr))\n"
        f"sys.argv = ['fgvc', *{arguments}]\n"
        "from fgvc_cli.cli.app import main\nmain()"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout
    assert result.stderr == "heavy:\n"


def test_it_starts_in_four_times_what_its_libraries_take():
    programs = {
        "libraries": ["-c", "import typer, rich, pluggy"],
        **{name: ["-m", "fgvc_cli", *arguments] for name, arguments in COMMANDS.items()},
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):  # in turn, so that another load on the machine falls on all of them
        for name, arguments in programs.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name in COMMANDS:
        assert medians[name] <= ALLOWED * medians["libraries"], medians
