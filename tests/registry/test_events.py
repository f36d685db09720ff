"""Run events: every plugin is told, alone; one that raises is warned of once and hurts nothing."""

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


@pytest.mark.parametrize("statement", ["raise RuntimeError('server is away')", "raise SystemExit(4)"])
def test_one_that_raises_is_warned_of_once_and_the_others_are_told(install, capsys, statement):
    install("aa-raising", {"raising_plugin.py": RAISING.format(statement=statement)}, version="1.2")
    install("tracker", {"tracker_plugin.py": TRACKER})
    registry = discover(Settings())

    registry.notify("fgvc_run_started", run="a run")
    registry.notify("fgvc_epoch_finished", run="a run", metrics={"epoch": 1})
    registry.notify("fgvc_epoch_finished", run="a run", metrics={"epoch": 2})

    import tracker_plugin

    assert tracker_plugin.seen == [("started", "a run"), ("epoch", 1), ("epoch", 2)]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("warning: aa-raising==1.2: its fgvc_epoch_finished failed, the run goes on: ")


def test_what_one_changes_no_other_is_told(install):
    install("aa-greedy", {"greedy_plugin.py": RAISING.format(statement="metrics.pop('epoch'); run.clear()")})
    install("tracker", {"tracker_plugin.py": TRACKER})
    metrics = {"epoch": 3}
    discover(Settings()).notify("fgvc_epoch_finished", run={}, metrics=metrics)

    import tracker_plugin

    assert tracker_plugin.seen == [("epoch", 3)] and metrics == {"epoch": 3}


def test_what_one_prints_goes_to_standard_error(install, capsys):
    install("aa-chatty", {"chatty_plugin.py": RAISING.format(statement="print('epoch', metrics['epoch'])")})
    discover(Settings()).notify("fgvc_epoch_finished", run=None, metrics={"epoch": 3})
    assert capsys.readouterr() == ("", "epoch 3\n")


def test_ctrl_c_in_a_tracker_stops_the_run(install):
    install("raising", {"raising_plugin.py": RAISING.format(statement="raise KeyboardInterrupt")})
    with pytest.raises(KeyboardInterrupt):
        discover(Settings()).notify("fgvc_epoch_finished", run=None, metrics={})


def test_a_hook_that_does_not_exist_is_a_mistake_of_ours():
    with pytest.raises(ValueError, match="fgvc_run_strated is no hook"):
        discover(Settings()).notify("fgvc_run_strated", run=None)
