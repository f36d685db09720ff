"""The Python examples of the README and of the reference page run as they are shown."""

from __future__ import annotations

import functools
import shutil

import numpy as np
import pytest
from PIL import Image

import fgvc_cli

QUICK = {"backbone": "timm/test_resnet", "head": "linear", "weights": "none", "epochs": 1, "image_size": 32}


@pytest.mark.parametrize("name", ["README.md", "docs/reference.md"])
def test_the_example_runs(name, page, photos, tmp_path, monkeypatch):
    (code,) = [block for block in page(name).blocks("python") if "fgvc.train(" in block]
    shutil.copytree(photos, tmp_path / "photos")
    array = np.zeros((40, 40, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "a.jpg")
    monkeypatch.chdir(tmp_path)
    quick = functools.partial(fgvc_cli.train, device="cpu", workers=0)
    monkeypatch.setitem(vars(fgvc_cli), "train", lambda **given: quick(**{**given, **QUICK}))
    names = {"image": Image.fromarray(array), "array": array}
    exec(compile(code, name, "exec"), names)
    assert names["run"].finished and names["explanation"].survived in (True, False)
