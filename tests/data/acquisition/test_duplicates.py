from __future__ import annotations

import numpy as np

from fgvc_cli.data.acquisition.check import identical, same_size


def test_only_files_of_one_size_are_compared():
    assert same_size([5, 7, 5, 0, 0, 9, 7]) == [0, 1, 2, 6]


def test_identical_files(tmp_path):
    contents = [b"abc", b"abd", b"abc", b"abc", b"abd", b"xyz"]
    paths = [tmp_path / str(i) for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    counted: list[int] = []
    assert identical(paths, range(6), lambda: counted.append(1)) == [[0, 2, 3], [1, 4]]
    assert len(counted) == 6
    paths[2].unlink()
    assert identical(paths, range(6), lambda: None) == [[0, 3], [1, 4]]


def test_arrays_of_different_shapes_differ():
    one, other = np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)
    assert identical([one, other, one.copy()], range(3), lambda: None) == [[0, 2]]
