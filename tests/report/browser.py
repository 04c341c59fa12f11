"""A headless Chromium over its debugging pipe: real pages, without a browser driver to install."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Browser:
    """One Chromium process with one page; every event of the page is kept in ``events``."""

    def __init__(self, executable: str, *, profile: Path) -> None:
        """Start the process.

        Args:
            executable: Path of Chromium or Chrome.
            profile: Empty folder for its profile.
        """
        self.events: list[dict[str, Any]] = []
        self._answers: dict[int, dict[str, Any]] = {}
        self._count = 0
        self._buffer = b""
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to 4; the shell puts ours there.
        command = f'exec 3<&{to_browser} 4>&{from_browser}; exec "$0" "$@"'
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        flags += ["--hide-scrollbars", "--disable-background-networking", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", command, executable, *flags, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        target = self._send("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> Self:
        """The browser itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        os.close(self._write)
        os.close(self._read)
        self._process.kill()
        self._process.wait()

    def send(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Give the page one command of the DevTools protocol and return its result."""
        return self._send(method, params or {}, session=self._session)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; a promise is awaited."""
        result = self.send("Runtime.evaluate", {"expression": expression, "returnByValue": True, "awaitPromise": True})
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def view(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Set the size of the window, and whether the reader prefers dark pages; narrow windows are phones."""
        phone = width < 600
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.send("Emulation.setDeviceMetricsOverride", metrics)
        self.send("Emulation.setTouchEmulationEnabled", {"enabled": phone})
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self, url: str, *, until: str = "document.readyState === 'complete'") -> None:
        """Open a page and wait until an expression holds in it."""
        self.events.clear()
        self.send("Page.navigate", {"url": url})
        self.wait(until)

    def wait(self, expression: str, *, seconds: float = 60.0) -> None:
        """Wait until a JavaScript expression holds."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(f"Boolean(document.documentElement && ({expression}))"):
            assert time.monotonic() < deadline, f"{expression} does not hold after {seconds} s"
            time.sleep(0.05)

    def screenshot(self, path: Path) -> None:
        """Save the whole page, as long as it is, as PNG."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        image = self.send("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})["data"]
        path.write_bytes(base64.b64decode(image))

    def errors(self) -> list[str]:
        """What the page complained about: exceptions, console errors, refused content."""
        found = []
        for event in self.events:
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning"}:
                found.append(str(params["args"]))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
                found.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        return found

    def requests(self) -> list[str]:
        """Addresses that the page asked for, its own and data: left out."""
        urls = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in urls[1:] if not url.startswith("data:")]

    def _send(self, method: str, params: dict[str, Any], *, session: str = "") -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answer = self._receive(self._count)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self, number: int, *, seconds: float = 60.0) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while number not in self._answers:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self._read, 1 << 20) if ready else b""
            assert chunk, "Chromium gave no answer"
            *messages, self._buffer = (self._buffer + chunk).split(b"\0")
            for raw in messages:
                message = json.loads(raw)
                if "id" in message:
                    self._answers[message["id"]] = message
                else:
                    self.events.append(message)
        return self._answers.pop(number)


@contextmanager
def open_browser(executable: str, profile: Path) -> Iterator[Browser]:
    """A browser that ends with the block."""
    with Browser(executable, profile=profile) as browser:
        yield browser
