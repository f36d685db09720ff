"""The launcher of this machine: how runs share it, and the process that they are forked from."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fgvc_launchers.local import LocalLauncher


def test_runs_share_the_machine(monkeypatch):
    monkeypatch.setattr("fgvc_launchers.local.usable_cores", lambda: 8)

    def share(slot, jobs, device="cpu"):
        return LocalLauncher(None, jobs, device).share(slot)

    assert share(0, 1) == (None, {}) and share(2, 3) == (2, {}) and share(0, 20) == (1, {})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-abc")
    gpus = [share(slot, 3, "cuda") for slot in range(3)]
    assert gpus == [(None, {"CUDA_VISIBLE_DEVICES": gpu}) for gpu in ("3", "GPU-abc", "3")]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [share(slot, 2, "cuda")[1]["CUDA_VISIBLE_DEVICES"] for slot in range(2)] == ["0", "1"]


PROGRAM = """
import signal
from fgvc_launchers.children import child_context
signal.signal(signal.SIGINT, lambda *_: None)
context = child_context(["slow_module"])
print("started", flush=True)
child = context.Process(target=print, args=("worker",))
child.start()
child.join()
"""


pytestmark = pytest.mark.skipif(not hasattr(os, "setpgrp"), reason="needs process groups")


@pytest.fixture
def importing(tmp_path: Path) -> Callable[[float], subprocess.Popen[str]]:
    """A function that starts the program, and returns once the server imports a module, which takes some seconds."""

    def start(seconds: float) -> subprocess.Popen[str]:
        file = tmp_path / "importing"
        (tmp_path / "slow_module.py").write_text(
            "import os, pathlib, time\n"
            f"pathlib.Path({str(file)!r}).write_text(str(os.getpid()))\ntime.sleep({seconds})\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        pipe, command = subprocess.PIPE, [sys.executable, "-c", PROGRAM]
        program = subprocess.Popen(
            command, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True
        )
        while not (file.exists() and file.read_text()):
            assert program.poll() is None
            time.sleep(0.01)
        return program

    return start


def test_ctrl_c_while_the_modules_are_imported_prints_no_traceback(importing) -> None:
    with importing(1) as program:
        os.killpg(program.pid, signal.SIGINT)
        out, err = program.communicate(timeout=60)
    assert err == "" and program.returncode == 0 and "worker" in out


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_the_server_ends_with_its_parent_during_its_imports(importing, tmp_path: Path) -> None:
    with importing(100) as program:
        server = int((tmp_path / "importing").read_text())
        program.kill()
        program.communicate(timeout=60)
    until = time.monotonic() + 60
    while Path(f"/proc/{server}/stat").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{server}/stat").exists()
