"""The files of panels."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.explaining.panels import panel_files
from fgvc_cli.files import unique_names, write_bytes


def names(images: list[str], out: Path | None = None) -> list[str]:
    return [str(path) for path in panel_files([Path(image) for image in images], out, False)]


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (["far/away/a.jpg", "b.png"], ["a", "b"]),
        (["ant/1.jpg", "bee/1.jpg", "bee/2.jpg"], ["ant-1", "bee-1", "2"]),
        (["a/1.jpg", "a/1.png"], ["1.jpg", "1.png"]),
        (["x/a/1.jpg", "y/a/1.jpg"], ["x-a-1", "y-a-1"]),
        (["a/A.jpg", "b/a.jpg"], ["a-A", "b-a"]),
    ],
)
def test_panels_are_named_after_the_images_and_folders_as_far_as_necessary(tmp_path, monkeypatch, images, expected):
    monkeypatch.chdir(tmp_path)
    assert names(images) == [f"{name}.explain.png" for name in expected]


def test_panels_can_go_to_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert names(["a.jpg"], out=Path("new/deep")) == ["new/deep/a.explain.png"]
    assert (tmp_path / "new/deep").is_dir() and not list((tmp_path / "new/deep").iterdir())


def test_existing_panels_are_overwritten_only_with_force(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.explain.png").touch()
    with pytest.raises(UsageError, match=r"a\.explain\.png already exists.*`force`.*`out`"):
        names(["a.jpg", "b.jpg"])
    assert panel_files([Path("a.jpg")], None, True) == [Path("a.explain.png")]


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        panel_files([Path("a.jpg")], tmp_path / "file", False)
    with pytest.raises(FgvcError, match="file"):
        panel_files([Path("a.jpg")], tmp_path / "file" / "below", False)


def test_names_are_unique_and_short_enough_for_file_systems(tmp_path):
    assert unique_names(["a", "a-2", "A", "a"]) == ["a", "a-2", "A-3", "a-4"]
    long = [Path("x" * 246 + f"{i}.jpg") for i in range(2)] + [Path("日" * 80 + ".jpg")]
    panels = panel_files(long, tmp_path, force=False)
    assert len(set(panels)) == 3
    for panel in panels:
        write_bytes(panel, b"")  # with a longer temporary name
    assert panels[2].name.startswith("日日")
