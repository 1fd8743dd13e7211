"""An S3-compatible server on loopback (moto) that can fail as real ones do, and tells what it was asked."""

import contextlib
import pathlib
import threading
import urllib.request
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

KEY, SECRET = "AKIATESTTESTTESTTEST", "a/secret+that/must+never/show"
Ask = tuple[str, str, str | None]


class Server:
    """`asked` holds method, path and range of every request; of GETs of objects `fail` many fail as `how` says."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *_: Any) -> None:
                pass

        self.asked: list[Ask] = []
        self.unsigned = 0
        self.fail = 0
        self.how = "503"
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # Moto's buckets are the process's, not the server's.
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")).close()
        self.asked.clear()
        self.unsigned = 0

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def ranges(self, name: str) -> list[str | None]:
        """The ranges that were read of the object `name`."""
        return [part for method, path, part in self.asked if method == "GET" and path == f"/{name}"]

    def put(self, bucket: str, files: Iterable[pathlib.Path], folder: str = "") -> None:
        """Puts files into a bucket, which is made, under their names below `folder`."""
        from pyarrow.fs import S3FileSystem

        system = S3FileSystem(
            access_key=KEY,
            secret_key=SECRET,
            endpoint_override=self.url,
            region="us-east-1",
            allow_bucket_creation=True,
        )
        system.create_dir(bucket)
        for file in files:
            with system.open_output_stream(f"{bucket}/{folder}{file.name}") as stream:
                stream.write(file.read_bytes())
        self.asked.clear()

    def _answer(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        method, path, part = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("HTTP_RANGE")
        self.asked.append((method, path, part))
        self.unsigned += KEY not in environ.get("HTTP_AUTHORIZATION", "")
        if self.fail and method == "GET" and path.count("/") > 1:
            self.fail -= 1
            if self.how == "cut":
                return self._cut(b"".join(self._moto(environ, start)))
            start({"403": "403 Forbidden", "503": "503 Slow Down"}[self.how], [("Content-Length", "0")])
            return [b""]
        return list(self._moto(environ, start))

    @staticmethod
    def _cut(body: bytes) -> Iterator[bytes]:
        yield body[: len(body) // 2]
        raise ConnectionAbortedError


@contextlib.contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server, and the environment by which clients find it; skips the test without moto and pyarrow."""
    pytest.importorskip("moto.server")
    pytest.importorskip("pyarrow")
    from sparknet_dsl.runtime.data import places

    server = Server()
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    places._s3.cache_clear()
    try:
        yield server
    finally:
        places._s3.cache_clear()
        server.close()
