"""`fgvc train --devices`: counting devices, starting and ending processes, and other numbers of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.errors import UsageError
from fgvc_cli.launch import Launch
from fgvc_cli.training.distributed import Ranks
from fgvc_cli.training.processes import Processes, count_devices
from fgvc_cli.training.setup import Job
from fgvc_cli.training.trainer import Schedule, Trainer


def test_one_process_per_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert [count_devices(wanted, cuda) for wanted in ("auto", "1", "4")] == [4, 1, 4]
    assert [count_devices(wanted, cpu) for wanted in ("auto", "3")] == [1, 3]
    for wanted, device in (("5", cuda), ("2", torch.device("cuda:1")), ("2", torch.device("mps")), ("9999", cpu)):
        with pytest.raises(UsageError, match=f"devices={wanted}"):
            count_devices(wanted, device)
    for wanted in ("0", "-1", "x", "", "1.5", "²"):
        with pytest.raises(UsageError, match="give a number"):
            count_devices(wanted, cuda)


def test_several_machines_need_an_address():
    assert Processes(4, 2, "node1:29400").count == 8
    assert Processes(4, 2, "[fe80::1]:29400").count == 8
    for nodes, rendezvous in ((2, ""), (1, "node1:29400"), (2, "node1"), (2, "node1:x"), (2, "node1:70000")):
        with pytest.raises(UsageError):
            Processes(4, nodes, rendezvous)


def job(count, **train):
    config = SimpleNamespace(train=TrainOptions(batch_size=32, grad_accum_steps=2, **train))
    fields = dict.fromkeys(Job.__dataclass_fields__) | {"config": config, "ranks": Ranks(Launch(0, count, 0, count))}
    return Job(**fields)


def test_the_batch_of_all_processes_and_its_rate():
    assert (job(4).batch_size, job(4).images_per_update, job(4).rate_scale) == (32, 256, 1)
    assert (job(4, lr_scaling="linear").images_per_update, job(4, lr_scaling="linear").rate_scale) == (256, 4)
    whole = job(4, split_batches=True, lr_scaling="linear")
    assert (whole.batch_size, whole.images_per_update, whole.rate_scale) == (8, 64, 1)
    plain, scaled = (Schedule(TrainOptions(warmup_epochs=1, epochs=3), 10, scale) for scale in (1, 4))
    assert [scaled.factor(n) for n in range(30)] == [4 * plain.factor(n) for n in range(30)]


@pytest.mark.parametrize(("before", "now", "batch", "next_batch"), [(4, 2, 6, 12), (2, 4, 6, 4), (2, 1, 99, 40)])
def test_an_epoch_goes_on_at_the_same_image_with_another_number_of_processes(before, now, batch, next_batch):
    """Rounded up to a whole update, of two batches."""
    progress = SimpleNamespace(processes=before, batch=batch, epoch=0)
    given = SimpleNamespace(
        progress=progress, job=job(now), ranks=Ranks(Launch(0, now, 0, now)), run=SimpleNamespace(path="run"),
        train_loader=range(40),
    )  # fmt: skip
    Trainer._take_over(given)
    assert (progress.batch, progress.processes) == (next_batch, now)


# From here on with processes.


def started(*arguments):
    """`fgvc train` after the line of an epoch, and its lines so far."""
    command = [sys.executable, "-m", "fgvc_cli", "train", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith("epoch"):
            break
    return process, "".join(seen)


def ended(process, number):
    """What was printed after a signal; the processes that it started have ended too."""
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    process.send_signal(number)
    rest = process.stderr.read()
    assert process.wait(60) == (-number if number == signal.SIGKILL else 128 + number)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in children.stdout.split()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return rest, len(children.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_all_processes_and_one_goes_on(photos, tmp_path, number):
    run = tmp_path / "run"
    process, seen = started(
        "--backbone", "timm/test_resnet", "--weights", "none", "--image-size", "32", "--epochs", "500", "--device",
        "cpu", "--workers", "0", "--data", photos, "--batch-size", "8", "--optimizer", "sgd",
        "--set", "train.split_batches=true",
        "--set", "train.ema=0.9", "--set", "train.lr_scaling=linear", "--devices", "2", "--out", run,
    )  # fmt: skip
    assert "4 on each of 2 processes (8 images per update)" in seen
    rest, children = ended(process, number)
    assert children == 2
    assert rest.count("error") == rest.count("fgvc: error: Interrupted in epoch") == 1, rest
    assert f"fgvc train --resume {run} --devices 2" in rest
    process, seen = started("--resume", run)
    assert "was trained by 2 processes and goes on with 1" in seen
    rest, children = ended(process, signal.SIGINT)
    assert children == 0 and "Interrupted" in rest
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {line["processes"] for line in lines} == {1, 2}
    assert all(24 <= line["train"]["images"] <= 27 for line in lines)  # two leave out what they cannot share


@pytest.mark.slow
def test_a_wrong_setting_is_one_line(photos, tmp_path):
    command = [sys.executable, "-m", "fgvc_cli", "train", "--data", photos, "--devices", "2", "--device", "cpu"]
    done = subprocess.run([*command, "--head", "liner"], capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
