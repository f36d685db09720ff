"""What plugins do to the command line: subcommands they add, and how broken ones are shown."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from fgvc_cli.cli.app import build_app

HEAD = (
    "from fgvc_cli import HeadSpec, hookimpl\n"
    "@hookimpl\ndef fgvc_heads():\n    return [HeadSpec({name!r}, 'no_module:Head', 'A head of ours')]\n"
)

COMMAND = """
import typer
from fgvc_cli import FgvcError, hookimpl
@hookimpl
def fgvc_commands(app):
    @app.command()
    def {name}(times: int = 1):
        "Greet."
        typer.echo("hello " * times)
        if times > 2:
            raise FgvcError("that is too often")
"""

DATA_GROUP = """
import typer
from fgvc_cli import hookimpl
@hookimpl
def fgvc_commands(app):
    group = typer.Typer()
    @group.command()
    def one(): typer.echo("one")
    @group.command()
    def two(): typer.echo("two")
    app.add_typer(group, name="numbers", help="Count.")
"""


def run(*arguments: str):
    return CliRunner().invoke(build_app(), list(arguments))


def test_a_plugin_adds_a_command(install):
    install("greeter", {"greeter_plugin.py": COMMAND.format(name="greet")})
    result = run("greet", "--times", "2")
    assert (result.exit_code, result.stdout) == (0, "hello hello \n")
    assert "greet" in run("--help").stdout
    (row,) = [line for line in run("list-plugins").stdout.splitlines() if line.startswith("greeter==1.0")]
    assert "command greet" in row


def test_the_list_says_what_a_plugin_adds(install):
    module = (
        "from fgvc_cli import Family, hookimpl\n"
        "@hookimpl\ndef fgvc_families():\n    return [Family('backbone', 'wide/', 'no_module:resolve')]\n"
        "@hookimpl\ndef fgvc_epoch_finished(metrics):\n    pass\n"
    )
    install("wide", {"wide_plugin.py": module + COMMAND.format(name="greet")})
    (row,) = [line for line in run("list-plugins").stdout.splitlines() if line.startswith("wide==1.0")]
    assert "backbones wide/<name>, command greet, hooks of every run" in row


def test_a_plugin_adds_a_group_of_commands(install):
    install("counter", {"counter_plugin.py": DATA_GROUP})
    assert run("numbers", "two").stdout == "two\n"


def test_an_error_in_a_plugins_command_is_one_line(install):
    install("greeter", {"greeter_plugin.py": COMMAND.format(name="greet")})
    result = run("greet", "--times", "3")
    assert (result.exit_code, result.stderr) == (1, "fgvc: error: that is too often\n")


def test_a_plugin_does_not_replace_a_built_in_command(install):
    install("greeter", {"greeter_plugin.py": COMMAND.format(name="show")})
    assert "hello" not in run("show", "head", "pim").stdout
    assert run("greeter:show").stdout == "hello \n"


def test_two_plugins_with_one_command_are_both_reached_by_their_distribution(install):
    install("one", {"one_plugin.py": COMMAND.format(name="greet")})
    install("two", {"two_plugin.py": COMMAND.format(name="greet")})
    assert run("greet").exit_code == 2
    assert run("one:greet").exit_code == run("two:greet").exit_code == 0


def test_list_plugins_shows_where_it_failed_to_who_debugs(install):
    install("aa-broken", {"aa_broken_plugin.py": "def half(x):\n    return x / 0\nhalf(1)\n"}, version="1.2")
    result = run("list-plugins", "--debug")
    assert result.exit_code == 0 and "Traceback" not in result.stdout
    assert result.stderr.startswith("\naa-broken==1.2 failed to load: ZeroDivisionError: division by zero\nTraceback")
    assert "aa_broken_plugin.py" in result.stderr and "line 2, in half" in result.stderr


def test_list_plugins_shows_clashes_and_disabled_plugins(install):
    install("ours", {"ours_plugin.py": HEAD.format(name="pim")})
    install("theirs", {"theirs_plugin.py": "raise AssertionError('imported')"})
    text = run("list-plugins", "--disable-plugins", "theirs").stdout
    assert "ours:pim" in text
    assert "fgvc-cli:pim" in text
    assert "theirs==1.0 is disabled (--disable-plugins) and was not imported" in text
    (row,) = [line for line in text.splitlines() if line.startswith("theirs==1.0  ")]
    assert "disabled" in row and " ms" not in row
    document = json.loads(run("--disable-plugins=theirs", "list-plugins", "--json").stdout)
    assert document["kinds"]["head"]["clashes"] == {"pim": ["fgvc-cli:pim", "ours:pim"]}
    assert {"ours": "loaded", "theirs": "disabled"}.items() <= {
        plugin["distribution"]: plugin["status"] for plugin in document["plugins"]
    }.items()


@pytest.mark.parametrize("flags", [["--no-external-plugins"], ["--only-plugins", "theirs"]])
def test_flags_keep_plugins_out_wherever_they_stand(install, flags):
    install("ours", {"ours_plugin.py": "raise AssertionError('imported')"})
    install("theirs", {"theirs_plugin.py": HEAD.format(name="bilinear")})
    for arguments in ([*flags, "list-plugins"], ["list-plugins", *flags]):
        text = run(*arguments).stdout
        assert "ours==1.0 is disabled" in text
        assert "AssertionError" not in text
    assert "ours_plugin" not in sys.modules


def test_strict_plugins_ends_with_the_failure(install):
    install("aa-broken", {"aa_broken_plugin.py": "1 / 0"}, version="1.2")
    result = run("--strict-plugins", "list-plugins")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "aa-broken==1.2 failed to load: ZeroDivisionError" in result.stderr


def test_completion_offers_a_reference_where_names_clash(install):
    from fgvc_cli.cli.common_options import component_names

    install("ours", {"ours_plugin.py": HEAD.format(name="pim")})
    names = [name for name, _ in component_names("head")("")]
    assert "ours:pim" in names
    assert "fgvc-cli:pim" in names
    assert "pim" not in names
    assert component_names("head")("lin")[0][0] == "linear"


def test_a_heavy_import_is_recorded_and_named(install):
    # Modules of their names stand in for the real ones: in a process of its own, where nothing else has imported them.
    names = ("torch", "timm", "torchvision")
    module = f"import {', '.join(names)}\n" + HEAD.format(name="bilinear")
    site = install("heavy", {"heavy_plugin.py": module, **{f"{name}.py": "" for name in names}})
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r})\nfrom fgvc_cli.cli.app import build_app\n"
        "for arguments in (['list-plugins'], ['list-plugins', '--json']):\n    print('#')\n"
        "    build_app()(arguments, standalone_mode=False)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    _, text, document = done.stdout.split("#\n")
    assert " ms (torch, timm, torchvision) " in text
    assert "heavy==1.0 imports torch, timm, torchvision when it registers" in text
    heavy = {plugin["distribution"]: plugin["heavy_modules"] for plugin in json.loads(document)["plugins"]}
    assert heavy == {"fgvc-cli": [], "heavy": list(names)}
