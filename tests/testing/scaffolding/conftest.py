"""A scaffold of each kind, installed as far as `importlib.metadata` can tell."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgvc_cli import settings
from fgvc_cli.registry import lookup
from fgvc_cli.testing.scaffolding import Scaffold, plugin_names, write_plugin

NAMES = {
    "backbone": "small-net",
    "head": "gem_pool",
    "optimizer": "amsgrad",
    "dataset": "stripes",
    "explainer": "input-gradient",
    "exporter": "packed-program",
    "launcher": "nice-processes",
}


def install(scaffold: Scaffold) -> None:
    """Write the metadata of a scaffold as if it were installed."""
    project = tomllib.loads((scaffold.folder / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    info = scaffold.folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{entry} = {module}\n" for entry, module in project["entry-points"]["fgvc"].items()]
    (info / "entry_points.txt").write_text("[fgvc]\n" + "".join(lines))


@pytest.fixture(scope="module")
def scaffolds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Scaffold]]:
    """A scaffold of each kind, all of them installed."""
    root, before = tmp_path_factory.mktemp("plugins"), set(sys.modules)
    written = {kind: write_plugin(plugin_names(name, kind), root / kind) for kind, name in NAMES.items()}  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        for variable in settings.VARIABLES.values():
            patch.delenv(variable, raising=False)
        for scaffold in written.values():
            install(scaffold)
            patch.syspath_prepend(str(scaffold.folder))
        patch.setenv("PYTHONPATH", ":".join(str(scaffold.folder) for scaffold in written.values()))
        lookup._discovered.cache_clear()
        yield written
    lookup._discovered.cache_clear()
    for name in set(sys.modules) - before:
        if str(root) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small images of two classes, in train, val and test."""
    folder, rng = tmp_path_factory.mktemp("data") / "photos", np.random.default_rng(0)
    for split, count in {"train": 6, "val": 3, "test": 3}.items():
        for label, color in {"ophrys": (200, 40, 60), "orchis": (60, 180, 50)}.items():
            for i in range(count):
                file = folder / split / label / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                noise = rng.integers(-40, 40, (40, 44, 3))
                Image.fromarray(np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)).save(file)
    return folder
