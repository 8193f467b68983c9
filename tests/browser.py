"""Pages as a browser draws them, wherever a headless Chromium is on the path."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def screenshot(page: Path, width: int, height: int) -> list[PIL.Image.Image]:
    """The page as the first browser found draws it; nothing where there is none: parsers check the page there too.

    Raises: CalledProcessError, TimeoutExpired or FileNotFoundError if a browser is there and draws nothing.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return []
    with tempfile.TemporaryDirectory() as profile:
        shot = Path(profile) / "shot.png"
        options = (f"--user-data-dir={profile}", f"--window-size={width},{height}", f"--screenshot={shot}")
        subprocess.run([browser, *FLAGS, *options, page.as_uri()], check=True, capture_output=True, timeout=240)
        with PIL.Image.open(shot) as image:
            return [image.copy()]


class Browser:
    """A page of a headless Chromium, driven by the DevTools protocol over two pipes."""

    def __init__(self, process: subprocess.Popen, write: int, read: int) -> None:
        self._process, self._write, self._read, self._rest, self._calls = process, write, read, b"", 0
        self.errors: list[str] = []
        """Exceptions, and what the page wrote to its console as an error."""
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Accessibility"):
            self.send(f"{domain}.enable")

    def _send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._next()
            if reply.get("id") == self._calls:
                assert "error" not in reply, (method, reply)
                return reply["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._read, 2**20)
            assert part, "the browser has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        found = json.loads(message)
        params = found.get("params", {})
        if found.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        if found.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        return found

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol for the page."""
        return self._send(method, self._session, **params)

    def run(self, script: str) -> Any:
        """The value of an expression in the page, awaited if it is a promise."""
        found = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 60) -> Any:
        """The value of an expression once it is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)
        return value

    def open(self, address: str, width: int = 1000, height: int = 800, dark: bool = False) -> None:
        """Go to a page."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def shot(self) -> PIL.Image.Image:
        """The page as it is drawn."""
        content = base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])
        return PIL.Image.open(io.BytesIO(content)).convert("RGB")


@contextlib.contextmanager
def browsing() -> Iterator[Browser | None]:
    """A browser until the end of the block; None where there is none: parsers check the page there too."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        yield None
        return
    to_browser, write = os.pipe()
    read, from_browser = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # the protocol is spoken over descriptors 3 and 4
        spoken = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        options = (f"--user-data-dir={profile}", "--remote-debugging-pipe")
        process = subprocess.Popen(
            ["bash", "-c", spoken, "bash", browser, *FLAGS, *options],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        try:
            yield Browser(process, write, read)
        finally:
            os.close(write)
            os.close(read)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
