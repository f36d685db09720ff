from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from fgvc_cli.data.splits import PackedPaths, pack_images, taken

PATHS = [Path("/a/b.jpg"), Path("ä/ö ü.png"), Path("x\udcff.png"), Path("/")]


def test_is_the_same_sequence() -> None:
    packed = PackedPaths(PATHS)
    assert len(packed) == 4
    assert list(packed) == PATHS
    assert packed[-1] == PATHS[-1]
    assert packed[1:3] == PATHS[1:3]
    assert list(pickle.loads(pickle.dumps(packed))) == PATHS
    with pytest.raises(IndexError):
        packed[4]
    assert list(PackedPaths([])) == []


def test_a_hundred_thousand_paths_are_small() -> None:
    packed = PackedPaths([f"/data/birds/train/class-{i % 200}/image-{i:06d}.jpg" for i in range(100_000)])
    assert len(pickle.dumps(packed)) < 6_000_000


def test_arrays_stay_as_they_are() -> None:
    arrays = [np.zeros((2, 2, 3), np.uint8)] * 2
    assert pack_images(arrays) is arrays
    assert isinstance(pack_images(PATHS), PackedPaths)
    packed = PackedPaths(PATHS)
    assert pack_images(packed) is packed


def test_taken_images_are_packed_if_they_are_paths() -> None:
    files = [Path("a.png"), Path("b/ü.png"), Path("c.png")]
    some = taken(PackedPaths(files), [2, 1, 1])
    assert isinstance(some, PackedPaths) and list(some) == [files[2], files[1], files[1]]
    array = np.zeros((2, 2, 3), np.uint8)
    mixed = taken([files[0], array], [1])
    assert isinstance(mixed, list) and mixed[0] is array
    assert len(taken(files, [])) == 0
