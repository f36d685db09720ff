"""Run events reach every plugin; one that raises is warned about once."""

import pytest

from fgvc_cli.registry.lookup import discover
from fgvc_cli.settings import Settings

TRACKER = """
from fgvc_cli import hookimpl
seen = []
@hookimpl
def fgvc_run_started(run):
    seen.append(("started", run))
@hookimpl
def fgvc_epoch_finished(metrics):
    seen.append(("epoch", metrics["epoch"]))
"""

RAISING = """
from fgvc_cli import hookimpl
@hookimpl
def fgvc_epoch_finished(run, metrics):
    {statement}
"""


@pytest.mark.parametrize("statement", ["raise RuntimeError('server is down')", "raise SystemExit(4)"])
def test_failing_hook_is_warned_about_once_and_others_are_called(install, caplog, statement):
    install("aa-raising", {"raising_plugin.py": RAISING.format(statement=statement)}, version="1.2")
    install("tracker", {"tracker_plugin.py": TRACKER})
    registry = discover(Settings())

    registry.notify("fgvc_run_started", run="a run")
    registry.notify("fgvc_epoch_finished", run="a run", metrics={"epoch": 1})
    registry.notify("fgvc_epoch_finished", run="a run", metrics={"epoch": 2})

    import tracker_plugin

    assert tracker_plugin.seen == [("started", "a run"), ("epoch", 1), ("epoch", 2)]
    (message,) = caplog.messages
    assert message.startswith("aa-raising==1.2: fgvc_epoch_finished failed, the run continues: ")


def test_each_plugin_gets_its_own_copy(install):
    install("aa-greedy", {"greedy_plugin.py": RAISING.format(statement="metrics.pop('epoch'); run.clear()")})
    install("tracker", {"tracker_plugin.py": TRACKER})
    metrics = {"epoch": 3}
    discover(Settings()).notify("fgvc_epoch_finished", run={}, metrics=metrics)

    import tracker_plugin

    assert tracker_plugin.seen == [("epoch", 3)] and metrics == {"epoch": 3}


def test_output_goes_to_stderr(install, capsys):
    install("aa-chatty", {"chatty_plugin.py": RAISING.format(statement="print('epoch', metrics['epoch'])")})
    discover(Settings()).notify("fgvc_epoch_finished", run=None, metrics={"epoch": 3})
    assert capsys.readouterr() == ("", "epoch 3\n")


def test_keyboard_interrupt_propagates(install):
    install("raising", {"raising_plugin.py": RAISING.format(statement="raise KeyboardInterrupt")})
    with pytest.raises(KeyboardInterrupt):
        discover(Settings()).notify("fgvc_epoch_finished", run=None, metrics={})


def test_unknown_event_is_refused():
    with pytest.raises(ValueError, match="fgvc_run_strated is not a run event"):
        discover(Settings()).notify("fgvc_run_strated", run=None)
