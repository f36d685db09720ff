"""Count the project's files and functions that a command runs, and how deep its calls nest.

Runs three commands, each in a process of its own under `sys.setprofile`: `fgvc train` for one epoch on a few images of
the demo dataset, `fgvc explain IMAGE --occlude` on that run, and `fgvc list-plugins`. Prints for each the number of

- files: of `fgvc_cli` and the built-in plugins, with at least one function that ran;
- functions that ran: methods and lambdas included, comprehensions excluded;
- calls, nested: the largest number of project functions on one stack, library functions in between not counted.

A file that is only imported does not count: module bodies, class bodies and the functions they call are excluded
unless `--imports` is given. `--list` prints the files, `--functions` also the functions. `--only explain` counts one
command. `--data photos/` trains on a folder of images instead of the demo dataset, whose generator takes 12 files.

    python benchmarks/call_paths.py --list
"""

from __future__ import annotations

import argparse
import json
import runpy
import shlex
import subprocess
import sys
import tempfile
import threading
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import fgvc_cli

ROOT = Path(fgvc_cli.__file__).parents[1]
PREFIXES = (str(ROOT / "fgvc_cli") + "/", str(ROOT / "plugins") + "/")
PROGRAM = str(ROOT / "fgvc_cli" / "__main__.py")
COMPREHENSIONS = ("<genexpr>", "<listcomp>", "<setcomp>", "<dictcomp>")

TRAIN = (
    "train --backbone timm/test_resnet --head linear --weights none --image-size 32 --batch-size 32 --epochs 1"
    " --workers 0 --device cpu --out run"
)
DEMO = "--set dataset.train=4 --set dataset.val=2 --set dataset.test=2 --set dataset.size=32"
EXPLAIN = "explain image.png --occlude --run run --device cpu --out explained"


class CallPaths:
    """Profiler of one process, for `sys.setprofile`.

    Args:
        imports: count code that runs while a module is imported too.

    Attributes:
        seen: code objects of the project functions that ran.
        depth: the largest number of project functions on the stack of one thread.
    """

    def __init__(self, imports: bool) -> None:
        self.imports = imports
        self.seen: set[CodeType] = set()
        self.depth = 0
        self.threads = threading.local()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Handle one event of the interpreter."""
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(PREFIXES):
            return
        if code.co_name in COMPREHENSIONS or code.co_filename == PROGRAM:
            return
        here, step = self.threads.__dict__, 1 if event == "call" else -1
        if not code.co_flags & CO_OPTIMIZED:  # the body of a module or a class
            here["importing"] = here.get("importing", 0) + step
            if not self.imports:
                return
        elif here.get("importing") and not self.imports:
            return
        here["depth"] = here.get("depth", 0) + step
        self.depth = max(self.depth, here["depth"])
        self.seen.add(code)

    def counts(self) -> dict[str, Any]:
        """Return the depth and the names of the functions that ran, by file."""
        files: dict[str, list[str]] = {}
        for code in sorted(self.seen, key=lambda code: (code.co_filename, code.co_firstlineno)):
            name = str(Path(code.co_filename).relative_to(ROOT))
            files.setdefault(name, []).append(code.co_qualname)
        return {"depth": self.depth, "functions": files}


def profile(arguments: list[str], result: Path, imports: bool) -> None:
    """Run a command in this process under the profiler and write its counts to `result`."""
    paths = CallPaths(imports)
    threading.setprofile(paths)
    sys.setprofile(paths)
    try:
        sys.argv = ["fgvc", *arguments]
        runpy.run_module("fgvc_cli", run_name="__main__")
    finally:
        sys.setprofile(None)
        result.write_text(json.dumps(paths.counts()), encoding="utf-8")


def counts_of(command: str, folder: Path, imports: bool) -> dict[str, Any]:
    """Run a command in a new process in `folder`, and return its counts."""
    result = folder / "counts.json"
    line = [sys.executable, __file__, "--profile", str(result), str(int(imports)), "--cache", str(folder / "cache")]
    done = subprocess.run([*line, *shlex.split(command)], capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        sys.exit(f"fgvc {command} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def show(command: str, counts: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Print the counts of a command, with `--list` and `--functions` also the names."""
    files = counts["functions"]
    functions = sum(map(len, files.values()))
    print(f"{command:14}{len(files):4} files {functions:5} functions {counts['depth']:4} calls, nested")
    for name, found in files.items() if arguments.list or arguments.functions else ():
        print(f"    {len(found):3}  {name}")
        for function in found if arguments.functions else ():
            print(f"           {function}")


def main() -> None:
    """Count and print."""
    import torch
    from harness import option_parser, report
    from PIL import Image

    parser = option_parser(__doc__)
    parser.add_argument("--only", choices=("train", "explain", "list-plugins"), help="count one command")
    parser.add_argument("--imports", action="store_true", help="count code that runs at import too")
    parser.add_argument("--list", action="store_true", help="print the files")
    parser.add_argument("--functions", action="store_true", help="print the files and their functions")
    parser.add_argument("--data", type=Path, help="folder of images to train on, instead of the demo dataset")
    arguments = parser.parse_args()
    data = shlex.join(["--data", str(arguments.data.resolve())]) if arguments.data else DEMO
    commands = {"train": f"{TRAIN} {data}", "explain": EXPLAIN, "list-plugins": "list-plugins"}
    figures = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.radial_gradient("L").convert("RGB").save(folder / "image.png")
        needed = ["train", "explain"] if arguments.only == "explain" else [arguments.only]
        for command in commands if arguments.only is None else needed:
            figures[command] = counts_of(commands[command], folder, arguments.imports)
    for command, counts in figures.items():
        if arguments.only in (None, command):
            show(command, counts, arguments)
    report(arguments, torch.device("cpu"), figures)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--profile"]:
        profile(sys.argv[4:], Path(sys.argv[2]), imports=sys.argv[3] == "1")
    else:
        main()
