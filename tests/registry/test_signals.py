"""A signal that arrives while code of a plugin runs ends the program; it is no failure of the plugin."""

from __future__ import annotations

import signal

import pytest

from fgvc_cli.cli.app import _terminate
from fgvc_cli.errors import Terminated
from fgvc_cli.registry.lookup import discover
from fgvc_cli.settings import Settings

SIGNAL = "import signal; signal.raise_signal(signal.SIGTERM)\n"

PLUGIN = """
from fgvc_cli import HeadSpec, hookimpl
@hookimpl
def fgvc_heads():
    return [HeadSpec("slow", "slow_head:Head", "A head that takes long to import", options="slow_head:Options")]
@hookimpl
def fgvc_epoch_finished():
    import signal; signal.raise_signal(signal.SIGTERM)
"""


@pytest.fixture(autouse=True)
def handled():
    before = signal.signal(signal.SIGTERM, _terminate)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_signal_while_a_plugin_is_imported(install):
    install("slow", {"slow_plugin.py": SIGNAL})
    with pytest.raises(Terminated) as ended:
        discover(Settings())
    assert ended.value.code == 143 and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # the next one kills


@pytest.mark.parametrize("use", ["load", "options_type"])
def test_a_signal_while_a_component_is_imported(install, use):
    install("slow", {"slow_plugin.py": PLUGIN, "slow_head.py": SIGNAL})
    component = discover(Settings()).find("head", "slow")
    with pytest.raises(Terminated):
        getattr(component, use)()


def test_a_signal_in_a_hook(install):
    install("slow", {"slow_plugin.py": PLUGIN})
    with pytest.raises(Terminated):
        discover(Settings()).notify("fgvc_epoch_finished")
