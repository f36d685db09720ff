from __future__ import annotations

from pathlib import Path

from fgvc_cli.contracts import Download, Provision
from fgvc_cli.data.acquisition.plan import amount_text, room_for, size_text, wanted
from fgvc_cli.data.acquisition.unpacking import move_into_place


def test_amounts():
    known, unknown = Download("", "a", size=3_000_000), Download("", "b")
    assert amount_text([known]) == "1 file, 3 MB"
    assert amount_text([known, unknown]) == "2 files, at least 3 MB"
    assert amount_text([unknown]) == "1 file of unknown size"
    rough = Download("", "c", about=2_000_000)
    assert amount_text([known, rough]) == "2 files, about 5 MB"
    assert [size_text(download) for download in (known, rough, unknown)] == ["3 MB", "~2 MB", "?"]


def test_the_room_that_is_needed_at_most_at_a_time():
    def archive(size: int) -> Download:
        return Download("", "x.tgz", size=size, unpack="")

    assert room_for([archive(10)]) == 20
    assert room_for([archive(10), archive(4)]) == 20
    assert room_for([archive(4), archive(10)]) == 24
    assert room_for([archive(10), Download("", "list.txt", size=15)]) == 25


def test_what_is_wanted_is_what_is_not_there(tmp_path):
    lists, images = Download("", "list.txt"), Download("", "i.tgz", unpack="", gives=("images", "names"))
    provision = Provision(tmp_path, ("list.txt", "images"), (lists, images))
    assert wanted(provision) == [lists, images]
    (tmp_path / "images").mkdir()
    assert wanted(provision) == [lists, images]
    (tmp_path / "names").touch()
    assert wanted(provision) == [lists]
    (tmp_path / "names").unlink()
    (tmp_path / "list.txt").touch()
    assert wanted(provision) == []  # nothing that is needed is missing


def test_an_archive_that_does_not_say_gives_what_is_needed(tmp_path):
    archive = Download("", "i.tgz", unpack="")
    provision = Provision(tmp_path, ("a", "b"), (archive,))
    (tmp_path / "i.tgz").touch()
    (tmp_path / "a").touch()
    assert wanted(provision) == [archive]
    (tmp_path / "b").touch()
    assert wanted(provision) == []


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(folder.name)


def test_what_is_there_stays_and_the_rest_is_moved(tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    write(new, "set/images/1.png", "set/images/2.png", "set/lists/a.txt", "set/names.txt")
    write(old, "set/images/1.png", "set/names.txt")
    move_into_place(new, old, frozenset({old / "set/images", old / "set/lists"}))
    found = {str(path.relative_to(old)): path.read_text() for path in old.rglob("*") if path.is_file()}
    assert found == {"set/images/1.png": "old", "set/names.txt": "old", "set/lists/a.txt": "new"}
