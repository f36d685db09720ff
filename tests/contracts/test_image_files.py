from __future__ import annotations

import os
from pathlib import Path

import pytest

from fgvc_cli.contracts import dataset
from fgvc_cli.contracts.dataset import find_images, has_images, scan_folder, visible_folders
from fgvc_cli.errors import FgvcError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images(folder)]


def test_images_are_found_in_all_folders_below_and_sorted(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a.png", "sub/c.Tiff", "sub/deeper/d.webp", "sub-a/x.jpeg", "notes.txt", "jpg", "data.csv")
    assert names(tmp_path) == ["a.png", "b.JPG", "sub/c.Tiff", "sub/deeper/d.webp", "sub-a/x.jpeg"]


def test_hidden_files_and_leftovers_of_archives_are_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", ".hidden.png", "._a.png", ".thumbs/a.png", "__MACOSX/a.png", "sub/__MACOSX/._a.png")
    assert names(tmp_path) == ["a.png"]
    assert [path.name for path in visible_folders(tmp_path)] == ["sub"]
    assert not has_images(tmp_path / "sub")
    assert has_images(tmp_path)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "store/a.png", "set/b.png")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "store")
    (tmp_path / "set" / "up").symlink_to(tmp_path / "set")
    assert names(tmp_path / "set") == ["b.png", "linked/a.png"]


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    assert dataset.os is os
    with pytest.raises(FgvcError, match="cannot be read: Permission denied"):
        find_images(tmp_path)


def test_a_link_to_itself_is_one_bad_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert names(tmp_path) == ["a.png", "loop.png"]
    assert scan_folder(tmp_path).ignored == {"": 1}
