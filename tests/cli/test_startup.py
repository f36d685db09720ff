"""`fgvc --help` and the like start quickly and import nothing heavy."""

import subprocess
import sys
import time

HEAVY = ("torch", "timm", "torchvision", "numpy", "matplotlib", "PIL", "sklearn")
ROUNDS = 2
ALLOWED = 4.0


def test_nothing_heavy_is_imported():
    program = (
        "import contextlib, sys\n"
        "from fgvc_cli.cli.app import main\n"
        "for command in ('list-plugins', 'show head pim', 'train --help'):\n"
        "    sys.argv = ['fgvc', *command.split()]\n"
        "    with contextlib.suppress(SystemExit): main()\n"
        f"print('heavy:', *[m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "sgd" in result.stdout and "fpn_size" in result.stdout and "--epochs" in result.stdout
    assert result.stderr == "heavy:\n"


def test_it_starts_in_four_times_what_its_libraries_take():
    programs = {
        "libraries": ["-c", "import typer, rich, pluggy"],
        "--help": ["-m", "fgvc_cli", "--help"],
        "list-plugins": ["-m", "fgvc_cli", "list-plugins"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):  # alternately, so that other load on the machine affects all of them
        for name, arguments in programs.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
            seconds[name].append(time.perf_counter() - started)
    best = {name: min(times) for name, times in seconds.items()}
    assert max(best.values()) <= ALLOWED * best["libraries"], best
