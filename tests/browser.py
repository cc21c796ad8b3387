"""Headless Chromium through a pipe: pages from disk, the network refused, everything it says kept."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-extensions", "--disable-dev-shm-usage", "--remote-debugging-pipe"),
    # No name resolves and the proxy refuses: whatever a page asks for fails.
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9"),
)


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class BrowserError(RuntimeError):
    """The browser's refusal of one command."""


class Browser:
    """One browser with one tab, spoken to in the DevTools protocol over a pair of pipes."""

    def __init__(self, program: str) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="clipad-browser-")
        to_browser, self.to_browser = os.pipe()
        self.from_browser, from_browser = os.pipe()

        def wire() -> None:  # the browser reads its file 3 and writes its file 4
            os.dup2(to_browser, 100)
            os.dup2(from_browser, 101)
            os.dup2(100, 3)
            os.dup2(101, 4)

        self.process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self.folder.name}", "about:blank"],
            preexec_fn=wire,  # noqa: PLW1509
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.number, self.session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def _read(self, timeout: float) -> dict[str, Any] | None:
        """The next message, or None when none comes in time."""
        end = time.monotonic() + timeout
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.from_browser], [], [], max(0, end - time.monotonic()))
            if not ready:
                return None
            piece = os.read(self.from_browser, 1 << 20)
            if not piece:
                raise ConnectionError("the browser ended")
            self.buffer += piece
        text, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(text)

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send one command and return its result; events that come meanwhile are kept."""
        self.number += 1
        message: dict[str, object] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        while (answer := self._read(60)) is not None:
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)
        raise TimeoutError(method)

    def open(self, page: Path, *, width: int = 1280, height: int = 900, anchor: str = "") -> None:
        """Open a page from disk as a fresh visit and wait until it has settled."""
        self.call("Page.navigate", url="about:blank")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri() + anchor)
        self.wait(lambda: self.run("document.readyState") == "complete")
        self.run("new Promise((done) => setTimeout(done, 50))")

    def wait(self, ready: Callable[[], object], seconds: float = 20) -> None:
        """Until it is so; a question to a page that is just being left has no answer yet."""
        end = time.monotonic() + seconds
        while True:
            refusal = None
            try:
                if ready():
                    return
            except BrowserError as error:
                refusal = error
            if time.monotonic() > end:
                raise TimeoutError("the page has not become ready") from refusal
            time.sleep(0.02)

    def run(self, script: str) -> Any:
        """The value of an expression on the page; a promise is waited for."""
        response = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in response:
            raise RuntimeError(str(response["exceptionDetails"]))
        return response["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """One key, as a keyboard sends it."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key,
                windowsVirtualKeyCode=code, nativeVirtualKeyCode=code,
            )  # fmt: skip

    def complaints(self) -> list[str]:
        """Everything that the console shows as an error or a warning."""
        messages = []
        for event in self.events:
            about = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                messages.append(str(about["exceptionDetails"].get("exception", about)))
            elif event.get("method") == "Runtime.consoleAPICalled" and about["type"] != "log":
                messages.append(str(about["args"]))
            elif event.get("method") == "Log.entryAdded":
                entry = about["entry"]
                if entry["level"] in ("error", "warning"):
                    messages.append(f"{entry['text']} {entry.get('url', '')}")
        return messages

    def requests(self) -> list[str]:
        """Addresses that the page asked for, the embedded ones left out."""
        sent = [e["params"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        urls = [about["request"]["url"] for about in sent]
        return [url for url in urls if not url.startswith(("data:", "about:"))]

    def screenshot(self, path: Path, *, whole: bool = False) -> Path:
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)
        os.close(self.to_browser)
        os.close(self.from_browser)
        self.folder.cleanup()
