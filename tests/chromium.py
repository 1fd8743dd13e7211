"""A headless Chromium that shows a page and tells what went wrong there and what it asked a network for.

It is spoken to by the DevTools protocol, JSON ended by a zero byte, through a pair of pipes: no port, no driver.
"""

import base64
import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 60.0  # seconds until an answer is there


class Page:
    """One page. `errors` are messages of its console and exceptions, `fetched` the addresses that it asked for."""

    def __init__(self, reads: int, writes: int) -> None:
        self.errors: list[str] = []
        self.fetched: list[str] = []
        self._reads, self._writes = reads, writes
        self._kept = b""
        self._number = 0
        self._session: str | None = None
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._ask(f"{domain}.enable")

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """How large the window is, and whether its user likes it dark."""
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, path: pathlib.Path) -> None:
        """Shows a file, and waits until it is there."""
        self._ask("Page.navigate", url=path.resolve().as_uri())
        until = time.monotonic() + PATIENCE
        while self.run("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < until, f"{path} does not load"
            time.sleep(0.02)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; what it throws is an AssertionError."""
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """A key goes down and up: a character, or a name such as Enter, ArrowDown."""
        codes = {"Enter": 13, "Escape": 27, "ArrowUp": 38, "ArrowDown": 40, "ArrowLeft": 37, "ArrowRight": 39}
        text = {"text": key} if len(key) == 1 else {}
        code = {"windowsVirtualKeyCode": codes[key]} if key in codes else {}
        self._ask("Input.dispatchKeyEvent", type="keyDown", key=key, **text, **code)
        self._ask("Input.dispatchKeyEvent", type="keyUp", key=key, **code)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """A mouse event: mousePressed, mouseMoved, mouseReleased, mouseWheel."""
        self._ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def picture(self, path: pathlib.Path) -> None:
        """Takes a screenshot, a PNG."""
        time.sleep(0.3)  # what moves smoothly has arrived
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"]))

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._writes, json.dumps(message).encode() + b"\0")
        while True:
            got = self._next()
            if got.get("id") == self._number:
                assert "error" not in got, f"{method}: {got['error']}"
                result: dict[str, Any] = got["result"]
                return result
            self._note(got)

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._kept:
            ready, _, _ = select.select([self._reads], [], [], max(0.0, until - time.monotonic()))
            assert ready, "Chromium does not answer"
            read = os.read(self._reads, 1 << 16)
            assert read, "Chromium has ended"
            self._kept += read
        message, _, self._kept = self._kept.partition(b"\0")
        decoded: dict[str, Any] = json.loads(message)
        return decoded

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(str(params["exceptionDetails"].get("exception", params)))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.errors.append(str(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(params["entry"]["text"])
            case "Network.requestWillBeSent":
                self.fetched.append(params["request"]["url"])


@contextlib.contextmanager
def page(folder: pathlib.Path) -> Iterator[Page]:
    """A page of a Chromium of its own, whose profile is in `folder`."""
    assert CHROMIUM is not None
    (its_reads, writes), (reads, its_writes) = os.pipe(), os.pipe()
    # It reads from descriptor 3 and writes to 4.
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
    command += [f"--user-data-dir={folder}", "--no-first-run", "--disable-background-networking", "about:blank"]
    arranged = ["bash", "-c", f'exec "$@" 3<&{its_reads} 4>&{its_writes}', "chromium", *command]
    process = subprocess.Popen(
        arranged, pass_fds=(its_reads, its_writes), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(its_reads)
    os.close(its_writes)
    try:
        yield Page(reads, writes)
    finally:
        os.close(writes)
        os.close(reads)
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
