"""Files here and in an object store: found, read by ranges, tried again, and no key in any message."""

import os
import pathlib
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from s3_server import KEY, SECRET, Server, s3_server

from sparknet_dsl.errors import DataError
from sparknet_dsl.runtime.data.places import BLOCK, check_keys, expand, find, open_place, shown

NAMES = ["a.tar", "b-00.tar", "b-01.tar", "deep/c.tar", "deep/d.txt", "_SUCCESS", ".hidden/e.tar"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with s3_server(monkeypatch) as server:
        yield server


@pytest.fixture(params=["path", "file", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> str:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    if request.param == "s3":
        server = request.getfixturevalue("server")
        for name in NAMES:
            server.put("bucket", [tmp_path / name], f"{name.rpartition('/')[0]}/".lstrip("/"))
        return "s3://bucket"
    return f"file://{tmp_path}" if request.param == "file" else str(tmp_path)


@pytest.mark.parametrize(
    ("place", "suffixes", "names"),
    [
        ("", [".tar"], ["a.tar", "b-00.tar", "b-01.tar", "deep/c.tar"]),
        ("/", [], ["a.tar", "b-00.tar", "b-01.tar", "deep/c.tar", "deep/d.txt"]),
        ("/a.tar", [".txt"], ["a.tar"]),
        ("/b-*.tar", [], ["b-00.tar", "b-01.tar"]),
        ("/b-{00..01}.tar", [], ["b-00.tar", "b-01.tar"]),
        ("/{a,b-01}.tar", [], ["a.tar", "b-01.tar"]),
        ("/*.tar", [], ["a.tar", "b-00.tar", "b-01.tar"]),
        ("/**/*.tar", [], [".hidden/e.tar", "a.tar", "b-00.tar", "b-01.tar", "deep/c.tar"]),
        ("/?.tar", [], ["a.tar"]),
        ("/[!a]*/c.t[a-b]r", [], ["deep/c.tar"]),
        ("/deep", [".tar", ".txt"], ["deep/c.tar", "deep/d.txt"]),
    ],
)
def test_files_are_found_and_sorted(root, place, suffixes, names):
    found = find(root + place, suffixes)
    assert [file.place for file in found] == [f"{root}/{name}" for name in names]
    assert [file.size for file in found] == [len(name) for name in names]
    with open_place(found[-1].place) as file:
        assert file.read() == names[-1].encode()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("/none", "/none does not exist"),
        ("/none*", "there is no file that matches"),
        ("/a-{0..3}.tar", "a-0.tar does not exist"),
    ],
)
def test_what_is_not_there(root, place, message):
    with pytest.raises(DataError, match=message):
        find(root + place)


def test_an_empty_folder_says_what_it_should_hold(root):
    with pytest.raises(DataError, match=r"no file ending in \.jpg or \.png in this folder"):
        find(root, [".jpg", ".png"])


def test_a_relative_path_is_made_absolute_for_the_workers(tmp_path, monkeypatch):
    (tmp_path / "x.bin").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert find("x.bin")[0].place == str(tmp_path / "x.bin")


def test_names_that_look_like_patterns(tmp_path):
    for name in ("a[1].bin", "a{1,2}.bin"):
        (tmp_path / name).write_bytes(b"x")
        assert find(str(tmp_path / name))[0].place == str(tmp_path / name)


def test_braces():
    assert list(expand("x-{8..11}.{tar,zip}"))[::3] == ["x-8.tar", "x-9.zip", "x-11.tar"]
    assert list(expand("{000..002}")) == ["000", "001", "002"]
    assert list(expand("plain")) == ["plain"]


def test_only_the_ranges_asked_for_are_read(server, tmp_path):
    content = np.random.default_rng(0).bytes(3 * BLOCK)
    (tmp_path / "large.bin").write_bytes(content)
    server.put("bucket", [tmp_path / "large.bin"])
    with open_place("s3://bucket/large.bin") as file:
        file.seek(2 * BLOCK + 5)
        assert file.read(10) == content[2 * BLOCK + 5 :][:10]
    assert server.ranges("bucket/large.bin") == [f"bytes={2 * BLOCK + 5}-{3 * BLOCK - 1}"]
    assert server.unsigned == 0


@pytest.mark.parametrize("how", ["503", "cut"])
def test_what_fails_is_tried_again(server, tmp_path, how):
    content = np.random.default_rng(0).bytes(100_000)
    (tmp_path / "x.bin").write_bytes(content)
    server.put("bucket", [tmp_path / "x.bin"])
    server.fail, server.how = 2, how
    with open_place("s3://bucket/x.bin") as file:
        assert file.read() == content
    assert len(server.ranges("bucket/x.bin")) >= 3


def test_no_access_says_where_credentials_come_from_and_never_shows_them(server, tmp_path):
    (tmp_path / "x.bin").write_bytes(b"x")
    server.put("bucket", [tmp_path / "x.bin"])
    server.fail, server.how = 99, "403"
    with pytest.raises(DataError, match=r"s3://bucket/x\.bin cannot be read: .*AWS_ACCESS_KEY_ID.*~/\.aws") as caught:
        open_place("s3://bucket/x.bin").read()
    assert SECRET not in str(caught.value) and KEY not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_store_out_of_reach_is_named(server, monkeypatch):
    from sparknet_dsl.runtime.data import places

    monkeypatch.setattr(places, "ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(DataError, match=r"is http://127\.0\.0\.1:1 up"):
        find("s3://bucket/x.bin")


@pytest.mark.parametrize(
    ("url", "harmless"),
    [
        (f"s3://{KEY}:{SECRET}@bucket/x", "s3://bucket/x"),
        (f"s3://{KEY}@bucket/x", "s3://bucket/x"),
        ("parquet:s3://k:s@b/x?columns=a", "parquet:s3://b/x?columns=a"),
    ],
)
def test_keys_in_a_url_are_refused_and_not_repeated(url, harmless):
    assert shown(url) == harmless
    with pytest.raises(DataError, match="AWS_ACCESS_KEY_ID") as caught:
        check_keys(url)
    assert SECRET not in str(caught.value) and KEY not in str(caught.value)


@pytest.mark.parametrize("url", ["hdfs://host:8020/user@x/a", "s3://bucket/mail@home", "/a:b@c", "s3://b/a:c@d"])
def test_an_at_sign_in_a_path_is_no_key(url):
    check_keys(url)


def test_other_filesystems_are_left_to_spark():
    with pytest.raises(DataError, match=r"read as a DataFrame, Trainer\.fit\(spark\.read"):
        find("wasb://container/x")


def test_without_pyarrow_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.fs", None)
    from sparknet_dsl.runtime.data import places

    places._s3.cache_clear()
    with pytest.raises(DataError, match=r"pip install 'sparknet-dsl\[data\]'"):
        find("s3://bucket/x")


def test_hdfs_without_its_library_says_what_it_takes():
    pytest.importorskip("pyarrow")
    if os.environ.get("HADOOP_HOME") or os.environ.get("ARROW_LIBHDFS_DIR"):
        pytest.skip("libhdfs may be here")
    with pytest.raises(DataError, match=r"libhdfs .*CLASSPATH.*Trainer\.fit"):
        find("hdfs://127.0.0.1:1/x")
