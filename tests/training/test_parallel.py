"""Two processes make the update of one: gradients, idle parameters, two passes, saving, and how they end."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fgvc_cli.cli import training_view
from fgvc_cli.cli.training_view import resume_command
from fgvc_cli.data.order import WHOLE, Shard, batches_in_epoch, epoch_batches
from fgvc_cli.errors import UsageError
from fgvc_cli.launch import Launch, launched
from fgvc_cli.training.distributed import SINGLE_PROCESS, Ranks, process_group

HERE = Path(__file__).parent
CASES = (
    "plain", "accumulated", "clipped", "skip", "zero", "zero, one never reached", "zero, one reached once",
    "skip, one reached once", "unfrozen", "zero, unfrozen",
)  # fmt: skip


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes found, by rank."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    context = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")  # a fork imports nothing
    started = [context.Process(target=_in_process, args=(shared, rank, folder)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    printed = [(folder / f"stderr{rank}").read_text() for rank in range(2)]
    assert all(process.exitcode == 0 for process in started), printed
    assert not any("find_unused_parameters" in text for text in printed), printed  # a warning of torch
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


def _in_process(shared, rank, folder):
    handle = os.open(folder / f"stderr{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, 2)
    os.environ.update(shared, RANK=str(rank), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    runpy.run_path(str(HERE / "two_processes.py"))["main"](folder)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_on_half_the_batch_are_one_on_all_of_it(two, case):
    (first, alone), (second, _) = (result["as_one"][case] for result in two)
    assert first["weights"].keys() == second["weights"].keys() == alone["weights"].keys()
    for name, ours in first["weights"].items():
        assert torch.equal(ours, second["weights"][name]), name
        torch.testing.assert_close(ours, alone["weights"][name], rtol=0, atol=1e-6, msg=name)
    assert first["moved"] == second["moved"] == alone["moved"]
    assert all(name.startswith(("trunk", "experts")) for name in first["moved"])


def test_what_is_idle_is_left_or_coasts(two):
    skipped, coasted = (
        two[0]["as_one"][f"{missing_grad}, one reached once"][0]["weights"] for missing_grad in ("skip", "zero")
    )
    assert not torch.equal(skipped["experts.b.weight"], coasted["experts.b.weight"])
    assert torch.equal(skipped["experts.c.weight"], coasted["experts.c.weight"])
    assert "experts.c.weight" not in two[0]["as_one"]["zero, one never reached"][0]["moved"]


def test_only_a_head_that_leaves_parameters_out_pays_for_the_search(two):
    searching = {case: two[0]["as_one"][case][0]["searching"] for case in CASES}
    assert {case for case, it_is in searching.items() if not it_is} == {"plain", "accumulated", "clipped", "unfrozen"}


def test_the_ascent_is_each_process_own_and_the_descent_the_mean(two):
    found = [result["uphill"] for result in two]
    for first, second in zip(*(result["gradients"] for result in found), strict=True):
        (ascent, descent), (other_ascent, other_descent) = first, second
        for parameter in range(len(ascent[0])):
            for seen, alone in ((ascent[0], ascent[1]), (other_ascent[0], other_ascent[1])):
                torch.testing.assert_close(seen[parameter], alone[parameter], rtol=0, atol=1e-6)
            mean = (descent[1][parameter] + other_descent[1][parameter]) / 2
            torch.testing.assert_close(descent[0][parameter], mean, rtol=0, atol=1e-6)
            assert torch.equal(descent[0][parameter], other_descent[0][parameter])
        assert not torch.allclose(ascent[0][0], other_ascent[0][0])
    for name, ours in found[0]["weights"].items():
        assert torch.equal(ours, found[1]["weights"][name]), name


def test_an_update_reduces_once(two):
    assert [result["reductions"] for result in two] == [1, 1]


@pytest.mark.parametrize("optimizer", ["momentum", "sam"])
def test_a_loss_that_is_not_finite_in_one_process_moves_no_process(two, optimizer):
    for result in two:
        assert result["not_finite"][optimizer] == {"bad": 1.0, "same": True}


def test_two_passes_draw_alike_in_a_process_and_not_in_both(two):
    first, second = (result["replayed"] for result in two)
    for found in (first, second):
        assert len(found["masks"]) == 4
        for one, other in zip(found["masks"][::2], found["masks"][1::2], strict=True):
            assert torch.equal(one, other)
        assert found["tracked"] == 2
    assert not torch.equal(first["masks"][0], second["masks"][0])
    assert not torch.allclose(first["own"], second["own"])
    assert torch.equal(first["average"], second["average"])
    torch.testing.assert_close(first["average"], (first["own"] + second["own"]) / 2)


def test_all_begin_from_the_weights_and_the_statistics_of_the_first(two):
    """It alone loads what `--weights` names."""
    first, second = (result["begun"] for result in two)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert second["trunk.1.running_mean"].unique().tolist() == [3.0]


def test_what_was_saved_goes_on_bit_for_bit_in_each_process(two):
    for result in two:
        found = result["resumed"]
        for name, value in found["straight"].items():
            assert torch.equal(value, found["gone_on"][name]), name
        before, after = found["metrics"]
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
    means = [result["resumed"]["straight"]["trunk.1.running_mean"] for result in two]
    assert not torch.equal(*means)  # within an epoch each has its own


def test_what_two_saved_goes_on_with_one(two):
    first, second = (result["resumed"] for result in two)
    processes, metrics, buffers = first["alone"]
    assert processes == 2
    assert metrics["images"] == 12
    for name, total in metrics["sums"].items():
        torch.testing.assert_close(total, first["metrics"][0][name] + second["metrics"][0][name])
    for mean, one, other in zip(buffers, first["own"], second["own"], strict=True):
        torch.testing.assert_close(mean.double(), (one.double() + other.double()) / 2)


def test_processes_agree(two):
    assert [result["agreement"]["order"] for result in two] == ["01", "01"] or two[0]["agreement"]["order"] == "0"
    assert two[1]["agreement"]["order"] == "01"
    for rank, result in enumerate(two):
        found = result["agreement"]
        assert found["greatest"] == 15
        assert found["agree"] == (True, False)
        assert found["from_first"] == {"made by": 0}
        assert found["gathered"] == [0, 1], rank
        assert found["means"] == {"loss": 1.0}
        assert found["device"] == "cpu"


def test_the_process_that_fails_says_so_and_the_other_ends_silently(two):
    assert two[1]["ended"] == ("FgvcError", "this process alone cannot go on")
    assert two[0]["ended"] == ("SystemExit", "1")


@pytest.mark.parametrize(
    ("images", "batch_size", "processes"), [(64, 8, 2), (61, 8, 2), (50, 8, 3), (33, 16, 2), (7, 1, 3)]
)
def test_an_epoch_is_shared_out_evenly_and_no_image_twice(images, batch_size, processes):
    shares = [_epoch(images, batch_size, Shard(rank, processes)) for rank in range(processes)]
    assert len({len(share) for share in shares}) == 1
    assert len(shares[0]) == batches_in_epoch(images, batch_size, processes)
    for side_by_side in zip(*shares, strict=True):
        assert len({len(batch) for batch in side_by_side}) == 1
        assert len(side_by_side[0]) >= min(2, batch_size)
    seen = np.concatenate([batch for share in shares for batch in share])
    assert len(set(seen.tolist())) == len(seen)
    assert len(seen) > images - 2 * processes
    whole = _epoch(images, batch_size * processes)
    for number, batch in enumerate(whole[: images // (batch_size * processes)]):
        assert np.array_equal(np.concatenate([share[number] for share in shares]), batch)


def test_one_process_has_the_epoch_it_always_had():
    order = np.concatenate(_epoch(61, 8))
    assert np.array_equal(np.sort(order), np.arange(61))
    for ours, shared in zip(_epoch(61, 8), _epoch(61, 8, Shard(0, 1)), strict=True):
        assert np.array_equal(ours, shared)


def _epoch(images, batch_size, share=WHOLE):
    return [batch.indices for batch in epoch_batches(np.zeros(images, np.int64), batch_size, 3, 5, share)]


def test_without_torchrun_nothing_is_initialized(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with process_group() as ranks:
        assert ranks is SINGLE_PROCESS
        assert not torch.distributed.is_initialized()
    environment = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "x", "MASTER_PORT": "1"}
    assert launched(environment) == Launch()
    assert launched({**environment, "WORLD_SIZE": "4", "RANK": "3"}) == Launch(3, 4, 0, 4)


def test_a_device_for_each_process(monkeypatch):
    ranks = Ranks(Launch(1, 2, 1, 2))
    with pytest.raises(UsageError, match="cannot share one device"):
        ranks.device(torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="2 processes on a machine with 1 GPU; start 1 per machine"):
        ranks.device(torch.device("cuda"))
    chosen = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert ranks.device(torch.device("cuda")) == chosen[0] == torch.device("cuda:1")
    assert SINGLE_PROCESS.device(torch.device("cuda:5")) == torch.device("cuda:5")


def test_the_command_that_resumes(monkeypatch):
    assert resume_command(Path("x")) == "fgvc train --resume x"
    monkeypatch.setattr(training_view, "launched", lambda: Launch(1, 4, 1, 2))
    assert resume_command(Path("x")) == "torchrun --nnodes 2 --nproc-per-node 2 -m fgvc_cli train --resume x"
    monkeypatch.setattr(training_view, "started_by_fgvc", lambda: True)
    assert resume_command(Path("x")) == "fgvc train --resume x --devices 2 --nodes 2 --rendezvous HOST:PORT"


# From here on with torchrun itself.


def torchrun(*arguments, stop_at=0, **options):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "STOP_AT": str(stop_at)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, **options)


def settings(photos, head="linear"):
    return [
        "--backbone", "timm/test_resnet", "--head", head, "--weights", "none", "--image-size", "32", "--epochs", "2",
        "--batch-size", "4", "--device", "cpu", "--workers", "0", "--data", photos, "--lr", "0.02",
        "--set", "train.label_smoothing=0.1", "--set", "train.grad_accum_steps=2",
        "--set", "train.ema=0.9",
    ]  # fmt: skip


def figures(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """A run that two processes trained, and what torchrun printed."""
    out = tmp_path_factory.mktemp("parallel") / "run"
    given = [*settings(photos), "--track", "tensorboard", "--out", out, "--json"]
    return out, torchrun(HERE / "watched_train.py", "train", *given)


@pytest.mark.slow
def test_torchrun_trains_one_run(run, photos, monkeypatch):
    out, done = run
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)  # one document: the second process prints nothing
    assert summary["processes"] == 2 and summary == json.loads((out / "summary.json").read_text())
    assert done.stderr.count("on each of 2 processes (16 images per update)") == 1
    assert done.stderr.count("epoch   2/2") == 1
    assert len(list((out / "trackers" / "tensorboard").iterdir())) == 1  # the second process tells nobody
    lines = figures(out)
    assert [line["train"]["images"] for line in lines] == [24, 24]  # 27: one more for each would be too few
    assert [line["processes"] for line in lines] == [2, 2]
    assert summary["val"]["images"] == 6 and summary["test"]["images"] == 12
    weights = [load_file(out.parent / f"rank{rank}.safetensors") for rank in range(2)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    evaluated = subprocess.run(
        [sys.executable, "-m", "fgvc_cli", "evaluate", out, "--json", "--device", "cpu"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(evaluated.stdout)["top1"] == summary["test"]["top1"]


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_and_they_go_on_bit_for_bit(run, photos, tmp_path):
    whole, _ = run
    out = tmp_path / "run"
    stopped = torchrun(HERE / "watched_train.py", "train", *settings(photos), "--out", out, stop_at=3)
    assert stopped.returncode != 0
    assert stopped.stderr.count("fgvc: error: Interrupted in epoch 2") == 1, stopped.stderr
    command = f"torchrun --nproc-per-node 2 -m fgvc_cli train --resume {out}"
    assert command in stopped.stderr
    assert f"exitcode  : {128 + signal.SIGTERM}" in stopped.stderr
    done = torchrun("-m", "fgvc_cli", "train", "--resume", out)
    assert done.returncode == 0, done.stderr
    assert figures(out) == figures(whole)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (out, whole))
    for name, value in theirs.items():
        assert torch.equal(value, ours[name]), name


@pytest.mark.slow
def test_ctrl_c_at_torchrun_saves_once(photos, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "fgvc_cli", "train"]
    started = subprocess.Popen(
        [*command, *map(str, settings(photos)), "--out", str(out), "--epochs", "500"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stderr is not None
    for line in started.stderr:
        if line.startswith("epoch"):
            break
    started.send_signal(signal.SIGINT)
    rest = started.communicate(timeout=60)[1]
    assert started.returncode != 0
    assert rest.count("fgvc: error: Interrupted in epoch") == 1, rest
    assert "SIGKILL" not in rest
    assert (out / "last/state.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "arguments", "line"),
    [
        (None, ["--head", "liner"], "Did you mean"),
        ("nowhere", [], "nowhere"),
        (None, ["--weights", "nothing.safetensors"], "no such file"),
    ],
)
def test_what_fails_is_said_once_and_by_nobody_else(photos, tmp_path, data, arguments, line):
    given = [*settings(data or photos), *arguments]
    done = torchrun("-m", "fgvc_cli", "train", *given, "--out", tmp_path / "run")
    assert done.returncode != 0
    assert done.stderr.count("fgvc: error: ") == 1, done.stderr
    assert line in done.stderr
    assert done.stderr.count("Traceback") == done.stderr.count("ChildFailedError: ") == 1, done.stderr  # torchrun's own
    assert not (tmp_path / "run").exists()
