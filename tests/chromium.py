"""A headless Chromium for tests, spoken to by the DevTools protocol over two pipes: no port, no driver, no package.

`browser` in `conftest.py` is one, started once for all tests that look at pages.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE = 60.0
"""Seconds that an answer may take, on a machine that is busy with other tests."""


CONTRASTS = """
(() => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const over = (top, below) => top.slice(0, 3).map((c, i) => (top[3] ?? 1) * c + (1 - (top[3] ?? 1)) * below[i]);
  const luminance = color => color.map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = element => {
    if (!element) return [255, 255, 255];
    const own = parse(getComputedStyle(element).backgroundColor);
    return own[3] === 0 ? ground(element.parentElement) : over(own, ground(element.parentElement));
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility()) continue;
    const style = getComputedStyle(element), below = ground(element);
    const color = over(parse(element.closest('svg') ? style.fill : style.color), below);
    const [low, high] = [luminance(color), luminance(below)].sort((a, b) => a - b);
    found.push({text: text.slice(0, 30), contrast: (high + 0.05) / (low + 0.05), size: parseFloat(style.fontSize)});
  }
  return found;
})()
"""

CUT_OFF = """
[...document.querySelectorAll('body *')]
  .filter(e => e.checkVisibility() && !e.closest('.scroll > *, pre > *, .skip, .unseen'))
  .filter(e => { const box = e.getBoundingClientRect(); return box.right > innerWidth + 1 || box.left < -1; })
  .map(e => e.outerHTML.slice(0, 120))
"""


def find_chromium() -> str | None:
    """Return the program, or None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Chromium:
    """A browser with one page.

    Attributes:
        trouble: what went wrong in the page or would have left it since `open`: messages of the console, errors,
            violations of its policy, and requests for anything but the page itself, what is written in it and, if it
            comes from a server, what comes from there.

    Args:
        program: to run.
        profile: an empty folder.
    """

    def __init__(self, program: str, profile: Path) -> None:
        reads, commands = os.pipe()
        answers, writes = os.pipe()

        def connect() -> None:  # the program reads commands from 3 and writes answers to 4
            first, second = os.dup(reads), os.dup(writes)
            os.dup2(first, 3)
            os.dup2(second, 4)

        self._program = subprocess.Popen(
            [program, *SWITCHES, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=connect,
            close_fds=False,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(reads)
        os.close(writes)
        self._commands, self._answers = commands, answers
        self._unread, self._number, self._events = b"", 0, list[dict[str, Any]]()
        self._session: str | None = None
        self._own: tuple[str, ...] = ("data:",)
        self.trouble: list[str] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give a command and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])
            self._event(answer)

    def open(self, page: Path | str, width: int = 1280, theme: str = "light", media: str = "") -> None:
        """Show a page.

        Args:
            page: its file or its address.
            width: of the window, in CSS pixels; below 700 it is that of a phone.
            theme: "light" or "dark".
            media: "print", or nothing for the screen.
        """
        phone = width < 700
        scale = 2 if phone else 1
        self("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=scale, mobile=phone)
        self("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": theme}])
        self._events, self.trouble = [], []
        url = page if isinstance(page, str) else page.absolute().as_uri()
        self._own = ("data:", url, f"blob:{url}") if isinstance(page, str) else ("data:",)
        self("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._event(self._read())

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page; what a policy forbids the page is not forbidden to this."""
        result = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        for kind in ("keyDown", "keyUp"):
            self(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode={"Tab": 9, "Enter": 13}[key],
            )

    def contrasts(self) -> list[dict[str, Any]]:
        """Return contrast to the background and size in pixels of all visible text."""
        return list(self.run(CONTRASTS))

    def cut_off(self) -> list[str]:
        """Return the elements that overflow the window outside scrolling areas."""
        return list(self.run(CUT_OFF))

    def screenshot(self) -> bytes:
        """Return what is in the window as PNG."""
        return base64.b64decode(self("Page.captureScreenshot", format="png")["data"])

    def pdf(self) -> bytes:
        """Return the page as it would be printed."""
        return base64.b64decode(self("Page.printToPDF")["data"])

    def close(self) -> None:
        """End the program and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._program.pid, signal.SIGKILL)
        self._program.wait()
        os.close(self._commands)
        os.close(self._answers)

    def _read(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, until - time.monotonic()))
            part = os.read(self._answers, 1 << 20) if ready else b""
            assert part, "the browser has ended" if ready else f"the browser gave no answer in {PATIENCE:.0f} s"
            self._unread += part
        message, self._unread = self._unread.split(b"\0", 1)
        return dict(json.loads(message))

    def _event(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        about = event.get("params", {})
        if event["method"] == "Log.entryAdded":
            self.trouble.append(about["entry"]["text"])
        elif event["method"] == "Runtime.consoleAPICalled":
            self.trouble.append(f"console.{about['type']}")
        elif event["method"] == "Runtime.exceptionThrown":
            self.trouble.append(about["exceptionDetails"]["text"])
        elif event["method"] == "Network.requestWillBeSent":
            url = about["request"]["url"]
            if not url.startswith(self._own) and about.get("type") != "Document":
                self.trouble.append(f"request: {url}")
