"""`fgvc data prepare`: files are complete or absent, however a download or the process ends."""

from __future__ import annotations

import errno
import gzip
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
from unittest.mock import Mock
from urllib.error import HTTPError, URLError

import pytest

from fgvc_cli.contracts import Download
from fgvc_cli.data.acquisition import download, prepare, unpacking
from fgvc_cli.errors import FgvcError
from fgvc_cli.formatting import bytes_text

pytestmark = pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="unpacking requires Python 3.11.4")


def fails(insects, *facts: str) -> str:
    with pytest.raises(FgvcError) as caught:
        insects.prepare()
    assert all(fact in str(caught.value) for fact in facts), caught.value
    return str(caught.value)


def have_part(insects, content: bytes) -> Path:
    """Put the beginning of a download in place."""
    insects.folder.mkdir(parents=True)
    part = insects.folder / "insects.tgz.part"
    part.write_bytes(content)
    return part


def test_the_command(fgvc_data, insects):
    result = fgvc_data("prepare", "insects")
    assert result.exit_code == 0, result.stderr
    assert insects.there() == ["images", "lists"]
    assert all(fact in result.stderr for fact in ("1 file, ", "127.0.0.1", str(insects.folder), "for research"))
    assert ["train", "6", "2", "3", "each", "official"] in [line.split() for line in result.stdout.splitlines()]
    assert f"next: fgvc train --dataset insects --data-root {insects.root}\n" in result.stdout
    assert fgvc_data("prepare", "folder").exit_code == 2
    tiny = [f"--set=dataset.{name}" for name in ("train=1", "val=1", "test=1", "size=64")]
    result = fgvc_data("prepare", "demo", *tiny)
    assert result.exit_code == 0 and "next: fgvc train --dataset demo --set dataset.train=1" in result.stdout


def test_the_command_where_a_download_fails(fgvc_data, insects, monkeypatch):
    again = f"fgvc data prepare insects --data-root {insects.root}"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
        assert "--data-root" in fgvc_data("prepare", "insects").stderr
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "unpack", Mock(side_effect=KeyboardInterrupt))
        result = fgvc_data("prepare", "insects")
    assert result.exit_code == 130 and again in result.stderr, result.stderr
    shutil.rmtree(insects.folder)
    insects.server.files.clear()
    result = fgvc_data("prepare", "insects")
    assert (result.exit_code, result.stdout) == (1, "") and result.stderr.rstrip().endswith(again)
    insects.root.rmdir()
    insects.root.write_text("a file")
    assert len(fgvc_data("prepare", "insects").stderr.splitlines()) == 1


def test_existing_files_are_kept(insects):
    insects.prepare()
    asked = len(insects.server.log)
    insects.prepare()
    assert len(insects.server.log) == asked
    shutil.rmtree(insects.folder / "images")
    kept = insects.folder / "lists" / "all.txt"
    kept.write_text("mine\n")
    prepare.prepare_dataset("insects", insects.provision)
    assert kept.read_text() == "mine\n" and (insects.folder / "images/ant/0.png").exists()


@pytest.mark.parametrize(
    ("part", "known", "behavior", "log"),
    [
        ("beginning", True, {}, ["bytes=1000-"]),
        ("garbage", True, {"ranges": False}, ["bytes=1000-"]),
        ("beginning", True, {"shift": 10}, ["bytes=1000-", None]),
        ("complete", True, {}, []),
        ("complete", False, {}, ["bytes={size}-"]),
        ("longer", True, {}, [None]),
        ("longer", False, {}, ["bytes={longer}-", None]),
        ("longer", False, {"ranges": False}, ["bytes={longer}-"]),
    ],
)
def test_a_part_is_resumed_or_discarded(insects, part, known, behavior, log):
    vars(insects.server).update(behavior)
    archive = insects.archive
    parts = {"beginning": archive[:1000], "garbage": b"x" * 1000, "complete": archive, "longer": archive + b"more"}
    insects.provide(insects.download(size=len(archive) * known))
    have_part(insects, parts[part])
    insects.prepare()
    sizes = {"size": len(archive), "longer": len(archive) + 4}
    assert insects.server.log == [asked and asked.format(**sizes) for asked in log]
    assert insects.there() == ["images", "lists"]


def test_a_broken_connection_is_resumed(insects, monkeypatch):
    monkeypatch.setattr(download, "MIN_PROGRESS", 1000)
    insects.server.drop_after = len(insects.archive) // 10  # more often than `ATTEMPTS`
    insects.prepare()
    assert len(insects.server.log) == 11 and insects.server.log[0] is None


def test_a_connection_that_keeps_breaking_can_be_resumed_later(insects):
    insects.server.drop_after = 500
    fails(insects, "5 times in a row")
    assert insects.there() == ["insects.tgz.part"]
    insects.server.drop_after = None
    insects.prepare()
    assert insects.server.log[-1] == "bytes=2500-"


def test_a_busy_or_temporarily_unreachable_host_is_retried(insects, monkeypatch, caplog):
    caplog.set_level("INFO")
    insects.server.answers = [503, 429]
    insects.prepare()
    assert "503 Service Unavailable" in caplog.text
    shutil.rmtree(insects.folder)
    attempt = download._attempt
    busy = HTTPError(f"{insects.server.url}/insects.tgz", 503, "Service Unavailable", Message(), None)
    failures = [busy, URLError("no route"), download._ConnectionBrokenError("broken"), URLError("no route")]

    def failing_first(*arguments: object) -> None:
        if failures:
            raise failures.pop(0)
        attempt(*arguments)

    monkeypatch.setattr(download, "_attempt", failing_first)
    insects.prepare()
    assert "no route" in caplog.text


def test_the_proxy_of_the_environment_is_used(insects, monkeypatch):
    link = "http://museum.example/insects.tgz"
    insects.server.files[link] = insects.archive
    insects.provide(insects.download(url=link))
    monkeypatch.setenv("http_proxy", insects.server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    insects.prepare()


def test_a_file_that_differs_is_deleted(insects):
    insects.provide(insects.download(checksum="", size=len(insects.archive) + 1))
    fails(insects, f"{len(insects.archive)} bytes", f"{len(insects.archive) + 1} bytes")
    assert not insects.folder.exists()
    insects.provide(insects.download(checksum="crc32:0"))
    fails(insects, "'crc32:0'")
    shutil.rmtree(insects.folder)
    insects.provide(insects.download(checksum=f"md5:{insects.download().checksum[4:].upper()}"))
    insects.prepare()
    shutil.rmtree(insects.folder)
    insects.server.files["insects.tgz"] = insects.archive[:-1] + b"?"
    fails(insects, "its md5 is")
    assert not insects.folder.exists()


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("{url}/gone.tgz", "404 Not Found"),
        ("http://127.0.0.1:9/insects.tgz", "connection refused"),
        ("file:///etc/passwd", "only http and https"),
        ("", "no download link"),
        ("{url}/redirect-to-a-file", "file:///etc/passwd"),
    ],
)
def test_a_dead_link_gives_instructions(insects, url, cause):
    insects.server.redirects["redirect-to-a-file"] = "file:///etc/passwd"
    insects.provide(insects.download(url=url.format(url=insects.server.url)))
    archive = bytes_text(len(insects.archive)), insects.download().checksum
    fails(insects, cause, "Ask the museum", "https://insects.example", "images, lists", *archive)
    assert not insects.folder.exists()
    insects.provide()
    fails(insects, "Ask the museum")
    assert not insects.folder.exists()


def test_a_web_page_is_not_the_file(insects):
    insects.server.kind = "text/html"
    part = have_part(insects, insects.archive[:1000])
    fails(insects, "web page")
    assert part.read_bytes() == insects.archive[:1000]


def test_a_dead_link_does_not_stop_the_other_downloads(insects):
    insects.server.files["names.txt"] = b"ant\n"
    good = Download(f"{insects.server.url}/names.txt", "names.txt")
    insects.provide(insects.download(url=""), good, needed=("names.txt", "images"))
    fails(insects, f"missing in {insects.folder}: images\n")
    assert (insects.folder / "names.txt").read_bytes() == b"ant\n"


def test_an_archive_of_the_user_is_verified_and_used(insects, caplog):
    insects.folder.mkdir(parents=True)
    own = insects.folder / "insects.tgz"
    own.write_bytes(b"something else")
    insects.prepare()
    assert "its md5 is" in caplog.text
    assert own.read_bytes() == b"something else" and insects.server.log == [None]
    for name in ("images", "lists"):
        shutil.rmtree(insects.folder / name)
    insects.provide(insects.download(url=""))
    own.write_bytes(insects.archive)
    insects.prepare()
    assert own.exists() and insects.server.log == [None]


def tar_of(*members: tarfile.TarInfo, form: str = "w", content: bytes = b"") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=form) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(content or member.name.encode()) if member.size else None)
    return packed.getvalue()


def member(name: str, **attributes) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for attribute, value in (attributes or {"size": len(name)}).items():
        setattr(made, attribute, value)
    return made


def zip_of(*names: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.mkdir(name) if name.endswith("/") else archive.writestr(name, name)
    return packed.getvalue()


@pytest.mark.parametrize(
    "archive",
    [
        *(
            zip_of("images/ant/0.png", name)
            for name in ("../out.txt", "/out.txt", "images/../../out.txt", "C:\\out.txt")
        ),
        tar_of(member("../out.txt")),
        tar_of(member("images/link", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
        tar_of(member("images/link", type=tarfile.SYMTYPE, linkname="../../..")),
        tar_of(member("images/device", type=tarfile.CHRTYPE)),
    ],
)
def test_an_archive_with_a_member_that_escapes_is_refused(insects, archive):
    insects.publish(archive)
    fails(insects, "refused")
    assert insects.there() == ["insects.tgz.part"]
    assert not list(insects.root.parent.rglob("*out.txt"))


@pytest.mark.parametrize("packed", ["tar", "zip"])
def test_leading_folders_are_stripped(insects, packed):
    names = ["set-1.0/a/one.txt", "./set-1.0/a/b/two.txt", "readme"]
    if packed == "zip":
        archive = zip_of("set-1.0/", *names)
    else:
        hard = member("set-1.0/hard", type=tarfile.LNKTYPE, linkname=names[0])
        soft = member("set-1.0/a/soft", type=tarfile.SYMTYPE, linkname="b/two.txt")
        archive = tar_of(member("set-1.0", type=tarfile.DIRTYPE), *map(member, names), hard, soft)
    insects.publish(archive, ("x/a",), unpack="x", strip=1, gives=("x/a",))
    prepare.prepare_dataset("insects", insects.provision)
    found = {str(path.relative_to(insects.folder)): path.read_text() for path in insects.folder.rglob("*.txt")}
    assert found == {"x/a/one.txt": names[0], "x/a/b/two.txt": names[1]}
    if packed == "tar":
        assert (insects.folder / "x/hard").read_text() == names[0]
        assert (insects.folder / "x/a/soft").read_text() == names[1]
    assert not list(insects.folder.rglob("readme"))


def _with_damaged_header(archive: bytes) -> bytes:
    """Flip a bit in the name in the last header, which tarfile takes for the end of the archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        at = tar.getmembers()[-1].offset
    return archive[:at] + bytes([archive[at] ^ 1]) + archive[at + 1 :]


@pytest.mark.parametrize(
    "form", ["gz", "bz2", "xz", "text", "magic", "cut", "hard link", "incomplete", "crc", "header"]
)
def test_an_invalid_archive_leaves_nothing(insects, form):
    cause = "not a valid archive"
    if form in ("gz", "bz2", "xz"):  # damaged in the middle
        noise = member("images/noise", size=1 << 16)
        archive = bytearray(tar_of(noise, form=f"w:{form}", content=os.urandom(1 << 16)))
        archive[20_000:40_000] = b"\xff" * 20_000
    elif form == "incomplete":
        archive, cause = tar_of(member("images/ant/0.png"), form="w:xz"), "does not contain lists"
    else:
        archive = {
            "text": b"no archive",
            "magic": tarfile.BLOCKSIZE * b"\x1f\x8b",
            "cut": insects.archive[: len(insects.archive) // 2],
            "crc": insects.archive[:-8] + bytes([insects.archive[-8] ^ 1]) + insects.archive[-7:],
            "header": _with_damaged_header(gzip.decompress(insects.archive)),
            "hard link": tar_of(member("images/hard", type=tarfile.LNKTYPE, linkname="images/gone")),
        }[form]
    insects.publish(bytes(archive), checksum="", size=0)
    fails(insects, cause)
    assert insects.there() == ["insects.tgz.part"]


@pytest.mark.parametrize("where", ["unpack", "move_into_place", "mismatch", "rename"])
def test_interrupted_at_any_step_results_are_complete_or_absent(insects, monkeypatch, where):
    rename = Path.rename

    def interrupted(*arguments) -> None:
        if where == "unpack":
            unpacking.unpack(*arguments)
        elif where == "rename" and arguments[0].name != "lists":
            return rename(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path if where == "rename" else prepare, where, interrupted)
        with pytest.raises(KeyboardInterrupt):
            insects.prepare()
    assert insects.there() == [*["images"] * (where == "rename"), "insects.tgz.part"]
    asked = len(insects.server.log)
    insects.prepare()
    assert len(insects.server.log) == asked and insects.there() == ["images", "lists"]


def test_a_killed_process_is_resumed(insects):
    insects.publish(insects.archive + os.urandom(1 << 20))  # trailing garbage
    insects.server.wait = 0.05
    process = multiprocessing.get_context("fork").Process(target=insects.prepare)
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
    insects.prepare()
    assert insects.server.log == [None, f"bytes={had}-"] and insects.there() == ["images", "lists"]
    assert not list(insects.folder.rglob("half.png"))


def test_concurrent_processes_download_once(insects, monkeypatch):
    monkeypatch.setattr(prepare, "POLL_SECONDS", 0.02)
    insects.server.wait = 0.1
    failures: list[BaseException] = []

    def run() -> None:
        try:
            insects.prepare()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and insects.server.log == [None]
    assert insects.there() == ["images", "lists"]


def test_locks_of_a_folder(insects, monkeypatch, caplog):
    held = prepare.exclusive(insects.folder)
    held.__enter__()
    monkeypatch.setattr(prepare.time, "sleep", lambda seconds: held.__exit__(None, None, None))
    with caplog.at_level("INFO"), prepare.exclusive(insects.folder):
        assert "waiting for another process" in caplog.text
    assert not insects.folder.exists()
    deleted = []

    class Late(prepare.FileLock):
        """Gets the lock of a file that its last owner has just deleted."""

        def __init__(self, file: Path, shared: bool) -> None:
            super().__init__(file, shared)
            if not deleted:
                deleted.append(file.unlink())

    monkeypatch.setattr(prepare, "FileLock", Late)
    with prepare.exclusive(insects.folder):
        assert deleted and (insects.folder / prepare.LOCK).exists()


def test_disk_space_is_checked_first(insects, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=len(insects.archive)))
    fails(insects, "`data_root`")
    assert insects.server.log == [] and not insects.folder.exists()
    have_part(insects, insects.archive)  # which needs no more space
    insects.prepare()
    shutil.rmtree(insects.folder)
    declared = bytearray(zip_of("images/0"))
    at = declared.index(b"PK\1\2") + 24  # the uncompressed size, in the central directory
    declared[at : at + 4] = b"\xfe\xff\xff\xff"
    insects.publish(bytes(declared))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    fails(insects, "4.3 GB", "1 GB")


@pytest.mark.parametrize("where", ["unpack", "fetch"])
def test_a_disk_that_fills_up(insects, monkeypatch, where):
    real = getattr(prepare, where)

    def full(*arguments: object) -> None:
        real(*arguments)
        raise OSError(errno.ENOSPC, "No space left on device", "x")

    with monkeypatch.context() as patch:
        patch.setattr(prepare, where, full)
        fails(insects, "no space left", "`data_root`")
    assert insects.there() == ["insects.tgz.part"]
    insects.prepare()


@pytest.mark.parametrize("name", [".", "images"])
def test_a_broken_link_is_refused_before_anything_is_downloaded(insects, tmp_path, name):
    link = insects.folder / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "not mounted")
    fails(insects, f"{link} is a link to {tmp_path / 'not mounted'}")
    assert insects.server.log == [] and link.is_symlink()
    (tmp_path / "not mounted").mkdir()
    prepare.prepare_dataset("insects", insects.provision)
    assert link.is_symlink() and insects.server.log == [None]
