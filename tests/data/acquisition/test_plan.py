from __future__ import annotations

from fgvc_cli.contracts import Download, Provision
from fgvc_cli.data.acquisition.plan import amount_text, pending_downloads, required_disk_space, size_text


def test_amounts():
    known, unknown = Download("", "a", size=3_000_000), Download("", "b")
    assert amount_text([known]) == "1 file, 3 MB"
    assert amount_text([known, unknown]) == "2 files, at least 3 MB"
    assert amount_text([unknown]) == "1 file of unknown size"
    rough = Download("", "c", about=2_000_000)
    assert amount_text([known, rough]) == "2 files, about 5 MB"
    assert [size_text(download) for download in (known, rough, unknown)] == ["3 MB", "~2 MB", "?"]


def test_peak_disk_space():
    def archive(size: int) -> Download:
        return Download("", "x.tgz", size=size, unpack="")

    assert required_disk_space([archive(10)]) == 20
    assert required_disk_space([archive(10), archive(4)]) == 20
    assert required_disk_space([archive(4), archive(10)]) == 24
    assert required_disk_space([archive(10), Download("", "list.txt", size=15)]) == 25


def test_pending_downloads_are_the_incomplete_ones(tmp_path):
    lists, images = Download("", "list.txt"), Download("", "i.tgz", unpack="", gives=("images", "names"))
    provision = Provision(tmp_path, ("list.txt", "images"), (lists, images))
    assert pending_downloads(provision) == [lists, images]
    (tmp_path / "images").mkdir()
    assert pending_downloads(provision) == [lists, images]
    (tmp_path / "names").touch()
    assert pending_downloads(provision) == [lists]
    (tmp_path / "names").unlink()
    (tmp_path / "list.txt").touch()
    assert pending_downloads(provision) == []  # nothing that is needed is missing


def test_an_archive_without_gives_provides_all_that_is_needed(tmp_path):
    archive = Download("", "i.tgz", unpack="")
    provision = Provision(tmp_path, ("a", "b"), (archive,))
    (tmp_path / "i.tgz").touch()
    (tmp_path / "a").touch()
    assert pending_downloads(provision) == [archive]
    (tmp_path / "b").touch()
    assert pending_downloads(provision) == []
