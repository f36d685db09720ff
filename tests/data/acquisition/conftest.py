"""A file server that can misbehave, and a plugin's dataset that downloads from it."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fgvc_cli import settings
from fgvc_cli.data.acquisition import download as transfer
from fgvc_cli.registry import lookup

PLUGIN = """
from fgvc_cli import DatasetSpec, hookimpl

@hookimpl
def fgvc_datasets():
    return [DatasetSpec("insects", "insects_set:Insects", "Insects, for a test", source="A paper")]
"""

DATASET = """
import json
from pathlib import Path

from fgvc_cli.contracts import Dataset, Download, Provision, Split

class Insects(Dataset):
    name, class_names = "insects", ("ant", "bee")

    def __init__(self, request, options):
        self.folder = self.provision(request, options).require(self.name)

    @classmethod
    def provision(cls, request, options):
        facts = json.loads(Path(__file__).with_name("provision.json").read_text())
        downloads = tuple(Download(**{**d, "gives": tuple(d.get("gives", ()))}) for d in facts.pop("downloads"))
        facts["needed"] = tuple(facts["needed"])
        return Provision(folder=request.root / "insects", downloads=downloads, **facts)

    def splits(self):
        return ("train",)

    def split(self, name):
        images = sorted((self.folder / "images").glob("*/*.png"))
        labels = [self.class_names.index(image.parent.name) for image in images]
        return Split(name, images, labels, [image.name for image in images], origin="official")
"""


class Server:
    """Files over HTTP on this machine.

    Attributes:
        url: what links begin with.
        files: contents by path.
        ranges: whether it can send a part of a file.
        drop_after: bytes after which it breaks off each answer; None: never.
        shift: how many bytes off the part of a file is that it sends.
        wait: held before each block of 64 KiB, to slow it down.
        answers: status codes for the next requests, instead of what they ask for.
        redirects: where paths lead to.
        kind: the content type that it states.
        log: the range that each request asked for, or None.
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


def tar_of(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def zip_of(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


class Insects:
    """The dataset "insects": what it needs, its folder, and the command line that gets it."""

    def __init__(self, site: Path, root: Path, server: Server) -> None:
        self.site, self.root, self.folder, self.server = site, root, root / "insects", server
        self.archive = tar_of({**IMAGES, **LISTS})
        server.files["insects.tgz"] = self.archive
        self.provide()

    def provide(self, **changes: Any) -> None:
        """Say what it needs; by default an archive with images/ and lists/."""
        facts = {
            "needed": ["images", "lists"],
            "downloads": [self.download()],
            "by_hand": "Ask the museum for insects.tgz.",
            "homepage": "https://insects.example",
            "license": "for research",
        }
        (self.site / "provision.json").write_text(json.dumps({**facts, **changes}))

    def download(self, **changes: Any) -> dict[str, Any]:
        return {
            "url": f"{self.server.url}/insects.tgz",
            "file": "insects.tgz",
            "checksum": md5(self.archive),
            "size": len(self.archive),
            "unpack": "",
            "gives": ["images", "lists"],
            **changes,
        }

    def run(self, *arguments: str) -> Any:
        """Run `fgvc data ...`."""
        from fgvc_cli.cli.app import build_app

        return CliRunner().invoke(build_app(), ["data", *arguments, "--data-root", str(self.root)])

    def there(self) -> list[str]:
        """List what lies in its folder."""
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []

    def is_whole(self) -> bool:
        return all((self.folder / name).read_bytes() == content for name, content in {**IMAGES, **LISTS}.items())


@pytest.fixture
def insects(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Insects]:
    """The dataset, registered by a plugin that is installed for the test."""
    site = tmp_path / "site"
    info = site / "insects-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: insects\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fgvc]\ninsects = insects_plugin\n")
    (site / "insects_plugin.py").write_text(PLUGIN)
    (site / "insects_set.py").write_text(DATASET)
    monkeypatch.syspath_prepend(str(site))
    lookup._discovered.cache_clear()
    yield Insects(site, tmp_path / "root", server)
    lookup._discovered.cache_clear()
    for name in ("insects_plugin", "insects_set"):
        sys.modules.pop(name, None)
    settings.use(None)
