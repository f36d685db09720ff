"""A file server that can misbehave, and a plugin's dataset that downloads from it."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import threading
import types
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fgvc_cli import DatasetSpec, hookimpl, settings
from fgvc_cli.contracts import Dataset, DatasetRequest, Download, Provision, Split
from fgvc_cli.data.acquisition import download as transfer
from fgvc_cli.data.acquisition.prepare import prepare_dataset
from fgvc_cli.registry import lookup


class Server:
    """A local HTTP server.

    Attributes:
        url: base of the links.
        files: content by path.
        ranges: whether it supports ranges.
        drop_after: bytes after which it breaks each connection; None: never.
        shift: offset in bytes of the ranges that it sends.
        wait: seconds before each block of 64 KiB.
        answers: status codes of the next responses.
        redirects: target by path.
        kind: content type.
        log: range of each request, or None.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges, self.kind = True, "application/octet-stream"
        self.drop_after: int | None = None
        self.wait = 0.0
        self.shift = 0
        self.answers: list[int] = []
        self.redirects: dict[str, str] = {}
        self.log: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.log.append(asked)
        path = request.path.lstrip("/")
        status = self.answers.pop(0) if self.answers else 302 if path in self.redirects else 200
        body = self.files.get(path)
        if body is None and status == 200:
            status = 404
        if status != 200 or body is None:
            request.send_response(status)
            if status == 302:
                request.send_header("Location", self.redirects[path])
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) + self.shift if asked and self.ranges else 0
        if start >= len(body) and asked and self.ranges:
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(body)}")
            request.end_headers()
            return
        request.send_response(206 if asked and self.ranges else 200)
        if asked and self.ranges:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        request.send_header("Content-Type", self.kind)
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        self._send(request, body[start:])

    def _send(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        end = len(body) if self.drop_after is None else min(self.drop_after, len(body))
        for at in range(0, end, 1 << 16):
            threading.Event().wait(self.wait)
            try:
                request.wfile.write(body[at : min(at + (1 << 16), end)])
            except ConnectionError:
                return
        request.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that runs for the test."""
    serving = Server()
    thread = threading.Thread(target=serving.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield serving
    serving.http.shutdown()
    serving.http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "WAITS", (0.0,))
    monkeypatch.setenv("no_proxy", "*")


def picture(seed: int, side: int = 40) -> bytes:
    """A PNG of noise."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


IMAGES = {f"images/{name}/{i}.png": picture(10 * k + i) for k, name in enumerate(("ant", "bee")) for i in range(3)}
LISTS = {"lists/all.txt": b"ant\nbee\n"}


class InsectsDataset(Dataset):
    name, class_names = "insects", ("ant", "bee")
    files: ClassVar[Provision]

    def __init__(self, request: DatasetRequest, options: Any) -> None:
        self.folder = self.files.require(self.name)

    @classmethod
    def provision(cls, request: DatasetRequest, options: Any) -> Provision:
        return cls.files

    def splits(self) -> tuple[str, ...]:
        return ("train",)

    def split(self, name: str) -> Split:
        images = sorted((self.folder / "images").glob("*/*.png"))
        labels = [self.class_names.index(image.parent.name) for image in images]
        return Split(name, images, labels, [f"{image.parent.name}/{image.name}" for image in images], origin="official")


class Insects:
    """The dataset "insects" on a server, and its folder.

    Attributes:
        root, folder: the data root, and the folder of the dataset in it.
        archive: the published archive.
        provision: of the dataset.
    """

    def __init__(self, root: Path, server: Server) -> None:
        self.root, self.folder, self.server = root, root / "insects", server
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for name, content in {**IMAGES, **LISTS}.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        self.publish(packed.getvalue())

    def publish(self, archive: bytes, needed: tuple[str, ...] = ("images", "lists"), **changes: Any) -> None:
        """Publish an archive; `changes` apply to its `Download`."""
        self.archive = self.server.files["insects.tgz"] = archive
        self.provide(self.download(**changes), needed=needed)

    def provide(self, *downloads: Download, needed: tuple[str, ...] = ("images", "lists")) -> None:
        """Set the downloads of the dataset."""
        by_hand, homepage = "Ask the museum for insects.tgz.", "https://insects.example"
        self.provision = Provision(self.folder, needed, downloads, by_hand, homepage, "for research")

    def download(self, **changes: Any) -> Download:
        """Return the download of the archive."""
        facts: dict[str, Any] = {
            "url": f"{self.server.url}/insects.tgz",
            "file": "insects.tgz",
            "checksum": f"md5:{hashlib.md5(self.archive).hexdigest()}",
            "size": len(self.archive),
            "unpack": "",
            "gives": ("images", "lists"),
        }
        return Download(**{**facts, **changes})

    def prepare(self) -> None:
        """Download the dataset, and check that it is complete."""
        prepare_dataset("insects", self.provision)
        assert all((self.folder / name).read_bytes() == content for name, content in {**IMAGES, **LISTS}.items())

    def there(self) -> list[str]:
        """List the content of its folder."""
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []


@pytest.fixture
def insects(server: Server, tmp_path: Path) -> Insects:
    """The dataset, not registered."""
    return Insects(tmp_path / "root", server)


@pytest.fixture
def fgvc_data(insects: Insects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """A function that runs `fgvc data`; the dataset is registered by an installed plugin."""
    info = tmp_path / "site" / "insects-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: insects\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fgvc]\ninsects = insects_plugin\n")
    module: Any = types.ModuleType("insects_plugin")
    spec = DatasetSpec("insects", "insects_plugin:Insects", "Insects, for a test", source="A paper")
    module.Insects, module.fgvc_datasets = InsectsDataset, hookimpl(lambda: [spec], specname="fgvc_datasets")
    monkeypatch.setattr(InsectsDataset, "files", insects.provision, raising=False)
    monkeypatch.setitem(sys.modules, "insects_plugin", module)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    lookup._discovered.cache_clear()
    from fgvc_cli.cli.app import build_app

    yield lambda *arguments: CliRunner().invoke(build_app(), ["data", *arguments, "--data-root", str(insects.root)])
    lookup._discovered.cache_clear()
    settings.use(None)
