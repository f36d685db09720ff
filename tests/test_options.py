from dataclasses import dataclass
from typing import Literal

import pytest

from fgvc_cli import UsageError, option
from fgvc_cli.options import NoOptions, as_toml, build, describe, parse_setting


@dataclass(frozen=True)
class Options:
    count: int = option(3, "how many", minimum=1, maximum=9)
    rate: float = option(0.1, "how fast")
    kind: Literal["a", "b"] = option("a", "which")
    sizes: int | tuple[int, ...] = option((1, 2), "how large", minimum=1)
    on: bool = option(True, "whether")
    head: float | None = option(None, "if any")
    text: str = option("", "words")
    folder: str | None = option(None, "words, if any")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("o.count=4", 4),
        ("o.rate=1", 1.0),
        ("o.rate=1e-3", 1e-3),
        ("o.kind=b", "b"),
        ('o.kind="b"', "b"),
        ("o.sizes=[4, 5]", (4, 5)),
        ("o.sizes=4", 4),
        ("o.on=false", False),
        ("o.head=0.5", 0.5),
        ("o.head=none", None),
        ("o.text=a path/of words", "a path/of words"),
        ("o.text=3", "3"),
    ],
)
def test_values_are_read_as_toml_by_the_type_of_the_field(text, value):
    _, name, parsed = parse_setting(text)
    built = getattr(build(Options, {name: parsed}, "o"), name)
    assert built == value and type(built) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("o.count=0", "must be at least 1 and at most 9"),
        ("o.count=2.5", "expected int"),
        ("o.count=true", "expected int"),
        ("o.rate=nan", "must be a finite number"),
        ("o.rate=inf", "must be a finite number"),
        ("o.rate=-inf", "must be a finite number"),
        ("o.kind=c", "expected a or b"),
        ("o.sizes=[0]", "at least 1"),
        ('o.sizes=["a"]', "expected int or list of int"),
        ("o.on=1", "expected true or false"),
        ("o.cuont=1", "Did you mean 'count'"),
    ],
)
def test_what_does_not_fit_is_refused(text, message):
    _, name, parsed = parse_setting(text)
    with pytest.raises(UsageError, match=message):
        build(Options, {name: parsed}, "o")


def test_options_describe_themselves():
    infos = {info.name: info for info in describe(Options)}
    assert infos["sizes"].type == "int or list of int" and infos["sizes"].default == (1, 2)
    assert infos["head"].type == "float or none" and infos["kind"].type == "a or b"
    assert all(info.help for info in infos.values()) and describe(NoOptions) == []


def test_what_becomes_toml_is_read_back_nothing_included():
    values = as_toml(Options())
    assert values["head"] == "none" and values["sizes"] == [1, 2]
    assert build(Options, values, "o") == Options()
