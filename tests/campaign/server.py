"""Fork a process per command line from one that has imported everything, since importing torch takes seconds.

Reads JSON lines from standard input and answers each with one:

- {"start": {...}} forks `fgvc ARGUMENTS` (see `Order`) and answers with its process number.
- {"wait": NUMBER, "seconds": S} answers with its exit code, negative for a signal, and the CPU time that it took in
  seconds, or null if it still runs.

A forked process is a session of its own, so that what outlives it can be found.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import multiprocessing.util
import os
import pkgutil
import resource
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
"""Audit events of Python that change a file system, besides opening a file to write."""


@dataclass
class Order:
    """A command line and where to run it.

    Attributes:
        arguments: of `fgvc`.
        folder: the current folder; standard output and error go to files beside it, `out` and `err`.
        environment: variables to set.
        signal: to send to itself; 0: none.
        at: number of the write operation below the parent of `folder`, from 0, before which to send it; -1 for none.
        memory: limit of the memory that it may allocate in addition to that of the server, in bytes; 0: none.
    """

    arguments: list[str]
    folder: str
    environment: dict[str, str] = field(default_factory=dict)
    signal: int = 0
    at: int = -1
    memory: int = 0


def import_all() -> None:
    """Import the program, its plugins and what they import when they are used."""
    import fgvc_cli
    from fgvc_cli.registry import get_registry

    for module in pkgutil.walk_packages(fgvc_cli.__path__, "fgvc_cli."):
        if "__main__" not in module.name and "templates" not in module.name:
            importlib.import_module(module.name)
    registry = get_registry()
    for kind in ("head", "optimizer", "dataset", "explainer"):
        for component in registry.components(kind):
            component.load()
    registry.find("backbone", "timm/test_resnet").load()
    for name in ("matplotlib.pyplot", "jinja2", "lmdb", "sklearn.metrics", "torch._dynamo"):
        importlib.import_module(name)
    for name in ("pyarrow.parquet", "onnx", "onnxscript", "onnxruntime"):
        with suppress(ImportError):  # of an extra
            importlib.import_module(name)


def run(order: Order) -> int:
    """Run the command line in this process, and return its exit code."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if order.memory:
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + order.memory,) * 2)
    os.chdir(order.folder)
    os.environ.update(order.environment)
    for number, name in ((0, os.devnull), (1, "../out"), (2, "../err")):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        opened = os.open(name, flags, 0o666)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(n, "w", closefd=False), line_buffering=n == 2) for n in (1, 2))
    atexit._clear()
    atexit.register(multiprocessing.util._exit_function)
    _watch_writes(order)
    sys.argv = ["fgvc", *order.arguments]
    from fgvc_cli.cli.app import main

    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush(), sys.stderr.flush()
    return code


def _watch_writes(order: Order) -> None:
    """Write the name of every write operation to `ops` beside the folder, and send the signal before one of them."""
    own, root, count = os.getpid(), f"{Path(order.folder).parent}{os.sep}", 0
    log = os.open("../ops", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in WRITES:
            path = arguments[0]
        else:
            return
        if isinstance(path, int) or os.getpid() != own:
            return
        full = str(Path(order.folder) / os.fsdecode(path))
        if not full.startswith(root):
            return
        if count == order.at:
            os.kill(own, order.signal)
        count += 1
        os.write(log, f"{event} {full.removeprefix(root)}\n".encode())

    sys.addaudithook(hook)


def wait(process: int, seconds: float) -> tuple[int, float] | None:
    """Return exit code and CPU time of a forked process; None if it still runs after that time."""
    until = time.monotonic() + seconds
    while True:
        found, status, used = os.wait4(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        if time.monotonic() > until:
            return None
        time.sleep(0.01)


def serve() -> None:
    """Answer until the input ends."""
    import_all()
    gc.collect(), gc.freeze()  # copies of pages are made on writing
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any
        if "start" in request:
            order = Order(**request["start"])
            answer = os.fork()
            if answer == 0:
                os._exit(run(order))
        else:
            answer = wait(request["wait"], request["seconds"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).parent]
    serve()
