"""`fgvc data prepare`: files are complete or absent, however a download or the process ends."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import shutil
import signal
import tarfile
import threading
import time
import zipfile
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError, URLError

import pytest

from fgvc_cli.data.acquisition import download, prepare, unpacking
from fgvc_cli.data.acquisition.select import choose_dataset
from fgvc_cli.formatting import bytes_text
from fgvc_cli.registry import get_registry


def test_a_download_is_verified_unpacked_and_described(insects):
    result = insects.run("prepare", "insects")
    assert result.exit_code == 0, result.stderr
    assert insects.is_whole()
    assert insects.there() == ["images", "lists"]
    assert "1 file, " in result.stderr and "127.0.0.1" in result.stderr and str(insects.folder) in result.stderr
    assert "license: for research" in result.stderr
    assert ["train", "6", "2", "3", "each", "official"] in [line.split() for line in result.stdout.splitlines()]
    assert f"next: fgvc train --dataset insects --data-root {insects.root}\n" in result.stdout


def test_existing_files_are_not_downloaded_again(insects):
    assert insects.run("prepare", "insects").exit_code == 0
    asked = len(insects.server.log)
    result = insects.run("prepare", "insects")
    assert result.exit_code == 0 and len(insects.server.log) == asked
    shutil.rmtree(insects.folder / "images")
    kept = insects.folder / "lists" / "all.txt"
    kept.write_text("mine\n")
    assert insects.run("prepare", "insects").exit_code == 0
    assert kept.read_text() == "mine\n" and (insects.folder / "images/ant/0.png").exists()


def test_a_part_is_resumed(insects):
    insects.folder.mkdir(parents=True)
    (insects.folder / "insects.tgz.part").write_bytes(insects.archive[:1000])
    assert insects.run("prepare", "insects").exit_code == 0
    assert insects.server.log == ["bytes=1000-"]
    assert insects.is_whole() and insects.there() == ["images", "lists"]


def test_a_server_without_ranges_starts_over(insects):
    insects.server.ranges = False
    insects.folder.mkdir(parents=True)
    (insects.folder / "insects.tgz.part").write_bytes(b"x" * 1000)
    result = insects.run("prepare", "insects")
    assert result.exit_code == 0 and insects.is_whole()
    assert "starting over" in result.stderr


def test_nothing_is_left_of_a_longer_part(insects):
    insects.server.ranges = False
    insects.provide(downloads=[insects.download(size=0)])
    insects.folder.mkdir(parents=True)
    (insects.folder / "insects.tgz.part").write_bytes(b"x" * (len(insects.archive) + 4))
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()


@pytest.mark.parametrize("known", [True, False], ids=["size known", "size not known"])
def test_a_complete_part_is_not_downloaded_again(insects, known):
    if not known:
        insects.provide(downloads=[insects.download(size=0)])
    insects.folder.mkdir(parents=True)
    (insects.folder / "insects.tgz.part").write_bytes(insects.archive)
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()
    assert insects.server.log == ([] if known else [f"bytes={len(insects.archive)}-"])


@pytest.mark.parametrize("size", [0, 1], ids=["size not known", "size known"])
def test_a_part_that_is_too_long_is_discarded(insects, size):
    insects.provide(downloads=[insects.download(size=size * len(insects.archive))])
    insects.folder.mkdir(parents=True)
    part = len(insects.archive) + 4
    (insects.folder / "insects.tgz.part").write_bytes(insects.archive + b"more")
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()
    assert insects.server.log == ([None] if size else [f"bytes={part}-", None])


def test_a_wrong_range_is_discarded(insects):
    insects.server.shift = 10
    insects.folder.mkdir(parents=True)
    (insects.folder / "insects.tgz.part").write_bytes(insects.archive[:1000])
    result = insects.run("prepare", "insects")
    assert result.exit_code == 0 and insects.is_whole() and insects.server.log == ["bytes=1000-", None]
    assert "another range" in result.stderr


def test_a_checksum_in_upper_case(insects):
    insects.provide(downloads=[insects.download(checksum=f"md5:{insects.download()['checksum'][4:].upper()}")])
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()


def test_without_a_checksum_the_size_decides(insects):
    insects.provide(downloads=[insects.download(checksum="", size=len(insects.archive) + 1)])
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1
    assert f"{len(insects.archive)} bytes" in result.stderr and f"{len(insects.archive) + 1} bytes" in result.stderr
    assert not insects.folder.exists()


def test_a_broken_connection_is_resumed(insects, monkeypatch):
    monkeypatch.setattr(download, "MIN_PROGRESS", 1000)
    insects.server.drop_after = len(insects.archive) // 20  # more often than `ATTEMPTS`
    result = insects.run("prepare", "insects")
    assert result.exit_code == 0 and insects.is_whole()
    assert len(insects.server.log) == 21 and insects.server.log[0] is None


def test_a_connection_that_keeps_breaking_is_one_line(insects):
    insects.server.drop_after = 500
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("fgvc: error: ") and "5 times in a row" in last
    assert insects.there() == ["insects.tgz.part"]
    insects.server.drop_after = None
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()
    assert insects.server.log[-1] == "bytes=2500-"


def test_a_busy_server_is_retried(insects):
    insects.server.answers = [503, 429]
    result = insects.run("prepare", "insects")
    assert result.exit_code == 0 and insects.is_whole()
    assert "503 Service Unavailable" in result.stderr


@pytest.mark.parametrize("before", ["busy", "broken"])
def test_a_host_that_answered_before_is_retried_when_unreachable(insects, monkeypatch, before):
    attempt, url = download._attempt, f"{insects.server.url}/insects.tgz"
    busy = HTTPError(url, 503, "Service Unavailable", Message(), None)
    failures = [busy if before == "busy" else download._ConnectionBrokenError("broken"), URLError("no route")]

    def failing_first(*arguments: object) -> None:
        if failures:
            raise failures.pop(0)
        attempt(*arguments)

    monkeypatch.setattr(download, "_attempt", failing_first)
    result = insects.run("prepare", "insects")
    assert result.exit_code == 0 and insects.is_whole() and "no route" in result.stderr


def test_the_systems_proxy_is_used(insects, monkeypatch):
    link = "http://museum.example/insects.tgz"
    insects.server.files[link] = insects.archive
    insects.provide(downloads=[insects.download(url=link)])
    monkeypatch.setenv("http_proxy", insects.server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()


def test_a_file_with_a_wrong_checksum_is_deleted(insects):
    insects.server.files["insects.tgz"] = insects.archive[:-1] + b"?"
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1
    assert "its md5 is" in result.stderr
    assert not insects.folder.exists()


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"url": "{url}/gone.tgz"}, "404 Not Found"),
        ({"url": "http://127.0.0.1:9/insects.tgz"}, "connection refused"),
        ({"url": "file:///etc/passwd"}, "only http and https"),
        ({"url": "ftp://example/insects.tgz"}, "only http and https"),
        ({"url": ""}, "no download link"),
        ({"url": "{url}/leads-away"}, "file:///etc/passwd"),
    ],
    ids=["404", "nobody listens", "file:", "ftp:", "no link", "redirect to a file"],
)
def test_a_dead_link_gives_instructions(insects, change, cause):
    insects.server.redirects["leads-away"] = "file:///etc/passwd"
    change = {"url": change["url"].format(url=insects.server.url)}
    insects.provide(downloads=[insects.download(**change)])
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1
    error = result.stderr[result.stderr.index("fgvc: error: ") :]
    assert cause in error
    facts = ["Ask the museum", "https://insects.example", str(insects.folder), "images, lists",
             bytes_text(len(insects.archive)), insects.download()["checksum"]]  # fmt: skip
    assert all(fact in error for fact in facts)
    assert error.rstrip().endswith(f"fgvc data prepare insects --data-root {insects.root}")
    assert not insects.folder.exists()


def test_a_web_page_is_not_the_file(insects):
    insects.server.kind = "text/html"
    insects.folder.mkdir(parents=True)
    part = insects.folder / "insects.tgz.part"
    part.write_bytes(insects.archive[:1000])
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and "web page" in result.stderr
    assert part.read_bytes() == insects.archive[:1000]


def test_a_dead_link_does_not_stop_the_other_downloads(insects):
    insects.server.files["names.txt"] = b"ant\n"
    good = {"url": f"{insects.server.url}/names.txt", "file": "names.txt"}
    insects.provide(needed=["names.txt", "images"], downloads=[insects.download(url=""), good])
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1
    assert f"missing in {insects.folder}: images\n" in result.stderr
    assert (insects.folder / "names.txt").read_bytes() == b"ant\n"


def test_without_a_link_it_gives_instructions(insects):
    insects.provide(downloads=[])
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and result.stdout == "" and not insects.folder.exists()
    assert result.stderr.startswith("fgvc: error: ") and "Ask the museum" in result.stderr


def test_an_archive_put_there_by_the_user_is_verified_and_used(insects):
    insects.provide(downloads=[insects.download(url="")])
    insects.folder.mkdir(parents=True)
    own = insects.folder / "insects.tgz"
    own.write_bytes(insects.archive)
    result = insects.run("prepare", "insects")
    assert result.exit_code == 0 and insects.is_whole() and insects.server.log == []
    assert own.exists()


def test_a_wrong_archive_of_the_user_is_left_alone(insects):
    insects.folder.mkdir(parents=True)
    own = insects.folder / "insects.tgz"
    own.write_bytes(b"something else")
    result = insects.run("prepare", "insects")
    assert result.exit_code == 0 and insects.is_whole()
    assert own.read_bytes() == b"something else" and "its md5 is" in result.stderr


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
    assert result.exit_code == 1 and "refused" in result.stderr
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
    assert result.exit_code == 1 and "refused" in result.stderr
    assert insects.there() == ["insects.tgz.part"]
    assert not list(insects.root.parent.rglob("*outside.txt"))


@pytest.mark.parametrize("packed", ["tar", "zip"])
def test_leading_folders_are_stripped(insects, packed):
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
def test_an_archive_damaged_in_the_middle_leaves_nothing(insects, form):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=f"w:{form}") as tar:
        tar.addfile(tar_member("images/noise", size=1 << 16), io.BytesIO(os.urandom(1 << 16)))
    damaged = bytearray(packed.getvalue())
    damaged[20_000:40_000] = b"\xff" * 20_000
    with_archive(insects, bytes(damaged))
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and "insects.tgz: not a valid archive" in result.stderr
    assert insects.there() == ["insects.tgz.part"]


def test_a_hard_link_without_a_target(insects):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(tar_member("images/hard", type=tarfile.LNKTYPE, linkname="images/gone"))
    with_archive(insects, packed.getvalue())
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1
    assert "not a valid archive: linkname 'images/gone' not found" in result.stderr


@pytest.mark.parametrize(
    ("archive", "cause"),
    [
        (b"no archive", "not a valid archive"),
        (tarfile.BLOCKSIZE * b"\x1f\x8b", "not a valid archive"),
        ("cut", "not a valid archive"),
        ("other", "does not contain lists"),
    ],
    ids=["text", "damaged", "cut off", "something else"],
)
def test_an_invalid_archive_leaves_nothing(insects, archive, cause):
    if archive == "cut":
        archive = insects.archive[: len(insects.archive) // 2]
    elif archive == "other":
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:xz") as tar:
            tar.addfile(tar_member("images/ant/0.png"))
        archive = packed.getvalue()
    with_archive(insects, archive, checksum="", size=0)
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and cause in result.stderr
    assert "images" not in insects.there() and ".unpacking" not in insects.there()


@pytest.mark.parametrize("where", ["unpack", "move_into_place", "mismatch"])
def test_interrupted_at_any_step_it_is_absent_and_resumes(insects, monkeypatch, where):
    def interrupted(*arguments: object) -> None:
        if where == "unpack":
            unpacking.unpack(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare, where, interrupted)
        result = insects.run("prepare", "insects")
    assert result.exit_code == 130
    assert f"fgvc data prepare insects --data-root {insects.root}" in result.stderr
    assert insects.there() == ["insects.tgz.part"]
    asked = len(insects.server.log)
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()
    assert len(insects.server.log) == asked and insects.there() == ["images", "lists"]


def test_interrupted_between_two_moves_results_are_complete(insects, monkeypatch):
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


def test_a_killed_process_is_resumed(insects):
    insects.archive = insects.server.files["insects.tgz"] = insects.archive + os.urandom(1 << 20)  # trailing garbage
    insects.provide(downloads=[insects.download()])
    insects.server.wait = 0.05
    process = multiprocessing.get_context("fork").Process(target=insects.run, args=("prepare", "insects"))
    process.start()
    part = insects.folder / "insects.tgz.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 1 << 18) and process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    had = part.stat().st_size
    assert insects.there() == [".preparing", "insects.tgz.part"] and 0 < had < len(insects.archive)
    (insects.folder / ".unpacking/images").mkdir(parents=True)  # as if it had been killed later
    (insects.folder / ".unpacking/images/half.png").write_bytes(b"half")
    insects.server.wait = 0.0
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()
    assert insects.server.log == [None, f"bytes={had}-"] and insects.there() == ["images", "lists"]
    assert not list(insects.folder.rglob("half.png"))


def test_concurrent_processes_download_once(insects, monkeypatch):
    monkeypatch.setattr(prepare, "POLL_SECONDS", 0.02)
    monkeypatch.setenv("FGVC_DATA", str(insects.root))
    insects.server.wait = 0.2
    provision = choose_dataset("insects", None, [], get_registry()).provision()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            prepare.prepare_dataset("insects", provision)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and insects.is_whole() and insects.server.log == [None]
    assert insects.there() == ["images", "lists"]


def test_waiting_for_another_process_is_logged(insects, monkeypatch, caplog):
    held = prepare.exclusive(insects.folder)
    held.__enter__()
    monkeypatch.setattr(prepare.time, "sleep", lambda seconds: held.__exit__(None, None, None))
    with caplog.at_level("INFO"), prepare.exclusive(insects.folder):
        assert "waiting for another process" in caplog.text
    assert not insects.folder.exists()


def test_a_lock_file_deleted_by_its_last_owner_is_created_again(insects, monkeypatch):
    deleted = []

    class Late(prepare.FileLock):
        def __init__(self, file: Path, shared: bool) -> None:
            super().__init__(file, shared)
            if not deleted:
                deleted.append(file.unlink())

    monkeypatch.setattr(prepare, "FileLock", Late)
    with prepare.exclusive(insects.folder):
        assert deleted and (insects.folder / prepare.LOCK).exists()


def test_without_disk_space_nothing_is_downloaded(insects, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=len(insects.archive)))
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and "--data-root" in result.stderr
    assert insects.server.log == [] and not insects.folder.exists()
    insects.folder.mkdir(parents=True)  # the part needs no more space
    (insects.folder / "insects.tgz.part").write_bytes(insects.archive)
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()


def test_a_zip_larger_than_the_disk_is_not_unpacked(insects, monkeypatch):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("images/0", b"x")
    declared = bytearray(packed.getvalue())
    at = declared.index(b"PK\1\2") + 24  # the size unpacked, in the central directory
    declared[at : at + 4] = b"\xfe\xff\xff\xff"
    with_archive(insects, bytes(declared))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and "4.3 GB" in result.stderr and "1 GB" in result.stderr


@pytest.mark.parametrize("where", ["unpack", "fetch"])
def test_a_disk_that_fills_up(insects, monkeypatch, where):
    real = getattr(prepare, where)

    def full(*arguments: object) -> None:
        real(*arguments)
        raise OSError(errno.ENOSPC, "No space left on device", "x")

    with monkeypatch.context() as patch:
        patch.setattr(prepare, where, full)
        result = insects.run("prepare", "insects")
    assert result.exit_code == 1
    assert "no space left" in result.stderr and "--data-root" in result.stderr
    assert insects.there() == ["insects.tgz.part"]
    assert insects.run("prepare", "insects").exit_code == 0 and insects.is_whole()


def test_a_folder_that_cannot_be_created(insects):
    insects.root.write_text("a file")
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1 and str(insects.root) in result.stderr


@pytest.mark.parametrize("name", [".", "images"], ids=["the folder", "in the folder"])
def test_a_broken_link_is_refused_before_anything_is_downloaded(insects, tmp_path, name):
    link = insects.folder / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "not mounted")
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and insects.server.log == [] and link.is_symlink()
    assert f"{link} is a link to {tmp_path / 'not mounted'}" in result.stderr
    (tmp_path / "not mounted").mkdir()  # fixed
    insects.run("prepare", "insects")
    assert link.is_symlink() and insects.server.log == [None]


def test_an_unknown_checksum_algorithm(insects):
    insects.provide(downloads=[insects.download(checksum="crc32:0")])
    result = insects.run("prepare", "insects")
    assert result.exit_code == 1 and "'crc32:0'" in result.stderr


def test_a_dataset_of_own_files_needs_no_download(insects):
    result = insects.run("prepare", "folder")
    assert result.exit_code == 2 and "'folder'" in result.stderr


def test_a_dataset_that_generates_its_images_is_opened(insects):
    result = insects.run("prepare", "demo", "--set", "dataset.train=1", "--set", "dataset.val=1", "--set",
                         "dataset.test=1", "--set", "dataset.size=64")  # fmt: skip
    assert result.exit_code == 0 and "next: fgvc train --dataset demo --set dataset.train=1" in result.stdout
