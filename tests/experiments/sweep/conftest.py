"""A study of tiny models on tiny drawn images."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgvc_cli import settings
from fgvc_cli.experiments.planning import SweepRequest, plan
from fgvc_cli.experiments.study import Study
from fgvc_cli.registry import get_registry

SHARED = {
    "dataset": {"name": "demo", "train": 2, "val": 1, "test": 1, "size": 32},
    "train": {"weights": "none", "image_size": 32, "batch_size": 8, "epochs": 2, "device": "cpu", "workers": 0},
}


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """A cache folder for the demo images."""
    return tmp_path_factory.mktemp("drawn")


@pytest.fixture
def cached(drawn):
    """Settings in force whose cache is that folder; runs get them too."""
    with settings.in_force(settings.current().changed("the tests", cache_given=drawn)):
        yield drawn


@pytest.fixture
def tiny(tmp_path):
    """A function from cells in TOML to a study."""

    def make(cells: str, seeds: int = 1) -> Study:
        file = tmp_path / "cells.toml"
        file.write_text(cells)
        return plan(SweepRequest(options=SHARED, seeds=seeds, file=file), get_registry())

    return make
