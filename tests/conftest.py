"""What every test stands on: its own folders for runs and caches, no hub, and colours off."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path_factory.mktemp("fgvc")
    monkeypatch.setenv("FGVC_RUNS", str(root / "runs"))
    monkeypatch.setenv("FGVC_DATA", str(root / "data"))
    monkeypatch.setenv("FGVC_CACHE", str(root / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(root / "hub"))
