"""Snapshots on a Hadoop filesystem, of which the local disk is one."""

import json
import pathlib
import shutil
from collections.abc import Iterator

import pytest

from sparknet_dsl.errors import DataError, OutputError
from sparknet_dsl.runtime.remote import RemoteFolder
from sparknet_dsl.runtime.spark import Cluster


@pytest.fixture
def there(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "there" / "deep"


@pytest.fixture
def folder(spark: Cluster, there: pathlib.Path) -> Iterator[RemoteFolder]:
    with RemoteFolder(spark.context, there.as_uri() + "/") as folder:
        assert list(there.iterdir()) == []
        yield folder


def write(folder: pathlib.Path, round: int) -> list[pathlib.Path]:
    weights = folder / f"small_iter_{round}.caffemodel"
    about = folder / f"small_iter_{round}.json"
    weights.write_bytes(bytes([round]) * 1000)
    about.write_text(json.dumps({"files": {weights.name: ""}}))
    return [weights, about]


def test_there_and_back(folder: RemoteFolder, there: pathlib.Path) -> None:
    files = write(folder.local, 1)
    urls = folder.put(files)
    assert [url.rpartition("/")[2] for url in urls] == [file.name for file in files]
    folder.put(write(folder.local, 2))
    folder.put(write(folder.local, 1))  # again
    assert {path.name for path in there.iterdir() if not path.name.startswith(".")} == {
        "small_iter_1.caffemodel",
        "small_iter_1.json",
        "small_iter_2.caffemodel",
        "small_iter_2.json",
    }
    assert not list(there.glob(".*.tmp")) and not list(folder.local.iterdir())
    want = {file.name: file.read_bytes() for file in there.glob("small*")}
    (there / "other_iter_1.json").write_text("{}")
    (there / "small_iter_3.json").write_text("damaged")
    assert folder.get("small") == ()
    assert {file.name for file in folder.local.iterdir()} == {f"small_iter_{n}.json" for n in (1, 2, 3)}
    for round in (1, 2):
        folder.fetch(folder.local / f"small_iter_{round}.caffemodel")
    got = {file.name: file.read_bytes() for file in folder.local.iterdir()}
    assert got == {**want, "small_iter_3.json": b"damaged"}


def test_nothing_there_is_no_error(folder: RemoteFolder) -> None:
    assert folder.get("small") == ()
    assert list(folder.local.iterdir()) == []


def test_what_cannot_be_written_says_so_and_where_the_files_are(
    there: pathlib.Path, tmp_path: pathlib.Path, spark: Cluster
) -> None:
    with RemoteFolder(spark.context, there.as_uri()) as folder:
        there.rmdir()
        there.write_text("a file in the way")
        files = write(folder.local, 1)
        with pytest.raises(OutputError, match=rf"the snapshot is kept in {folder.local}"):
            folder.put(files)
    assert all(file.is_file() for file in files)
    shutil.rmtree(folder.local)
    with pytest.raises(OutputError, match=r"cannot write snapshots to file:.*/there/deep"):
        RemoteFolder(spark.context, there.as_uri()).__enter__()
    with pytest.raises(OutputError, match=r"nosuch://host/x: .*nosuch.*spark.jars.packages"):
        RemoteFolder(spark.context, "nosuch://user:secret@host/x")


def test_what_cannot_be_read_says_so(folder: RemoteFolder, there: pathlib.Path) -> None:
    for round in (1, 2):
        folder.put(write(folder.local, round))
    for end in ("caffemodel", "json"):
        (there / f"small_iter_2.{end}").unlink()
        (there / f"small_iter_2.{end}").symlink_to("/proc/self/mem")  # which nobody can read from its beginning
    (lost,) = folder.get("small")
    assert "cannot read file:" in lost and "small_iter_2.json" in lost and "Input/output error" in lost
    assert (folder.local / "small_iter_1.json").is_file()
    with pytest.raises(DataError, match=r"cannot read file:.*small_iter_2\.caffemodel: .*Input/output error"):
        folder.fetch(folder.local / "small_iter_2.caffemodel")
