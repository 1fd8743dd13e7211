"""The page of a run while it goes on, over HTTP: `--ui PORT`.

`/` is the page; `/data?have=N` waits until there is something newer than version N, and gives it as JSON. Requests are
answered in threads of their own, which only read; whatever goes wrong in them, training does not hear of it.
"""

import http.server
import json
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

from ...errors import UsageError
from ..events import finite
from .page import page_data, render
from .record import Run

LOOPBACK = "127.0.0.1"
# Seconds that a request waits for news; and that the end of a run waits for pages to hear of it.
PATIENCE, FAREWELL = 20.0, 3.0
# Of the time at most this share goes to pages: the loop wants the interpreter, too.
SHARE = 0.05
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self'"


def address(text: str) -> tuple[str, int]:
    """PORT or HOST:PORT; without a host only this machine is answered. Raises UsageError."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--ui {text}: a port is wanted, or HOST:PORT, such as 8080 or 0.0.0.0:8080")
    return host.strip("[]") or LOOPBACK, int(port)


class LivePage:
    """Serves what `run` gives, from construction to `close`; raises UsageError where it cannot listen."""

    def __init__(self, where: str, run: Callable[[], Run]) -> None:
        self._run = run
        self._news = threading.Condition()
        self._version = 0
        self._ended = False
        self._ready = 0.0  # when the data may be made anew
        self._seen = -1.0  # when a page last asked
        self._told = False  # whether one has heard of the end
        host, port = address(where)
        page = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                page._answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing: the terminal is the run's."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A page that went away is no concern of the run's."""

        try:
            self._server = Server((host, port), Handler)
        except OSError as error:
            raise UsageError(f"--ui {where}: cannot listen there: {error.strerror or error}") from error
        shown = "localhost" if host == LOOPBACK else host
        self.url = f"http://{shown}:{self._server.server_address[1]}/"
        self._local = host in (LOOPBACK, "localhost", "::1")
        threading.Thread(target=self._server.serve_forever, name="live-page", daemon=True).start()

    def changed(self) -> None:
        """There is something new."""
        with self._news:
            self._version += 1
            self._news.notify_all()

    def close(self) -> None:
        """Ends, after the pages that are open have heard of the last news."""
        with self._news:
            self._ended = True
            self._version += 1
            self._news.notify_all()
            if self._seen > time.monotonic() - 2 * PATIENCE:
                self._news.wait_for(lambda: self._told, FAREWELL)
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        host = urllib.parse.urlsplit(f"//{request.headers.get('Host', '')}").hostname
        # A name that some web site has pointed at this machine is not one that its user typed.
        if self._local and host not in ("localhost", LOOPBACK, "::1"):
            request.send_error(403)
            return
        asked = urllib.parse.urlsplit(request.path)
        if asked.path == "/":
            self._send(request, "text/html; charset=utf-8", render([self._run()], live=True))
        elif asked.path == "/data":
            have = urllib.parse.parse_qs(asked.query).get("have", ["-1"])[0]
            self._data(request, int(have) if have.isdecimal() else -1)
        else:
            request.send_error(404)

    def _data(self, request: http.server.BaseHTTPRequestHandler, have: int) -> None:
        with self._news:
            self._seen = time.monotonic()
            self._news.wait_for(lambda: self._version > have or self._ended, PATIENCE)
            rest = self._ready - time.monotonic()
            self._news.wait_for(lambda: self._ended, max(0.0, min(rest, PATIENCE)))
            version, ended = self._version, self._ended
        began = time.monotonic()
        content = {"version": version, "ended": ended, "data": finite(page_data([self._run()]))}
        self._send(request, "application/json", json.dumps(content))
        took = time.monotonic() - began
        self._ready = began + took / SHARE
        if ended:
            with self._news:
                self._told = True
                self._news.notify_all()

    def _send(self, request: http.server.BaseHTTPRequestHandler, kind: str, text: str) -> None:
        content = text.encode()
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(content)))
        request.send_header("Cache-Control", "no-store")
        request.send_header("Content-Security-Policy", POLICY)
        request.send_header("X-Content-Type-Options", "nosniff")
        request.end_headers()
        request.wfile.write(content)
