"""A run folder that several processes use, and what a killed one leaves in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from fgvc_cli import files
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.runs.folder import LOCK_FILE, Run, check_out, new_run, training_lock
from fgvc_cli.runs.results import EpochMetrics, TrainMetrics

GONE = int(subprocess.check_output([sys.executable, "-c", "import os; print(os.getpid())"]))
"""Number of a process that has ended."""


@pytest.fixture
def elsewhere(tmp_path):
    """Another process that trains into `tmp_path`."""
    code = "import sys; from pathlib import Path; from fgvc_cli.runs.folder import training_lock as t\n"
    code += "with t(Path(sys.argv[1])): print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        yield process
        process.kill()


def test_two_processes_never_train_into_one_folder(elsewhere, tmp_path):
    (tmp_path / "config.toml").touch()
    with pytest.raises(FgvcError, match="Another process"), training_lock(tmp_path):
        pytest.fail("locked twice")
    with pytest.raises(FgvcError, match="Another process"), new_run(tmp_path, True):
        pytest.fail("replaced")
    assert (tmp_path / "config.toml").exists()
    elsewhere.kill()
    elsewhere.wait()
    with new_run(tmp_path, True) as run:
        assert {path.name for path in run.path.iterdir()} == {LOCK_FILE}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_lock_ends_with_its_process_although_its_loaders_live(tmp_path):
    with training_lock(tmp_path):
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            os.close(writer)
            os.read(reader, 1)  # until the writer is closed
            os._exit(0)
    code = "import sys; from pathlib import Path; from fgvc_cli.runs.folder import training_lock as t\n"
    code += "with t(Path(sys.argv[1])): pass"
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    os.close(writer)
    os.waitpid(child, 0)


@pytest.mark.parametrize("steps", range(7))
def test_a_kill_while_a_run_is_replaced_blocks_nothing(tmp_path, monkeypatch, steps):
    for name in ("config.toml", "model.safetensors", "summary.json", "last/state.safetensors", "evaluation/test/a.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    done = 0

    def dying(real):
        def delete(*arguments, **keywords):
            nonlocal done
            if done == steps:
                raise KeyboardInterrupt
            done += 1
            return real(*arguments, **keywords)

        return delete

    with monkeypatch.context() as patch:
        for name in ("unlink", "rmdir"):  # what `shutil.rmtree` calls too
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            with new_run(tmp_path, True):
                pass
        except KeyboardInterrupt:
            pass
    assert not Run(tmp_path).finished or steps == 0
    with new_run(tmp_path, True):
        assert {path.name for path in tmp_path.iterdir()} == {LOCK_FILE}


def test_what_a_kill_leaves_before_the_first_file_is_no_content(tmp_path):
    for name in (f".config.toml.{GONE}.part", f".model.safetensors.{GONE}.part", LOCK_FILE):
        (tmp_path / name).touch()
    check_out(tmp_path, force=False)
    with new_run(tmp_path, False):
        assert {path.name for path in tmp_path.iterdir()} == {LOCK_FILE}
    (tmp_path / ".notes.part").touch()
    with pytest.raises(UsageError, match="notes"):
        check_out(tmp_path, force=True)


def test_the_first_write_to_a_folder_deletes_what_killed_processes_left(tmp_path):
    left, running, other = (tmp_path / f".{name}.part" for name in (f"a.json.{GONE}", f"a.json.{os.getppid()}", "mine"))
    for path in (left, running, other):
        path.touch()
    files.write_text(tmp_path / "b.json", "")
    assert [path.exists() for path in (left, running, other)] == [False, True, True]


def test_of_several_lines_on_an_epoch_the_last_counts(tmp_path):
    run = Run(tmp_path)
    epochs = [EpochMetrics(epoch, TrainMetrics(4), None, seconds=at) for at, epoch in enumerate([1, 2, 2, 3])]
    lines = [json.dumps(line.as_json()) for line in epochs]
    run.metrics_file.write_text("\n".join([*lines, '{"half']))
    run.keep_metrics(3)
    assert [(each.epoch, each.seconds) for each in run.metrics] == [(1, 0), (2, 2), (3, 3)]
