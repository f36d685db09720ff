"""A server as a process of its own: clients in parallel, signals, and the page in a browser."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

CLIENTS = 8


class Server:
    """A running `fgvc serve`.

    Attributes:
        process: of the program.
        port: that it listens on.
    """

    def __init__(self, *arguments: Any) -> None:
        words = [sys.executable, "-m", "fgvc_cli", "serve", *map(str, arguments), "--port", "0", "--device", "cpu"]
        self.process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                return
        raise AssertionError("".join(lines))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, path: str, image: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", path, image, {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def memory(self) -> int:
        """Return its resident memory in bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; return the exit code and what it printed."""
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


@contextmanager
def serving(*arguments: Any) -> Iterator[Server]:
    """Run a server for a block."""
    server = Server(*arguments)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


def test_eight_clients_get_their_own_answers_and_memory_is_flat(run, photos):
    images = [photo.read_bytes() for photo in photos]
    with serving(run) as server:
        expected = [server.ask("/predict", image) for image in images]
        assert {status for status, _ in expected} == {200}

        def client(number: int) -> None:
            for i in range(25):
                which = (number + i) % len(images)
                assert server.ask("/predict", images[which]) == expected[which]

        used = []
        with ThreadPoolExecutor(CLIENTS) as threads:
            for _ in range(4):
                list(threads.map(client, range(CLIENTS)))
                used.append(server.memory())
        assert used[-1] - used[1] < 2 * 2**20, used
        code, err = server.stop(signal.SIGINT)
    assert code == 0 and "stopped" in err and "Traceback" not in err


def test_overload_is_refused_at_once_and_answers_in_progress_are_finished(run, photos):
    image = photos[0].read_bytes()
    with serving(run, "--queue", 2) as server, ThreadPoolExecutor(24) as threads:
        path = "/explain?explainer=sliding_window"
        began = time.monotonic()
        statuses = Counter(status for status, _ in threads.map(lambda _: server.ask(path, image), range(24)))
        assert set(statuses) == {200, 503} and statuses[200] >= 3, statuses
        assert time.monotonic() - began < 60
        last = [threads.submit(server.ask, path, image) for _ in range(3)]
        while json.loads(http_get(server, "/health"))["requests"] < 3:
            pass
        code, err = server.stop()
        assert [answer.result()[0] for answer in last] == [200] * 3
        assert code == 0 and "Traceback" not in err


def http_get(server: Server, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", path)
    return connection.getresponse().read()


def test_clients_that_send_nonsense_or_leave(run, photos):
    with serving(run, "--timeout", 1) as server:
        for data in (b"GARBAGE\r\n\r\n", b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nabc",
                     b"\0" * 100_000, b"POST /predict HTTP/1.1\r\n"):  # fmt: skip
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(data)
        slow = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        slow.putrequest("POST", "/predict")
        for name, value in (("Content-Type", "image/jpeg"), ("Content-Length", "1000")):
            slow.putheader(name, value)
        slow.endheaders(b"a")
        answer = slow.getresponse()
        assert answer.status == 408 and json.loads(answer.read())["error"]
        assert server.ask("/predict", photos[0].read_bytes())[0] == 200
        code, err = server.stop()
    assert code == 0 and "Traceback" not in err


def test_idle_connections_are_bounded_and_closed(run):
    with serving(run, "--timeout", 2) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
        idle[0].sendall(b"POST /predict HTTP/1.1\r\n")
        idle[100].settimeout(20)
        assert idle[100].recv(1) == b""
        for connection in idle[1:]:
            connection.close()
        assert json.loads(http_get(server, "/health"))["status"] == "ok"
        code, err = server.stop()
    assert code == 0 and "Traceback" not in err


def test_port_in_use(run):
    with serving(run) as server:
        words = [sys.executable, "-m", "fgvc_cli", "serve", str(run), "--port", str(server.port)]
        second = subprocess.run(words, capture_output=True, text=True, timeout=60)
    errors = [line for line in second.stderr.splitlines() if "error" in line]
    assert second.returncode == 1 and len(errors) == 1 and "in use" in errors[0] and "--port" in errors[0]


def test_exported_model(run, photos, tmp_path):
    pytest.importorskip("onnxruntime")
    model = tmp_path / "model.onnx"
    for words in (["export", run, "--out", model, "--images", 4], ["predict", *photos[:1], "--run", model, "--json"]):
        done = subprocess.run([sys.executable, "-m", "fgvc_cli", *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    (expected,) = json.loads(done.stdout)["predictions"]
    with serving(model) as server:
        (found,) = json.loads(server.ask("/predict", photos[0].read_bytes())[1])["predictions"]
        assert found == {**expected, "image": "image", "index": 0}
        status, body = server.ask("/explain", photos[0].read_bytes())
        assert status == 422 and "exported" in json.loads(body)["error"]
        assert json.loads(http_get(server, "/model"))["explainers"] == []


SETTLED = """
new Promise(done => {
  const look = () => document.getElementById('status').textContent.startsWith(WORD) ? done() : setTimeout(look, 20);
  look();
})
"""
"""Wait for a message of the page."""


@pytest.mark.parametrize(("width", "theme"), [(360, "light"), (1280, "dark")])
def test_the_page_in_a_browser(browser, run, photos, tmp_path, width, theme):
    notes = tmp_path / ("x" * 80 + ".txt")
    notes.write_text("hello")
    with serving(run) as server:
        browser.open(server.url, width, theme)
        browser.run("new Promise(done => setInterval(() => document.querySelector('#classes li') && done(), 20))")
        browser.press("Tab")
        assert browser.run("document.activeElement.id") == "files"
        root = browser("DOM.getDocument")["root"]["nodeId"]
        chooser = browser("DOM.querySelector", nodeId=root, selector="#files")["nodeId"]
        browser("DOM.setFileInputFiles", nodeId=chooser, files=[str(file) for file in (*photos[:3], notes)])
        browser.run(SETTLED.replace("WORD", "'Done'"))
        answers = browser.run("[...document.querySelectorAll('.answer')].map(answer => answer.textContent)")
        expected = json.loads(server.ask("/predict", photos[0].read_bytes())[1])["predictions"][0]
        first = f"Unknown ({expected['reason']})" if expected["reason"] else expected["classes"][0]["class"]
        assert answers[0] == first and len(answers) == 4 and answers[3].startswith("not an image")
        shown = browser.run("document.querySelector('tbody').innerText")
        assert f"{100 * expected['classes'][0]['probability']:.1f}" in shown and "Prediction set" in browser.run(
            "document.querySelector('.more').textContent"
        )
        assert browser.run("[...document.querySelectorAll('#results button')].map(b => b.checkVisibility())") == [
            True, True, True, False,
        ]  # fmt: skip
        browser.run("document.querySelector('#results button').click()")
        browser.run(SETTLED.replace("WORD", "'Explained'"))
        assert browser.run("document.querySelector('figure img').naturalWidth") == 320
        nodes = [node for node in browser("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
        named = [(n["role"]["value"], n["name"]["value"]) for n in nodes if n["role"]["value"] in ("button", "image")]
        assert all(name for _, name in named) and ("button", "Choose photographs") in named
        assert ("image", f"Saliency map of 0.jpg for {expected['classes'][0]['class']}") in named
        assert browser.run("document.documentElement.scrollWidth") == width
        assert browser.cut_off() == []
        texts = browser.contrasts()
        assert len(texts) > 15 and [text for text in texts if text["contrast"] < 4.5] == []
        assert [text for text in texts if text["size"] < 12] == []
        assert [line for line in browser.trouble if "422" not in line] == []
        picture = browser("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        assert base64.b64decode(picture).startswith(b"\x89PNG")
        assert server.stop()[0] == 0
