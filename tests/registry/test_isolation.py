"""A broken plugin is reported by name, version and cause, and affects nothing else."""

import pytest

from fgvc_cli import FgvcError
from fgvc_cli.registry import PluginRecord, Registry
from fgvc_cli.registry.lookup import discover
from fgvc_cli.settings import Settings

GOOD = """
from fgvc_cli import HeadSpec, hookimpl
@hookimpl
def fgvc_heads():
    return [HeadSpec("good-head", "good_plugin_head:Head", "A head that works")]
"""

HEADS = "from fgvc_cli import *\nfrom fgvc_cli import hookimpl\n@hookimpl\ndef fgvc_heads():\n    return {}\n"


def hook(name: str, value: str) -> str:
    return HEADS.format(value).replace("heads()", name)


BROKEN = {
    "missing module": ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module"),
    "syntax error": ("def (", "SyntaxError"),
    "error of its own": ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
    "error whose message raises": ("class Mute(Exception):\n    __str__ = None\nraise Mute", "Mute"),
    "exit when imported": ("import sys\nsys.exit(3)", "it called sys.exit(3)"),
    "no hook": ("x = 1", "no hook is implemented"),
    "raising hook": (HEADS.format("1 / 0"), "ZeroDivisionError"),
    "misspelt hook": (HEADS.format("[]").replace("fgvc_heads", "fgvc_haeds"), "Did you mean 'fgvc_heads'"),
    "unknown hook": (HEADS.format("[]").replace("fgvc_heads", "zzz"), "unknown hook 'zzz'"),
    "wrong argument": (HEADS.format("[]").replace("fgvc_heads()", "fgvc_heads(registry)"), "registry"),
    "no hookimpl": ("def fgvc_heads():\n    return []", "has no @hookimpl"),
    "wrapper": (HEADS.format("(yield)").replace("@hookimpl", "@hookimpl(wrapper=True)"), "hook wrapper"),
    "no return": (HEADS.format("None"), "fgvc_heads returned None instead of a list of HeadSpec"),
    "no spec": (HEADS.format("['pim']"), "'pim' where a HeadSpec is expected"),
    "spec of another kind": (HEADS.format("[BackboneSpec('a', 'm:A')]"), "where a HeadSpec is expected"),
    "capital name": (HEADS.format("[HeadSpec('Pim2', 'm:A')]"), "lower-case letters"),
    "name with a colon": (HEADS.format("[HeadSpec('a:b', 'm:A')]"), "lower-case letters"),
    "name that is a number": (HEADS.format("[HeadSpec(7, 'm:A')]"), "name is 7, not a string"),
    "target that is a class": (HEADS.format("[HeadSpec('a', dict)]"), "target is <class 'dict'>, not a string"),
    "target without a name": (HEADS.format("[HeadSpec('a', 'module.only')]"), "the form 'package.module:Name'"),
    "options without a name": (HEADS.format("[HeadSpec('a', 'm:A', options='m.A')]"), "options 'm.A' do not have"),
    "same name twice": (HEADS.format("[HeadSpec('a', 'm:A'), HeadSpec('a', 'm:B')]"), "head 'a' is registered twice"),
    "newer API": (HEADS.format("[HeadSpec('a', 'm:A', api=99)]"), "needs plugin API version 99"),
    "strides of text": (hook("backbones()", "[BackboneSpec('a', 'm:A', strides=('4',))]"), "strides is ('4',)"),
    "recipe target": (hook("recipes()", "[RecipeSpec('a', 'pkg:../secret.toml')]"), "the form 'package:path.toml'"),
    "family without a slash": (hook("families()", "[Family('head', 'x', 'm:f')]"), "lower-case name that ends in '/'"),
    "family of an unknown kind": (hook("families()", "[Family('haed', 'x/', 'm:f')]"), "unknown kind of component"),
    "commands that fail": (hook("commands(app)", "1 / 0"), "ZeroDivisionError"),
    "command with a parameter type unknown to Typer": (
        "from fgvc_cli import hookimpl\n@hookimpl\ndef fgvc_commands(app):\n"
        "    @app.command()\n    def odd(x: int | str): pass\n",
        "Union",
    ),
}


def record(registry: Registry, distribution: str) -> PluginRecord:
    return next(plugin for plugin in registry.plugins if plugin.distribution == distribution)


@pytest.mark.parametrize(("module", "cause"), BROKEN.values(), ids=BROKEN)
def test_broken_plugin_is_reported_and_others_load(install, module, cause):
    install("aa-broken", {"aa_broken_plugin.py": module}, version="1.2")
    install("good", {"good_plugin.py": GOOD})

    registry = discover(Settings())

    broken = record(registry, "aa-broken")
    assert broken.status == "failed"
    assert cause in broken.cause
    assert "\n" not in broken.cause
    assert broken.failure.startswith("aa-broken==1.2 failed to load: ")
    assert "Traceback" in broken.traceback
    assert not broken.components and not broken.hooks
    assert record(registry, "good").status == "loaded"
    assert registry.find("head", "good-head").distribution == "good"
    assert registry.find("head", "pim").builtin


def test_one_failing_hook_discards_the_whole_plugin(install):
    module = GOOD + (
        "@hookimpl\ndef fgvc_optimizers():\n    raise RuntimeError('no')\n"
        "@hookimpl\ndef fgvc_run_started(run):\n    raise AssertionError('called')\n"
    )
    install("half", {"half_plugin.py": module})
    registry = discover(Settings())
    registry.notify("fgvc_run_started", run=None)
    assert "good-head" not in [component.name for component in registry.components("head")]
    assert "RuntimeError: no" in record(registry, "half").cause


def test_api_version_is_checked_before_the_target_is_imported(install):
    module = HEADS.format("[HeadSpec('a', 'api_target:A', api=2)]")
    install("newer", {"newer_plugin.py": module, "api_target.py": "raise AssertionError('imported')"})
    cause = record(discover(Settings()), "newer").cause
    assert "this fgvc has version 1: upgrade fgvc-cli" in cause


def test_strict_mode_raises_for_a_failed_plugin(install):
    install("good", {"good_plugin.py": GOOD})
    assert discover(Settings(strict_plugins=True)).find("head", "good-head")
    install("aa-broken", {"aa_broken_plugin.py": "import no_such_module_anywhere"}, version="1.2")
    with pytest.raises(FgvcError, match=r"aa-broken==1\.2 failed to load: ModuleNotFound"):
        discover(Settings(strict_plugins=True))


def test_output_of_an_import_goes_to_stderr(install, capsys):
    install("chatty", {"chatty_plugin.py": "print('hello')\n" + GOOD})
    discover(Settings())
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "hello" in streams.err
