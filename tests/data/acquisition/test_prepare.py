"""`fgvc data prepare`: whole, resumed, broken off, dead, damaged, killed: what is there is whole, or not there."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError, URLError

import pytest

from fgvc_cli.data.acquisition import download, unpacking
from fgvc_cli.data.acquisition import prepare as obtaining
from fgvc_cli.formatting import bytes_text


def test_whole(insects):
    result = insects.run("prepare", "insects")
    assert result.exit_code == 0, result.stderr
    assert insects.is_whole()
    assert insects.there() == ["images", "lists"]
    assert "1 file, " in result.stderr and "127.0.0.1" in result.stderr and str(insects.folder) in result.stderr
    assert "license: for research" in result.stderr
    assert "train        6         2   3 each              official" in result.stdout
    assert f"next: fgvc train --dataset insects --data-root {insects.root}\n" in result.stdout


def test_what_is_here_is_not_downloaded_again(insects):
    assert insects.run("prepare", "insects").exit_code == 0
    asked = len(insects.server.log)
    result = insects.run("prepare", "insects")
    assert result.exit_code == 0 and len(insects.server.log) == asked
    shutil.rmtree(insects.folder / "images")
    kept = insects.folder / "lists" / "all.txt"
    kept.write_text("mine\n")
    assert insects.run("prepare", "insects").exit_code == 0
    assert kept.read_text() == "mine\n" and (insects.folder / "images/ant/0.png").exists()


def test_json_is_one_document(insects):
    result = insects.run("prepare", "insects", "--json")
    document = json.loads(result.stdout)
    assert document["here"] and document["splits"]["train"]["images"] == 6 and document["missing"] == []


def test_it_goes_on_where_it_was(insects):
    insects.folder.mkdir(parents=True)
    (insects.folder / "insects.tgz.part").write_bytes(insects.archive[:1000])
    assert insects.run("prepare", "insects").exit_code == 0
    assert insects.server.log == ["bytes=1000-"]
    assert insects.is_whole() and insects.there() == ["images", "lists"]


def test_a_server_without_ranges_sends_it_again(insects):
    insects.server.ranges = False
    insects.folder.mkdir(parents=True)
    (insects.folder / "insects.tgz.part").write_bytes(b"x" * 1000)
    result = insects.run("prepare", "insects")
    assert result.exit_code == 0 and insects.is_whole()
    assert "this server cannot send the rest of a file; starting over" in result.stderr


def test_nothing_stays_of_a_part_that_is_sent_again(insects):
    insects.server.ranges = False
    insects.provide(downloads=[insects.download(size=0)])
    insects.folder.mkdir(parents=True)
    (insects.folder / "insects.tgz.part").write_bytes(b"x" * (len(insects.archive) + 4))
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()


@pytest.mark.parametrize("known", [True, False], ids=["size known", "size not known"])
def test_a_part_that_is_all_is_not_downloaded_again(insects, known):
    if not known:
        insects.provide(downloads=[insects.download(size=0)])
    insects.folder.mkdir(parents=True)
    (insects.folder / "insects.tgz.part").write_bytes(insects.archive)
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()
    assert insects.server.log == ([] if known else [f"bytes={len(insects.archive)}-"])


@pytest.mark.parametrize("size", [0, 1], ids=["size not known", "size known"])
def test_a_part_that_is_too_long_is_no_beginning(insects, size):
    insects.provide(downloads=[insects.download(size=size * len(insects.archive))])
    insects.folder.mkdir(parents=True)
    part = len(insects.archive) + 4
    (insects.folder / "insects.tgz.part").write_bytes(insects.archive + b"more")
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()
    assert insects.server.log == ([None] if size else [f"bytes={part}-", None])


def test_another_part_than_was_asked_for_is_not_taken(insects):
    insects.server.shift = 10
    insects.folder.mkdir(parents=True)
    (insects.folder / "insects.tgz.part").write_bytes(insects.archive[:1000])
    result = insects.run("prepare", "insects")
    assert result.exit_code == 0 and insects.is_whole() and insects.server.log == ["bytes=1000-", None]
    assert "the server sent another part of the file than was asked for; trying again" in result.stderr


def test_a_checksum_may_be_in_upper_case(insects):
    insects.provide(downloads=[insects.download(checksum=f"md5:{insects.download()['checksum'][4:].upper()}")])
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()


def test_without_a_checksum_the_size_decides(insects):
    insects.provide(downloads=[insects.download(checksum="", size=len(insects.archive) + 1)])
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1
    assert f"({len(insects.archive)} bytes) where {len(insects.archive) + 1} bytes were published" in result.stderr
    assert not insects.folder.exists()


def test_a_connection_that_breaks_off_is_taken_up_again(insects, monkeypatch):
    monkeypatch.setattr(download, "ENOUGH", 1000)
    insects.server.drop_after = len(insects.archive) // 20  # more often than it would be tried in vain
    result = insects.run("prepare", "insects")
    assert result.exit_code == 0 and insects.is_whole()
    assert len(insects.server.log) == 21 and insects.server.log[0] is None
    assert "127.0.0.1: the connection broke off at" in result.stderr


def test_a_connection_that_breaks_off_for_good_is_one_line(insects):
    insects.server.drop_after = 500
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("fgvc: error: ") and "5 times in a row" in last and "goes on from there" in last
    assert insects.there() == ["insects.tgz.part"]
    insects.server.drop_after = None
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()
    assert insects.server.log[-1] == "bytes=2500-"


def test_a_server_that_is_busy_is_asked_again(insects):
    insects.server.answers = [503, 429]
    result = insects.run("prepare", "insects")
    assert result.exit_code == 0 and insects.is_whole()
    assert "503 Service Unavailable; trying again" in result.stderr


@pytest.mark.parametrize("before", ["busy", "broken off"])
def test_a_host_that_has_answered_is_asked_again_when_it_cannot_be_reached(insects, monkeypatch, before):
    attempt, url = download._attempt, f"{insects.server.url}/insects.tgz"
    busy = HTTPError(url, 503, "Service Unavailable", Message(), None)
    failures = [busy if before == "busy" else download._BrokenOffError("broken off"), URLError("no route")]

    def failing_first(*arguments: object) -> None:
        if failures:
            raise failures.pop(0)
        attempt(*arguments)

    monkeypatch.setattr(download, "_attempt", failing_first)
    result = insects.run("prepare", "insects")
    assert result.exit_code == 0 and insects.is_whole() and "no route; trying again" in result.stderr


def test_the_systems_proxy_is_used(insects, monkeypatch):
    link = "http://museum.example/insects.tgz"
    insects.server.files[link] = insects.archive
    insects.provide(downloads=[insects.download(url=link)])
    monkeypatch.setenv("http_proxy", insects.server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()


def test_a_wrong_checksum_is_said_and_the_file_deleted(insects):
    insects.server.files["insects.tgz"] = insects.archive[:-1] + b"?"
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1
    assert "not the file that was published, and so deleted: its md5 is" in result.stderr
    assert not insects.folder.exists()


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"url": "{url}/gone.tgz"}, "404 Not Found"),
        ({"url": "http://127.0.0.1:9/insects.tgz"}, "connection refused"),
        ({"url": "file:///etc/passwd"}, "only http and https links are followed"),
        ({"url": "ftp://example/insects.tgz"}, "only http and https links are followed"),
        ({"url": ""}, "no link to it is known"),
        ({"url": "{url}/leads-away"}, "file:///etc/passwd"),
    ],
    ids=["404", "nobody listens", "file:", "ftp:", "no link", "redirect to a file"],
)
def test_a_dead_link_says_what_a_person_does(insects, change, cause):
    insects.server.redirects["leads-away"] = "file:///etc/passwd"
    change = {"url": change["url"].format(url=insects.server.url)}
    insects.provide(downloads=[insects.download(**change)])
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1
    lines = result.stderr[result.stderr.index("fgvc: error: ") :].splitlines()
    assert lines[0] == "fgvc: error: insects could not be downloaded:"
    assert cause in lines[1]
    assert lines[2:] == [
        "by hand:",
        "  Ask the museum for insects.tgz.",
        "homepage: https://insects.example",
        f"so that there is, in {insects.folder}: images, lists",
        "An archive that lies in that folder is verified and unpacked by the command below:",
        f"  insects.tgz ({bytes_text(len(insects.archive))}, {insects.download()['checksum']})",
        f"then: fgvc data prepare insects --data-root {insects.root}",
    ]
    assert not insects.folder.exists()


def test_a_web_page_is_not_taken_for_the_file(insects):
    insects.server.kind = "text/html"
    insects.folder.mkdir(parents=True)
    part = insects.folder / "insects.tgz.part"
    part.write_bytes(insects.archive[:1000])
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and "a web page instead of the file" in result.stderr
    assert part.read_bytes() == insects.archive[:1000]


def test_a_dead_link_does_not_keep_the_others(insects):
    insects.server.files["names.txt"] = b"ant\n"
    good = {"url": f"{insects.server.url}/names.txt", "file": "names.txt"}
    insects.provide(needed=["names.txt", "images"], downloads=[insects.download(url=""), good])
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1
    assert f"so that there is, in {insects.folder}: images\n" in result.stderr
    assert (insects.folder / "names.txt").read_bytes() == b"ant\n"
    assert "names.txt: no checksum is published" in result.stderr


def test_without_any_link_it_says_what_a_person_does(insects):
    insects.provide(downloads=[])
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and result.stdout == "" and not insects.folder.exists()
    assert result.stderr.startswith("fgvc: error: insects could not be downloaded: there is no link to it.\nby hand:\n")


def test_an_archive_that_a_person_got_is_verified_and_used(insects):
    insects.provide(downloads=[insects.download(url="")])
    insects.folder.mkdir(parents=True)
    own = insects.folder / "insects.tgz"
    own.write_bytes(insects.archive)
    result = insects.run("prepare", "insects")
    assert result.exit_code == 0 and insects.is_whole() and insects.server.log == []
    assert own.exists() and "your copy of it is not needed any more" in result.stderr


def test_a_wrong_archive_of_a_persons_is_left_alone(insects):
    insects.folder.mkdir(parents=True)
    own = insects.folder / "insects.tgz"
    own.write_bytes(b"something else")
    result = insects.run("prepare", "insects")
    assert result.exit_code == 0 and insects.is_whole()
    assert own.read_bytes() == b"something else" and "is not what was published: its md5 is" in result.stderr


def with_archive(insects, archive: bytes, **changes) -> None:
    insects.archive = insects.server.files["insects.tgz"] = archive
    insects.provide(downloads=[insects.download(**changes)])


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "images/../../outside.txt", "C:\\outside.txt"])
def test_a_zip_with_a_member_that_escapes_is_refused(insects, name):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("images/ant/0.png", b"x")
        archive.writestr(name, b"outside")
    with_archive(insects, packed.getvalue())
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and "refused, for a member would land outside of its folder" in result.stderr
    assert insects.there() == ["insects.tgz.part"]
    assert not list(insects.root.parent.rglob("*outside.txt"))


def tar_member(name: str, **attributes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for attribute, value in attributes.items():
        setattr(member, attribute, value)
    return member


@pytest.mark.parametrize(
    "member",
    [
        tar_member("../outside.txt"),
        tar_member("images/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        tar_member("images/link", type=tarfile.SYMTYPE, linkname="../../.."),
        tar_member("images/device", type=tarfile.CHRTYPE),
    ],
    ids=["above", "link", "link above", "device"],
)
def test_a_tar_with_a_member_that_escapes_is_refused(insects, member):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(member)
    with_archive(insects, packed.getvalue())
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and "refused, for a member would land outside of its folder" in result.stderr
    assert insects.there() == ["insects.tgz.part"]
    assert not list(insects.root.parent.rglob("*outside.txt"))


def test_a_zip_is_unpacked_where_it_belongs(insects):
    files = {"ant/0.png": b"x", "bee/0.png": b"y"}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    insects.archive = insects.server.files["insects.tgz"] = packed.getvalue()
    insects.provide(needed=["images"], downloads=[insects.download(unpack="images", gives=["images"])])
    assert insects.run("prepare", "insects").exit_code == 0
    assert (insects.folder / "images/bee/0.png").read_bytes() == b"y"


@pytest.mark.parametrize("packed", ["tar", "zip"])
def test_leading_folders_are_left_off(insects, packed):
    names = ["set-1.0/a/one.txt", "./set-1.0/a/b/two.txt", "readme"]
    file = io.BytesIO()
    if packed == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.mkdir("set-1.0")
            for name in names:
                archive.writestr(name, name)
    else:
        with tarfile.open(fileobj=file, mode="w") as tar:
            tar.addfile(tar_member("set-1.0", type=tarfile.DIRTYPE))
            for name in names:
                tar.addfile(tar_member(name, size=len(name)), io.BytesIO(name.encode()))
            tar.addfile(tar_member("set-1.0/hard", type=tarfile.LNKTYPE, linkname="set-1.0/a/one.txt"))
            tar.addfile(tar_member("set-1.0/a/soft", type=tarfile.SYMTYPE, linkname="b/two.txt"))
    insects.archive = insects.server.files["insects.tgz"] = file.getvalue()
    insects.provide(needed=["x/a"], downloads=[insects.download(unpack="x", strip=1, gives=["x/a"])])
    insects.run("prepare", "insects")
    found = {str(path.relative_to(insects.folder)): path.read_text() for path in insects.folder.rglob("*.txt")}
    assert found == {"x/a/one.txt": names[0], "x/a/b/two.txt": names[1]}
    if packed == "tar":
        assert (insects.folder / "x/hard").read_text() == names[0]
        assert (insects.folder / "x/a/soft").read_text() == names[1]
    assert not list(insects.folder.rglob("readme"))


@pytest.mark.parametrize("form", ["gz", "bz2", "xz"])
def test_an_archive_that_is_damaged_in_its_middle_leaves_nothing(insects, form):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=f"w:{form}") as tar:
        tar.addfile(tar_member("images/noise", size=1 << 16), io.BytesIO(os.urandom(1 << 16)))
    damaged = bytearray(packed.getvalue())
    damaged[20_000:40_000] = b"\xff" * 20_000
    with_archive(insects, bytes(damaged))
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and "insects.tgz: no archive that can be unpacked" in result.stderr
    assert insects.there() == ["insects.tgz.part"]


def test_a_hard_link_to_what_the_archive_lacks_is_damage(insects):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(tar_member("images/hard", type=tarfile.LNKTYPE, linkname="images/gone"))
    with_archive(insects, packed.getvalue())
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1
    assert "insects.tgz: no archive that can be unpacked: linkname 'images/gone' not found" in result.stderr


@pytest.mark.parametrize("checksum", [True, False], ids=["with checksum", "without"])
@pytest.mark.parametrize(
    ("archive", "cause"),
    [
        (b"no archive", "no archive that can be unpacked"),
        (tarfile.BLOCKSIZE * b"\x1f\x8b", "no archive that can be unpacked"),
        ("cut", "no archive that can be unpacked"),
        ("other", "it lacks lists"),
    ],
    ids=["text", "damaged", "cut off", "something else"],
)
def test_an_archive_that_is_none_leaves_nothing(insects, archive, cause, checksum):
    if archive == "cut":
        archive = insects.archive[: len(insects.archive) // 2]
    elif archive == "other":
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:xz") as tar:
            tar.addfile(tar_member("images/ant/0.png"))
        archive = packed.getvalue()
    with_archive(insects, archive, **({} if checksum else {"checksum": "", "size": 0}))
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and cause in result.stderr
    assert "images" not in insects.there() and ".unpacking" not in insects.there()


@pytest.mark.parametrize("where", ["unpack", "move_into_place", "fault_of"])
def test_interrupted_at_any_step_it_is_not_there_and_goes_on(insects, monkeypatch, where):
    def interrupted(*arguments: object) -> None:
        if where == "unpack":
            unpacking.unpack(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(obtaining, where, interrupted)
        result = insects.run("prepare", "insects")
    assert result.exit_code == 130
    assert (
        f"what was downloaded is kept: fgvc data prepare insects --data-root {insects.root} goes on." in result.stderr
    )
    assert insects.there() == ["insects.tgz.part"]
    asked = len(insects.server.log)
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()
    assert len(insects.server.log) == asked and insects.there() == ["images", "lists"]


def test_interrupted_between_two_moves_what_is_there_is_whole(insects, monkeypatch):
    rename = Path.rename

    def second_fails(path: Path, target: Path) -> Path:
        if path.name == "lists":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", second_fails)
        assert insects.run("prepare", "insects").exit_code == 130
    assert insects.there() == ["images", "insects.tgz.part"]
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()


def test_killed_it_goes_on(insects):
    """The process is killed while it downloads: nothing can tidy up."""
    insects.archive = insects.server.files["insects.tgz"] = insects.archive + os.urandom(1 << 21)  # trailing rubbish
    insects.provide(downloads=[insects.download()])
    insects.server.wait = 0.05
    program = subprocess.Popen(
        [sys.executable, "-m", "fgvc_cli", "data", "prepare", "insects", "--data-root", str(insects.root)],
        env={**os.environ, "PYTHONPATH": str(insects.site), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )
    part = insects.folder / "insects.tgz.part"
    until = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 1 << 18) and program.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    program.send_signal(signal.SIGKILL)
    program.communicate()
    assert program.returncode == -signal.SIGKILL
    had = part.stat().st_size
    assert insects.there() == [".preparing", "insects.tgz.part"] and 0 < had < len(insects.archive)
    (insects.folder / ".unpacking/images").mkdir(parents=True)  # as if it had been killed a little later
    (insects.folder / ".unpacking/images/half.png").write_bytes(b"half")
    insects.server.wait = 0.0
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()
    assert insects.server.log == [None, f"bytes={had}-"] and insects.there() == ["images", "lists"]
    assert not list(insects.folder.rglob("half.png"))


def test_two_at_once_download_once(insects, monkeypatch):
    from fgvc_cli.data.acquisition import prepare as lock

    monkeypatch.setattr(lock, "PAUSE", 0.02)
    insects.server.wait = 0.3
    from fgvc_cli.data.acquisition.select import choose_dataset
    from fgvc_cli.registry import get_registry

    monkeypatch.setenv("FGVC_DATA", str(insects.root))
    chosen = choose_dataset("insects", None, [], get_registry())
    provision = chosen.provision()
    assert provision is not None
    failures: list[BaseException] = []

    def prepare() -> None:
        try:
            obtaining.obtain(chosen, provision)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=prepare) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and insects.is_whole() and insects.server.log == [None]
    assert insects.there() == ["images", "lists"]


def test_who_waits_says_so(insects, monkeypatch, capsys):
    from fgvc_cli.data.acquisition import prepare as lock

    def finish(seconds: float) -> None:
        held.__exit__(None, None, None)

    held = lock.alone(insects.folder)
    held.__enter__()
    monkeypatch.setattr(lock.time, "sleep", finish)
    with lock.alone(insects.folder):
        assert "another process is preparing this dataset; waiting for it" in capsys.readouterr().err
    assert not insects.folder.exists()


def test_a_lock_that_its_last_owner_has_just_deleted_is_none(insects, monkeypatch):
    from fgvc_cli.data.acquisition import prepare as lock

    deleted = []

    class Late(lock.FileLock):
        def __init__(self, file: Path, shared: bool) -> None:
            super().__init__(file, shared)
            if not deleted:
                deleted.append(file.unlink())

    monkeypatch.setattr(lock, "FileLock", Late)
    with lock.alone(insects.folder):
        assert deleted and (insects.folder / lock.FILE).exists()


def test_without_room_nothing_is_downloaded(insects, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, len(insects.archive)))
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and "Make room, or name another place with --data-root." in result.stderr
    assert insects.server.log == [] and not insects.folder.exists()


def test_what_is_here_of_an_archive_needs_no_more_room(insects, monkeypatch):
    insects.folder.mkdir(parents=True)
    (insects.folder / "insects.tgz.part").write_bytes(insects.archive)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=len(insects.archive)))
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()


def test_a_zip_that_grows_beyond_the_disk_is_not_unpacked(insects, monkeypatch):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("images/0", b"x")
    declared = bytearray(packed.getvalue())
    at = declared.index(b"PK\1\2") + 24  # the size unpacked, in the central directory
    declared[at : at + 4] = b"\xfe\xff\xff\xff"
    with_archive(insects, bytes(declared))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and "about 4.3 GB are needed and 1 GB are free" in result.stderr


@pytest.mark.parametrize("where", ["unpack", "fetch"])
def test_a_disk_that_is_full_in_between_is_said(insects, monkeypatch, where):
    real = getattr(obtaining, where)

    def full(*arguments: object) -> None:
        real(*arguments)
        raise OSError(errno.ENOSPC, "No space left on device", "x")

    with monkeypatch.context() as patch:
        patch.setattr(obtaining, where, full)
        result = insects.run("prepare", "insects")
    assert result.exit_code == 1
    assert "no space left on the disk. Make room, or name another place with --data-root" in result.stderr
    assert insects.there() == ["insects.tgz.part"]
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()


def test_a_folder_that_cannot_be_made(insects):
    insects.root.write_text("a file")
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1 and str(insects.root) in result.stderr


@pytest.mark.parametrize("name", [".", "images"], ids=["the folder", "in the folder"])
def test_a_link_that_leads_nowhere_is_refused_before_anything_is_downloaded(insects, tmp_path, name):
    link = insects.folder / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "not mounted")
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and insects.server.log == [] and link.is_symlink()
    assert f"{link}: is a link to {tmp_path / 'not mounted'}, which is not there." in result.stderr
    (tmp_path / "not mounted").mkdir()  # mended: what was linked is used
    insects.run("prepare", "insects")
    assert link.is_symlink() and insects.server.log == [None]


def test_a_checksum_of_another_kind_is_the_plugins_fault(insects):
    insects.provide(downloads=[insects.download(checksum="crc32:0")])
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and "'crc32:0' is no checksum of the form md5:... or sha256:..." in result.stderr


def test_a_set_of_ones_own_has_nothing_to_get(insects):
    result = insects.run("prepare", "folder")
    assert result.exit_code == 2 and "'folder' is made from your own files: there is nothing to get." in result.stderr


def test_a_set_that_makes_its_images_is_opened(insects):
    result = insects.run("prepare", "demo", "--set", "dataset.train=1", "--set", "dataset.val=1", "--set",
                         "dataset.test=1", "--set", "dataset.size=64")  # fmt: skip
    assert result.exit_code == 0 and "next: fgvc train --dataset demo --set dataset.train=1" in result.stdout
