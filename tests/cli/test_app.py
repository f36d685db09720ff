"""The command line: exit codes, errors of one line, global options and help."""

import errno
import logging
import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from fgvc_cli import FgvcError, UsageError, __version__
from fgvc_cli.cli import console, lazy
from fgvc_cli.cli.app import build_app
from fgvc_cli.settings import current


def run(*arguments: str, command=None):
    app = build_app()
    if command is not None:
        app.command("act")(command)
    return CliRunner().invoke(app, list(arguments))


def raising(error: BaseException):
    def act() -> None:
        raise error

    return act


ENDS = {
    "could not be done": (FgvcError("no such run"), 1, "fgvc: error: no such run\n"),
    "wrong command line": (UsageError("no such head"), 2, "fgvc: error: no such head\n"),
    "disk full": (
        OSError(errno.ENOSPC, "No space left on device", "runs/x/model.safetensors"),
        1,
        "fgvc: error: no space left on the disk to write runs/x/model.safetensors; free some, or choose another folder "
        "with --out\n",
    ),
    "a file": (FileNotFoundError(errno.ENOENT, "No such file", "x.jpg"), 1, "fgvc: error: x.jpg: No such file\n"),
    "unexpected": (
        ValueError("a\nb"),
        1,
        "fgvc: error: unexpected error: ValueError: a b (--debug shows where)\n",
    ),
    "interrupted": (KeyboardInterrupt(), 130, ""),
    "done, with inputs skipped": (typer.Exit(3), 3, ""),
    "nobody reads the output": (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, ""),
}


@pytest.mark.parametrize(("error", "code", "line"), ENDS.values(), ids=ENDS)
def test_an_error_is_one_line_and_an_exit_code(error, code, line):
    result = run("act", command=raising(error))
    assert (result.exit_code, result.stderr, result.stdout) == (code, line, "")


AS_OPTIONS = {
    "use `batch_size=4` or `data`": "use --batch-size 4 or --data",
    "`train.clip_norm=1`, `head.fpn_size`": "--set train.clip_norm=1, --set head.fpn_size",
    "`tracker.jsonl.file=a`, `optimizer.base.lr=3`": "--set tracker.jsonl.file=a, --set optimizer.base.lr=3",
    "`out=my dir`, `head.num_selects=[1, 2]`": "--out 'my dir', --set 'head.num_selects=[1, 2]'",
    "`offline=true`, `resume=runs/x`": "--offline, --resume runs/x",
    "`no_such_option=1` of `fgvc train --epochs 3`": "`no_such_option=1` of `fgvc train --epochs 3`",
    "`haed.fpn_size` in `model.safetensors`": "`haed.fpn_size` in `model.safetensors`",
}


@pytest.mark.parametrize(("message", "printed"), AS_OPTIONS.items())
def test_settings_in_messages_of_the_library_are_printed_as_options(message, printed):
    def act() -> None:
        logging.getLogger("fgvc_cli.data").info(message)
        logging.getLogger("fgvc_cli.data").warning(message)
        raise FgvcError(message)

    lines = run("act", command=act).stderr.splitlines()
    assert lines == [printed, f"warning: {printed}", f"fgvc: error: {printed}"]


def test_the_text_of_an_unexpected_error_is_printed_as_it_is():
    assert "`batch_size=4`" in run("act", command=raising(ValueError("`batch_size=4`"))).stderr


@pytest.mark.parametrize("arguments", [["--debug", "act"], ["act", "--debug"]])
def test_debug_prints_the_traceback(arguments):
    result = run(*arguments, command=raising(ValueError("odd")))
    assert "Traceback" in result.stderr
    assert "test_app.py" in result.stderr
    assert result.stderr.endswith("fgvc: error: unexpected error: ValueError: odd (--debug shows where)\n")


def test_the_return_value_of_a_command_is_not_the_exit_code():
    assert run("act", command=lambda: 7).exit_code == 0


def test_quiet_applies_to_one_command():
    def act() -> None:
        console.note("by the way")
        console.warn("take care")

    assert run("act", "--quiet", command=act).stderr == "warning: take care\n"
    assert run("act", command=act).stderr == "by the way\nwarning: take care\n"
    assert not current().quiet


def test_global_options_after_two_dashes_belong_to_the_command():
    seen = []

    def act(names: list[str]) -> None:
        seen.extend(names)

    assert run("act", "--", "--debug", "--quiet", command=act).exit_code == 0
    assert seen == ["--debug", "--quiet"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'? See fgvc --help."),
        (["install", "fgvc-bilinear"], "pip install fgvc-bilinear"),
        (["uninstall"], "pip uninstall NAME"),
        (["--verison"], "No such option: --verison"),
        (["list-plugins", "--knid", "head"], "No such option: --knid"),
        (["list-plugins", "--kind"], "Option '--kind' requires an argument."),
        (["list-plugins", "head"], "Got unexpected extra argument"),
        (["show"], "Missing argument"),
        (["list-plugins", "--disable-plugins"], "--disable-plugins needs a value"),
        (["list-plugins", "--only-plugins", "--json"], "--only-plugins needs a value"),
    ],
)
def test_a_wrong_command_line_exits_with_2(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("fgvc: error: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_version():
    assert run("--version").stdout == f"fgvc {__version__}\n"


def test_without_a_command_the_help_is_shown():
    result = run()
    assert result.exit_code == 0
    assert "Usage: fgvc" in result.stdout


@pytest.mark.parametrize("name", lazy.COMMANDS)
def test_every_command_has_help(name):
    result = run(name, "--help")
    assert result.exit_code == 0 and f"Usage: fgvc {name}" in result.stdout
    assert lazy.COMMANDS[name].summary in " ".join(result.stdout.split())
    assert not re.search("<(bool|str|int|float|path)|list\\[", result.stdout)  # flags take no value; others upper case


def test_python_m_is_the_same_program():
    result = subprocess.run([sys.executable, "-m", "fgvc_cli", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"fgvc {__version__}\n"


def test_a_closed_pipe_ends_quietly():
    program = subprocess.Popen(
        [sys.executable, "-m", "fgvc_cli", "list-plugins", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert program.stdout is not None
    program.stdout.close()
    _, errors = program.communicate(timeout=60)
    assert errors == b""
    assert program.returncode == 1


def test_sigterm_ends_with_its_exit_code_and_tidies_up(tmp_path):
    code = f"""
import os, signal, tempfile, typer
from fgvc_cli.cli import app

def wait(*_, **__):
    with tempfile.TemporaryDirectory(dir={str(tmp_path)!r}):
        os.kill(os.getpid(), signal.SIGTERM)

app.typer.main.get_command = lambda _: type("Command", (), {{"main": wait}})
app.main()
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 143
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limit", ["much", None])
def test_an_invalid_cache_limit_is_refused(monkeypatch, limit):
    monkeypatch.setenv("FGVC_CACHE_LIMIT", "1GB" if limit else "lots")
    result = run("show", "settings", *(["--cache-limit", limit] if limit else []))
    assert result.exit_code == 2 and f"{limit or 'FGVC_CACHE_LIMIT lots'}: give a size" in result.stderr


@pytest.mark.parametrize("arguments", [("train", "--data", ""), ("train", "--data="), ("predict", "")])
def test_empty_arguments_are_not_the_current_folder(fgvc, arguments):
    result = fgvc(*arguments)
    assert result.exit_code == 2 and "empty" in result.stderr and result.stderr.count("\n") == 1


def test_data_is_given_once(fgvc, tmp_path):
    result = fgvc(
        "train",
        "--data",
        tmp_path,
        "--epochs",
        1,
        f"--data={tmp_path}",
        "--set",
        "train.seed=1",
        "--set",
        "train.seed=2",
    )
    assert result.exit_code == 2 and "--data is given twice" in result.stderr
