"""Where results go that belong to no single run."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.runs import folder

choose = functools.partial(folder.choose_new_folder, below="ensemble", what="the ensemble")


def test_the_folder_is_a_new_one_named_by_the_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folder.time, "strftime", lambda _: "20261124-120000")
    first = choose(None, force=False)
    assert first == Path("ensemble/20261124-120000") and not first.exists()
    first.mkdir(parents=True)
    assert choose(None, force=False) == Path("ensemble/20261124-120000-2")


def test_a_folder_that_exists_is_refused_without_force(tmp_path):
    assert choose(tmp_path, force=False) == tmp_path  # it is empty
    (tmp_path / "summary.json").touch()
    with pytest.raises(UsageError, match="exists.*the ensemble"):
        choose(tmp_path, force=False)
    assert choose(tmp_path, force=True) == tmp_path
    with pytest.raises(UsageError, match="is a file"):
        choose(tmp_path / "summary.json", force=True)


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_done(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(FgvcError, match="file is a file"):
        choose(tmp_path / "file/new", force=False)
    monkeypatch.setattr(folder.os, "access", lambda *_: False)
    with pytest.raises(FgvcError, match=f"{tmp_path} is not writable"):
        choose(tmp_path / "new/one", force=False)
