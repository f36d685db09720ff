"""Which plugin an unexpected error is attributed to: the innermost in the traceback."""

import importlib

import pytest

from fgvc_cli.registry.error_origin import origin_of
from fgvc_cli.registry.lookup import discover
from fgvc_cli.settings import Settings

HEAD = "from fgvc_cli import HeadSpec, hookimpl\n@hookimpl\ndef fgvc_heads():\n    return [HeadSpec({!r}, {!r})]\n"
CALLING = "def call(function):\n    return function()\n"


def calling(*modules: str):
    """Call a function of each module within that of the one before, and return what the innermost raises."""
    functions = [importlib.import_module(module).call for module in modules]

    def innermost():
        raise RuntimeError("odd")

    call = innermost
    for function in reversed(functions):
        call = lambda function=function, inner=call: function(inner)  # noqa: E731
    try:
        call()
    except RuntimeError as error:
        return error
    raise AssertionError("nothing was raised")


def test_innermost_plugin_is_named(install):
    install("one", {"one_plugin.py": HEAD.format("one", "one_plugin:call") + CALLING})
    install("two", {"two_plugin.py": HEAD.format("two", "two_heads.deep:call"), "two_heads/deep.py": CALLING})
    registry = discover(Settings())
    assert str(origin_of(calling("one_plugin"), registry)) == "one==1.0"
    assert str(origin_of(calling("one_plugin", "two_heads.deep"), registry)) == "two==1.0"
    assert str(origin_of(calling("two_heads.deep", "one_plugin"), registry)) == "one==1.0"


def test_host_built_ins_and_other_packages_are_not_named(install):
    install("one", {"one_plugin.py": HEAD.format("one", "one_plugin:call"), "stranger.py": CALLING})
    registry = discover(Settings())
    assert origin_of(calling("stranger"), registry) is None
    builtin = {"__name__": "fgvc_heads.invented"}
    exec(CALLING, builtin)
    with pytest.raises(ZeroDivisionError) as raised:
        builtin["call"](lambda: 1 / 0)
    assert origin_of(raised.value, registry) is None
