"""docs/data.md: datasets and their published counts, commands, options and the example."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from fgvc_cli.contracts import DatasetRequest
from fgvc_cli.errors import FgvcError
from fgvc_cli.options import NoOptions
from fgvc_cli.registry import get_registry
from fgvc_cli.registry.records import BUILTIN_DISTRIBUTION

PAGE = "docs/data.md"


def built_in() -> dict[str, Any]:
    return {c.name: c for c in get_registry().components("dataset") if c.distribution == BUILTIN_DISTRIBUTION}


def test_every_built_in_dataset_is_listed_with_its_published_counts(page):
    rows = {row[0].strip("`"): row for row in page(PAGE).rows("## Datasets") if row[0]}
    assert sorted([*rows, "demo", "demo_unknown", "folder", "shards", "table"]) == sorted(built_in())
    for name, row in rows.items():
        for split, count in getattr(built_in()[name].load(), "published", {}).items():
            assert f"{split.removesuffix('val') or split} {count:,}" in row[2], name  # the official "trainval" is train


def test_the_example_of_a_dataset(page, tmp_path, monkeypatch):
    module = types.ModuleType("birds_of_the_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(page(PAGE).files()["birds/dataset.py"], module.__dict__)
    birds: Any = module.Birds
    request = DatasetRequest(None, tmp_path, tmp_path, 0)
    with pytest.raises(FgvcError, match="images"):
        birds(request=request, options=NoOptions())
    for name in ("robin/1.jpg", "wren/2.jpg"):
        (tmp_path / "birds/images" / name).parent.mkdir(parents=True)
        (tmp_path / "birds/images" / name).touch()
    assert list(birds(request=request, options=NoOptions()).split("train").labels) == [0, 1]
    (download,) = birds.provision(request, NoOptions()).downloads
    assert download.gives == ("images",) and download.size == 81_234_567
