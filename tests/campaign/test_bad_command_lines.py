"""Give every option of every command values that it cannot mean: each is refused in one line, at once.

The command lines are made from the options themselves, so that those of new commands are tried too. Each runs in a
process forked from one that has imported torch (server.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from fgvc_cli.cli.lazy import COMMANDS, _type_name, builtin_commands

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]  # each process has its own

COMPONENTS = {"backbone", "head", "optimizer", "dataset", "explainer", "recipe", "study", "track", "explain"}
"""Options that name a component."""
INPUTS = {"data", "config", "resume", "run", "weights"}
"""Options with the path of something that has to exist."""
TEXTS = {"out", "class", "json", "csv", "name"}
"""Options that take any text."""
SETTINGS = ("x", "x.y", "train", "train.epochs", "nosuch.option=1", "train.nosuch=1", "train.epochs=many", "=", ".=1",
            "train.epochs=1" + 23 * "0", "head.nosuch=1", "augment.flip=2", "optimizer.lr=nan")  # fmt: skip

BASES: dict[str, tuple[str, ...]] = {
    "train": ("--data", "{photos}", "--backbone", "timm/test_resnet", "--weights", "none", "--epochs", "1"),
    "evaluate": ("{runs}/linear",),
    "predict": ("{photos}/test/amber/test0.png", "--run", "{runs}/linear"),
    "explain": ("{photos}/test/amber/test0.png", "--run", "{runs}/linear"),
    "embed": ("{photos}/test", "--run", "{runs}/linear", "--out", "e.csv"),
    "classes list": ("{runs}/knn",),
    "classes add": ("{runs}/knn", "{extra}"),
    "data info": ("--data", "{photos}"),
    "data check": ("--data", "{photos}"),
    "data prepare": ("demo",),
    "data index": ("{photos}/../shards", "--out", "own.shards"),
    "data cache": (),
    "weights list": (),
    "weights show": ("timm/test_resnet", "--offline"),
    "weights fetch": ("timm/test_resnet", "--offline"),
    "weights import": ("{weights}", "--backbone", "timm/test_resnet"),
    "bench": ("--backbone", "timm/test_resnet", "--head", "linear", "--optimizer", "sgd", "--seconds", "0.01"),
    "bench compare": ("nowhere/a", "nowhere/b"),
    "sweep": ("--data", "{photos}", "--backbone", "timm/test_resnet", "--head", "linear", "--optimizer", "sgd"),
    "compare": ("{runs}/linear", "{runs}/other"),
    "audit": ("--data", "{photos}", "--backbone", "timm/test_resnet", "--weights", "none", "--image-size", "32"),
    "calibrate": ("{runs}/linear",),
    "export": ("{runs}/linear", "--out", "linear.onnx"),
    "serve": ("{runs}/linear", "--port", "0"),
    "report": ("{runs}/linear",),
    "show": ("head", "pim"),
    "new-plugin": ("mine", "--kind", "head"),
    "check-plugin": ("linear",),
}
"""Command lines that are right but for the bad option; a new command without one is tried with nothing else."""


def leaves(name: str) -> Iterator[tuple[str, Any]]:
    """Yield a command and its subcommands, by name."""
    command = builtin_commands()[name].loaded()
    below = getattr(command, "commands", {})
    if not below or getattr(command, "invoke_without_command", False):
        yield name, command
    for inner, subcommand in below.items():
        yield f"{name} {inner}", subcommand


def bad_values(parameter: Any) -> list[str]:
    """Return values that the option cannot mean."""
    name, kind = parameter.name.strip("_"), _type_name(parameter)
    low, high = (getattr(getattr(parameter, "type", parameter), bound, None) for bound in ("min", "max"))
    if name == "set":
        return list(SETTINGS)
    if "int" in kind or "float" in kind:
        bounds = [str(bound + way) for bound, way in ((low, -1), (high, 1)) if bound is not None]
        return ["x", "", *bounds, "1" + 23 * "0" if "int" in kind else "nan", "0x10" if high is None else "-" * 3]
    if "|" in (parameter.metavar or ""):
        return ["nonsense", ""]
    if name in COMPONENTS:
        return ["nonsense", "timm/nonsense", "nowhere:linear", ""]
    if name in INPUTS:
        return ["nowhere/at/all.pth", "~nouser/x", ""]
    if name in TEXTS:
        return [""]
    return ["nonsense", ""] if name in ("device", "split", "tta", "target", "cover", "kind", "sort", "group") else [""]


def lines_of(name: str, command: Any) -> Iterator[tuple[str, ...]]:
    """Yield the bad command lines of a command."""
    base = (*name.split(), *BASES.get(name, ()))
    yield (*base, "--no-such-option")
    yield (*name.split(), *(["x"] * 40), "--jsno")
    for parameter in command.params:
        if parameter.param_type_name == "argument" or parameter.name == "help":
            continue
        if name == "compare" and parameter.name in ("device", "precision"):  # of runs that are still to be evaluated
            continue
        option = parameter.opts[0]
        yield (*base, option[:-1] + "x" * (len(option) > 4))  # misspelt
        if parameter.is_flag:
            yield (*base, f"{option}=maybe")
            continue
        yield (*base, option)  # the value is missing
        for value in bad_values(parameter):
            yield (*base, option, value)


def lines(name: str) -> list[tuple[str, ...]]:
    """Return the bad command lines of a command and its subcommands."""
    return list(dict.fromkeys(line for each, command in leaves(name) for line in lines_of(each, command)))


def test_there_are_many() -> None:
    assert sum(len(lines(name)) for name in COMMANDS) >= 250
    assert set(BASES) <= {each for name in COMMANDS for each, _ in leaves(name)}


@pytest.mark.parametrize("name", COMMANDS)
def test_bad_command_lines(name: str, world: Any, new_place: Any, refusal: Any) -> None:
    failed = []
    place = new_place()
    for line in (tried := lines(name)):
        arguments = tuple(
            argument.format(photos=world.photos, runs=world.runs, weights=world.weights, extra=world.extra)
            for argument in line
        )
        ended = place.run(*arguments)
        try:
            refusal(ended)
            assert not list(place.work.iterdir()), [path.name for path in place.work.iterdir()]
        except AssertionError as error:
            failed.append(f"fgvc {' '.join(line)}: {str(error)[:600]}")
            place = new_place()
    sys.stdout.write(f"{name}: {len(tried)} command lines, {len(failed)} not refused in one line\n")
    assert not failed, "\n".join(failed)
