"""Fetching data sets: against a server on loopback, which has small files in place of the published ones."""

import contextlib
import dataclasses
import functools
import gzip
import hashlib
import http.server
import io
import pathlib
import tarfile
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from shared import shared

from sparknet_dsl.errors import DataError, UsageError
from sparknet_dsl.runtime.prepare import get as fetching
from sparknet_dsl.runtime.prepare.get import get
from sparknet_dsl.runtime.prepare.published import DATA_SETS, DataSet, File

CONTENT = {name: bytes([i]) * 300_000 for i, name in enumerate(["train.bin", "test.bin"])}


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, with ranges; `asked` has the path and the range of each request, `cut` how much it gives."""

    asked: ClassVar[list[tuple[str, str | None]]] = []
    cut: ClassVar[list[int]] = []

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        Server.asked.append((self.path, wanted))
        path = pathlib.Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if wanted and first >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        content = content[first:]
        self.wfile.write(content[: Server.cut.pop()] if Server.cut else content)


@pytest.fixture
def url(tmp_path: pathlib.Path) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in [*CONTENT.items(), ("../escape", b"x")]:
            info = tarfile.TarInfo(f"set/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    (folder / "set.tar.gz").write_bytes(archive.getvalue())
    (folder / "labels.gz").write_bytes(gzip.compress(b"labels" * 100_000, 0))
    Server.asked, Server.cut = [], []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    with contextlib.closing(server.socket):
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, url: str, tmp_path: pathlib.Path) -> DataSet:
    files = [
        File("set.tar.gz", md5(tmp_path / "served" / "set.tar.gz"), members=[f"set/{name}" for name in CONTENT]),
        File("labels.gz", md5(tmp_path / "served" / "labels.gz"), hashlib.md5(b"labels" * 100_000).hexdigest()),
    ]
    data = DataSet("small", "http://page", (url,), files, "cifar10")
    monkeypatch.setitem(DATA_SETS, "small", data)
    return data


def md5(path: pathlib.Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def check(folder: pathlib.Path) -> None:
    for name, content in CONTENT.items():
        assert (folder / "set" / name).read_bytes() == content
    assert sorted(path.name for path in folder.iterdir()) == ["labels.gz", "set", "set.tar.gz"]
    assert sorted(path.name for path in (folder / "set").iterdir()) == sorted(CONTENT)


def test_files_are_fetched_checked_and_unpacked_once(tmp_path: pathlib.Path) -> None:
    assert get("small", str(tmp_path / "into")) == f"cifar10:{tmp_path / 'into'}"
    check(tmp_path / "into")
    assert Server.asked == [("/set.tar.gz", None), ("/labels.gz", None)]
    get("small", str(tmp_path / "into"))
    assert len(Server.asked) == 2
    (tmp_path / "into" / "set.tar.gz").unlink()  # what was in it is enough
    get("small", str(tmp_path / "into"))
    assert len(Server.asked) == 2


def test_a_broken_download_goes_on(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Server.cut = [10**6, 300, 200]
    get("small", str(tmp_path / "into"))
    check(tmp_path / "into")
    assert Server.asked == [
        ("/set.tar.gz", None),
        ("/set.tar.gz", "bytes=200-"),
        ("/set.tar.gz", "bytes=500-"),
        ("/labels.gz", None),
    ]
    # Also in another call, and when nothing but the last step was missing.
    whole = (tmp_path / "into" / "labels.gz").read_bytes()
    for begun in (whole[:1000], whole):
        (tmp_path / "into" / "labels.gz").unlink()
        (tmp_path / "into" / "labels.gz.part").write_bytes(begun)
        get("small", str(tmp_path / "into"))
        check(tmp_path / "into")
        assert Server.asked[-1] == ("/labels.gz", f"bytes={len(begun)}-")


def test_what_was_begun_with_something_else_is_fetched_anew(tmp_path: pathlib.Path) -> None:
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "labels.gz.part").write_bytes(b"<html>")
    get("small", str(tmp_path / "into"))
    check(tmp_path / "into")


def test_another_mirror_helps(tmp_path: pathlib.Path, small: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    mirrors = (f"{small.mirrors[0]}/nothing", *small.mirrors)
    monkeypatch.setitem(DATA_SETS, "small", dataclasses.replace(small, mirrors=mirrors))
    get("small", str(tmp_path / "into"))
    check(tmp_path / "into")


def test_something_else_than_was_published_is_an_error(tmp_path: pathlib.Path) -> None:
    (tmp_path / "served" / "labels.gz").write_bytes(b"<html>please sign in</html>")
    with pytest.raises(DataError, match=r"labels\.gz gave something else than was published: its MD5 is \w+, expected"):
        get("small", str(tmp_path / "into"))
    assert sorted(path.name for path in (tmp_path / "into").iterdir()) == ["set.tar.gz"]
    (tmp_path / "into" / "labels.gz").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"labels\.gz is not the file that was published.*remove it"):
        get("small", str(tmp_path / "into"))


def test_without_a_network_it_says_what_to_put_where(
    tmp_path: pathlib.Path, small: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATA_SETS, "small", dataclasses.replace(small, mirrors=("http://127.0.0.1:9",)))
    with pytest.raises(DataError) as caught:
        get("small", str(tmp_path / "into"))
    message = str(caught.value)
    assert "Connection refused" in message and "http://page" in message and str(tmp_path / "into") in message
    assert all(f"{file.name}  MD5 {file.md5}" in message for file in small.files)
    for name in ("set.tar.gz", "labels.gz"):
        (tmp_path / "into" / name).write_bytes((tmp_path / "served" / name).read_bytes())
    get("small", str(tmp_path / "into"))
    check(tmp_path / "into")


def test_files_that_were_packed_again_or_unpacked_count(tmp_path: pathlib.Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    (into / "labels.gz").write_bytes(gzip.compress(b"labels" * 100_000, 9))
    get("small", str(into))
    (into / "labels.gz").unlink()
    (into / "labels").write_bytes(b"labels" * 100_000)
    get("small", str(into))
    assert [path for path, _ in Server.asked] == ["/set.tar.gz"]


def test_wrong_names(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UsageError, match=r"no data set `minst`.*mnist"):
        get("minst", str(tmp_path))
    with pytest.raises(UsageError, match="http"):
        get("small", str(tmp_path), "file:///etc")
    with pytest.raises(DataError, match=r"sign in at https://image-net\.org"):
        get("imagenet", str(tmp_path))


def test_mnist_has_the_published_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of the shared material have been packed again; what is in them is what was published."""

    def offline(*_: Any) -> None:
        raise AssertionError("all files are there")

    monkeypatch.setattr(fetching, "_fetch", offline)
    folder = shared("data/mnist")
    assert get("mnist", str(folder)) == f"mnist:{folder}"
