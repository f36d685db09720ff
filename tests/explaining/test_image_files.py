"""Which true class an image's place tells, and where its picture goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.explaining.images import picture_files, told_apart, true_class, without_pictures
from fgvc_cli.files import write_bytes

CLASSES = ("ant", "bee", "cat")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("photos/bee/1.jpg", "bee"),
        ("photos/bee/2019/1.jpg", "bee"),
        ("photos/bee/ant/1.jpg", "ant"),  # the innermost
        ("photos/bees/1.jpg", None),
        ("photos/bee.jpg", None),
        ("1.jpg", None),
    ],
)
def test_the_innermost_folder_with_the_name_of_a_class(tmp_path, monkeypatch, path, expected):
    monkeypatch.chdir(tmp_path)
    assert true_class(Path(path), CLASSES) == expected


def test_only_the_files_own_folder_counts_of_those_the_path_does_not_name(tmp_path, monkeypatch):
    (tmp_path / "cat/home/bee").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cat/home")
    assert true_class(Path("1.jpg"), CLASSES) is None
    monkeypatch.chdir(tmp_path / "cat/home/bee")
    assert true_class(Path("1.jpg"), CLASSES) == "bee"


def test_a_sample_of_a_run_says_its_class_itself(tmp_path):
    sample = tmp_path / "run/samples/bee-0012.png"
    assert true_class(sample, CLASSES) is None  # the folder is no run's
    (tmp_path / "run").mkdir()
    (tmp_path / "run/model.safetensors").touch()
    assert true_class(sample, CLASSES) == "bee"
    assert true_class(sample.with_name("bee-x.png"), CLASSES) is None
    assert true_class(sample.with_name("owl-0012.png"), CLASSES) is None


def names(images: list[str], **options: object) -> list[str]:
    return [str(p) for p in picture_files([Path(i) for i in images], options.get("out"), False)]  # type: ignore[arg-type]


def test_pictures_go_to_the_current_folder_or_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert names(["far/away/a.jpg", "b.png"]) == ["a.explain.png", "b.explain.png"]
    assert names(["a.jpg"], out=Path("new/deep")) == ["new/deep/a.explain.png"]
    assert (tmp_path / "new/deep").is_dir() and not list((tmp_path / "new/deep").iterdir())


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (["ant/1.jpg", "bee/1.jpg", "bee/2.jpg"], ["ant-1", "bee-1", "2"]),
        (["a/1.jpg", "a/1.png"], ["1.jpg", "1.png"]),
        (["x/a/1.jpg", "y/a/1.jpg"], ["x-a-1", "y-a-1"]),
        (["a/A.jpg", "b/a.jpg"], ["a-A", "b-a"]),
    ],
)
def test_images_of_one_name_have_pictures_of_several(tmp_path, monkeypatch, images, expected):
    monkeypatch.chdir(tmp_path)
    assert names(images) == [f"{name}.explain.png" for name in expected]


def test_no_two_images_share_a_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    many = ["1.jpg", "a/1.jpg", "a/1.JPG", "a-1.jpg", "b/a/1.jpg", str(tmp_path / "1.jpg")]
    found = names(many)
    assert len({name.lower() for name in found}) == len(many)


def test_what_is_there_is_replaced_only_when_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.explain.png").touch()
    with pytest.raises(UsageError, match=r"a\.explain\.png exists: .*--force.*--out"):
        picture_files([Path("a.jpg"), Path("b.jpg")], None, False)
    assert picture_files([Path("a.jpg")], None, True) == [Path("a.explain.png")]
    assert picture_files([Path("b.jpg")], None, False) == [Path("b.explain.png")]


def test_a_folder_that_cannot_be_written_is_found_out_early(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        picture_files([Path("a.jpg")], tmp_path / "file", False)
    with pytest.raises(FgvcError, match="another folder with --out"):
        picture_files([Path("a.jpg")], tmp_path / "file" / "below", False)


def test_pictures_are_not_explained_again_unless_named():
    found = [Path("x/a.jpg"), Path("x/a.explain.png"), Path("b.explain.png")]
    assert without_pictures(found, {Path("x"), Path("b.explain.png")}) == [Path("x/a.jpg"), Path("b.explain.png")]


def test_names_are_told_apart_and_not_too_long_for_a_file_system(tmp_path):
    assert told_apart(["a", "a-2", "A", "a"]) == ["a", "a-2", "A-3", "a-4"]
    long = [Path("x" * 246 + f"{i}.jpg") for i in range(2)] + [Path("日" * 80 + ".jpg")]
    pictures = picture_files(long, tmp_path, force=False)
    assert len(set(pictures)) == 3
    for picture in pictures:
        write_bytes(picture, b"")  # which takes a longer name meanwhile
    assert pictures[2].name.startswith("日日")
