"""docs/performance.md: its commands and files exist, and its ratios follow from its figures."""

from __future__ import annotations

import re
import runpy
import shlex
import sys

import pytest

from fgvc_cli.registry import get_registry

PAGE = "docs/performance.md"
SCRIPT = re.compile(r"(?<!tests/)benchmarks/(\w+\.py)([^`\n]*)")


@pytest.fixture(scope="module")
def root(page):
    return page(PAGE).path.parents[1]


@pytest.fixture(scope="module")
def choices(root):
    """The globals of benchmarks/update_choices.py."""
    sys.path.insert(0, str(root / "benchmarks"))
    try:
        return runpy.run_path(str(root / "benchmarks" / "update_choices.py"))
    finally:
        sys.path.remove(str(root / "benchmarks"))


def test_scripts_options_and_sets_exist(page, root, choices):
    commands = SCRIPT.findall(page(PAGE).text)
    assert len(commands) > 10
    registry, seen, shared = get_registry(), set(), (root / "benchmarks" / "harness.py").read_text()
    for script, words in commands:
        source = (root / "benchmarks" / script).read_text() + shared
        arguments = shlex.split(words.split(",")[0].rstrip(")"))
        for word in arguments:
            assert not word.startswith("--") or f'"{word}"' in source, f"{script} {word}"
        if script == "update_choices.py":
            first_option = next((i for i, word in enumerate(arguments) if word.startswith("--")), len(arguments))
            seen |= set(arguments[:first_option])
        for kind, name in re.findall(r"--(backbone|head) (\S+)", words):
            if name != "NAME":
                registry.find(kind, name)
    assert seen == choices["SETS"].keys()


@pytest.mark.slow
def test_the_script_of_choices_runs(choices, capsys):
    sizes = "--backbone timm/test_resnet --head linear --image-size 32 --batch-size 2 --rounds 1 --device cpu"
    choices["main"](["heads", "sgd", *sizes.split()])
    printed = capsys.readouterr().out
    assert re.search(r"cmal .* GMACs per image, time vs. MAC bound", printed)


def test_ratios_follow_from_the_figures(page):
    base: dict[str, tuple[float, float]] = {}
    for backbone, _, _, head, milliseconds, ratio, macs, bound in page(PAGE).rows("## Updates and their MAC bound"):
        if head == "linear":
            base[backbone] = float(milliseconds), float(macs)
        time, work = float(milliseconds) / base[backbone][0], float(macs) / base[backbone][1]
        assert float(ratio) == pytest.approx(time, abs=0.001)
        assert float(bound) == pytest.approx(time / work, rel=0.004)  # MACs are printed to two places
    for row in page(PAGE).rows("## Settings that are faster on some machines"):
        assert float(row[3]) == pytest.approx(float(row[2]) / float(row[1]), abs=0.001)
