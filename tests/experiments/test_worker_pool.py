"""The process that the workers of a study are forked from."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import signal
from fgvc_cli.experiments.worker_pool import WorkerPool
signal.signal(signal.SIGINT, lambda *_: None)
with WorkerPool(1, ["slow_module"]) as pool:
    print("started", flush=True)
    pool._context.Process(target=print, args=("worker",)).start()
"""


@pytest.mark.skipif(not hasattr(os, "setpgrp"), reason="needs process groups")
def test_ctrl_c_while_the_modules_are_imported_prints_no_traceback(tmp_path: Path) -> None:
    importing = tmp_path / "importing"
    (tmp_path / "slow_module.py").write_text(
        f"import pathlib, time\npathlib.Path({str(importing)!r}).touch()\ntime.sleep(1)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True
    ) as program:
        assert program.stdout is not None
        program.stdout.readline()
        while not importing.exists():
            assert program.poll() is None
        os.killpg(program.pid, signal.SIGINT)
        out, err = program.communicate(timeout=60)
    assert err == "" and program.returncode == 0 and "worker" in out
