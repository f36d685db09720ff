"""docs/performance.md: its commands and files exist, its ratios are those of its figures, its claims are the code's."""

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
    """What benchmarks/update_choices.py defines."""
    sys.path.insert(0, str(root / "benchmarks"))
    try:
        return runpy.run_path(str(root / "benchmarks" / "update_choices.py"))
    finally:
        sys.path.remove(str(root / "benchmarks"))


def test_every_script_exists_and_has_the_options_that_are_shown(page, root):
    commands = SCRIPT.findall(page(PAGE).text)
    assert len(commands) > 10
    shared = (root / "benchmarks" / "in_turn.py").read_text()
    for script, words in commands:
        source = (root / "benchmarks" / script).read_text() + shared
        for word in shlex.split(words.split(",")[0].rstrip(")")):
            assert not word.startswith("--") or f'"{word}"' in source, f"{script} {word}"


def test_every_set_and_name_that_is_shown_exists(page, choices):
    registry, seen = get_registry(), set()
    for script, words in SCRIPT.findall(page(PAGE).text):
        if script == "update_choices.py":
            arguments = shlex.split(words.split(",")[0].rstrip(")"))
            first_option = next((i for i, word in enumerate(arguments) if word.startswith("--")), len(arguments))
            assert set(arguments[:first_option]) <= choices["SETS"].keys()
            seen |= set(arguments[:first_option])
        for kind, name in re.findall(r"--(backbone|head) (\S+)", words):
            if name != "NAME":
                registry.find(kind, name)
    assert seen == choices["SETS"].keys()


def test_the_script_of_choices_runs(choices, capsys):
    sizes = "--backbone timm/test_resnet --head linear --image-size 32 --batch-size 2 --rounds 1 --device cpu"
    choices["main"](["heads", "sgd", "zeros", "pooling", *sizes.split()])
    printed = capsys.readouterr().out
    assert all(re.search(rf"^{name}$", printed, re.MULTILINE) for name in ("heads", "sgd", "zeros", "pooling"))
    assert re.search(r"cmal .* G multiply-adds an image", printed)


def test_every_file_that_is_named_exists(page, root):
    text = page(PAGE).text
    for name in re.findall(r"(?:tests|benchmarks|fgvc_cli|plugins)/[\w/]+\.py", text):
        assert (root / name).is_file(), name
    for link, anchor in re.findall(r"\]\(([\w.]*)(?:#([\w-]+))?\)", text):
        target = page(f"docs/{link}" if link else PAGE)
        headings = {
            re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
            for line in target.text.splitlines()
            if line.startswith("#")
        }
        assert not anchor or anchor in headings, f"{link}#{anchor}"


def test_the_options_of_bench_exist(page, fgvc):
    text = page(PAGE).text
    shown = fgvc("bench", "--help").output
    for option in re.findall(r"--[a-z-]+", " ".join(re.findall(r"^fgvc bench --.*", text, re.MULTILINE))):
        assert option in shown, option
    assert fgvc("bench", "compare", "--help").exit_code == 0


def test_times_linear_and_over_arithmetic_follow_from_the_figures(page):
    rows = page(PAGE).rows("## What an update costs beyond its arithmetic")
    assert {row[0].strip("`") for row in rows} == {c.name for c in get_registry().components("backbone") if c.builtin}
    base: dict[str, tuple[float, float]] = {}
    for backbone, _, _, head, milliseconds, ratio, adds, over in rows:
        if head == "linear":
            base[backbone] = float(milliseconds), float(adds)
        time, arithmetic = float(milliseconds) / base[backbone][0], float(adds) / base[backbone][1]
        assert float(ratio) == pytest.approx(time, abs=0.001)
        assert float(over) == pytest.approx(time / arithmetic, rel=0.004)  # multiply-adds are printed to two places


def test_other_ratios_follow_from_their_figures(page):
    text = " ".join(page(PAGE).text.replace(",", "").split())
    quotients = {
        r"([\d.]+) ms with `sgd` ([\d.]+) ms with `sam`: ([\d.]+) times": False,
        r"([\d.]+) ms an update of ResNet-50 where .*? take ([\d.]+): ([\d.]+) of the time": True,
        r"([\d.]+) ms beside ([\d.]+) \(([\d.]+) times as fast\)": False,
        r"([\d.]+) ms beside ([\d.]+) \(([\d.]+) times\)": False,
    }
    for pattern, first_over_second in quotients.items():
        (found,) = re.findall(pattern, text)
        first, second, ratio = map(float, found)
        expected = first / second if first_over_second else second / first
        assert ratio == pytest.approx(expected, abs=0.01), pattern
    for row in page(PAGE).rows("## Settings that are faster on some machines"):
        assert float(row[3]) == pytest.approx(float(row[2]) / float(row[1]), abs=0.001)


def test_cmal_is_as_many_plain_updates_as_the_page_says(page):
    adds = {(row[0], row[3]): float(row[6]) for row in page(PAGE).rows("## What an update costs beyond its arithmetic")}
    (said,) = re.findall(r"five objectives are ([\d.]+) plain updates of ResNet-50", page(PAGE).text)
    assert float(said) == pytest.approx(adds["`resnet50`", "cmal"] / adds["`resnet50`", "linear"], abs=0.05)


def test_a_run_looks_at_the_device_as_seldom_as_the_page_says(page):
    from fgvc_cli.training.trainer import READ_EVERY

    assert f"summed every {READ_EVERY} updates" in " ".join(page(PAGE).text.split())
