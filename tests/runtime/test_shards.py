"""Rows kept on disk: made once, made again when missing, safe when two make them at once."""

import subprocess
import sys

import numpy as np
import pytest

from sparknet_dsl.errors import DataError, OutputError
from sparknet_dsl.runtime.data import Column
from sparknet_dsl.runtime.shards import remove_shards, shard

COLUMNS = (Column("image", "uint8", (1, 2, 3)), Column("label", "int32", ()))


def rows(bad=None, count=25):
    images = np.arange(count * 6, dtype=np.int64).astype(np.uint8).reshape(count, 1, 2, 3)
    labels = np.arange(count, dtype=np.int32)
    for start in range(0, count, 10):
        yield {"image": images[start : start + 10], "label": labels[start : start + 10]}


def refuse(bad):
    raise AssertionError("the rows were read again")


def test_rows_are_kept_and_not_read_again(tmp_path):
    first = shard("run", "train-0", COLUMNS, rows, tmp_path)
    again = shard("run", "train-0", COLUMNS, refuse, tmp_path)
    for found in (first, again):
        assert found.rows == 25
        assert isinstance(found.columns["image"], np.memmap)
        np.testing.assert_array_equal(found.columns["image"], np.concatenate([c["image"] for c in rows()]))
        np.testing.assert_array_equal(found.columns["label"], np.arange(25))
        assert not found.columns["image"].flags.writeable


def test_a_missing_shard_is_made_again(tmp_path):
    shard("run", "train-0", COLUMNS, rows, tmp_path)
    remove_shards("run", tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert shard("run", "train-0", COLUMNS, rows, tmp_path).rows == 25


def test_a_shard_that_lost_a_file_is_made_again(tmp_path):
    shard("run", "train-0", COLUMNS, rows, tmp_path)
    (tmp_path / "sparknet-run" / "train-0" / "1.npy").unlink()
    assert list(shard("run", "train-0", COLUMNS, rows, tmp_path).columns["label"]) == list(range(25))


def test_a_shard_without_rows(tmp_path):
    found = shard("run", "test-3", COLUMNS, lambda bad: rows(bad, 0), tmp_path)
    assert found.rows == 0
    assert found.columns["image"].shape == (0, 1, 2, 3)


def test_encoded_rows_and_what_was_left_out_are_kept(tmp_path):
    images = [b"one", b"", b"three" * 1000]

    def some(bad):
        for image in images:
            values = np.empty(1, object)
            values[0] = image
            yield {"image": values, "label": np.zeros(1, np.uint8)}
            bad.add(f"after {len(image)}", "no image")

    columns = (Column("image", "encoded", (3, 0, 0)), Column("label", "uint8", ()))
    for rows in (some, refuse):
        found = shard("run", "train-0", columns, rows, tmp_path, "skip")
        assert [bytes(found.encoded["image"][row]) for row in range(found.rows)] == images
        assert len(found.encoded["image"]) == 3
        assert list(found.columns) == ["label"]
        assert (found.bad.count, found.bad.first[2]) == (3, ("after 5000", "no image"))
    with pytest.raises(DataError, match="after 3: no image; --bad-records skip"):
        shard("run", "train-1", columns, some, tmp_path)
    empty = shard("run", "train-2", columns, lambda bad: iter([]), tmp_path)
    assert (empty.rows, len(empty.encoded["image"])) == (0, 0)


def test_a_failure_leaves_nothing_behind(tmp_path):
    def broken(bad):
        yield from rows()
        raise DataError("the file ends here")

    with pytest.raises(DataError, match="ends here"):
        shard("run", "train-0", COLUMNS, broken, tmp_path)
    assert list((tmp_path / "sparknet-run").iterdir()) == []
    assert shard("run", "train-0", COLUMNS, rows, tmp_path).rows == 25


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        ({"image": np.zeros((2, 1, 2, 3), np.float32), "label": np.zeros(2, np.int32)}, "announced as uint8"),
        ({"image": np.zeros((2, 6), np.uint8), "label": np.zeros(2, np.int32)}, r"gave uint8 \(6,\)"),
        ({"image": np.zeros((2, 1, 2, 3), np.uint8), "label": np.zeros(3, np.int32)}, "different lengths"),
    ],
)
def test_rows_that_are_not_as_announced(tmp_path, chunk, message):
    with pytest.raises(DataError, match=message):
        shard("run", "train-0", COLUMNS, lambda bad: iter([chunk]), tmp_path)


def test_a_disk_that_cannot_be_written(tmp_path):
    (tmp_path / "sparknet-run").write_text("in the way")
    with pytest.raises(OutputError, match="cannot keep rows in"):
        shard("run", "train-0", COLUMNS, rows, tmp_path)


TWO = """
import pathlib, sys, time
import numpy as np
from sparknet_dsl.runtime.data import Column
from sparknet_dsl.runtime.shards import shard

folder, me, other = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def rows(bad):
    (folder / me).touch()
    while not (folder / other).exists():  # both have seen that there is no shard
        time.sleep(0.01)
    for start in range(0, 1000, 100):
        yield {"label": np.arange(start, start + 100, dtype=np.int32)}

print(shard("run", "train-0", [Column("label", "int32", ())], rows, folder / "local").columns["label"].sum())
"""


def test_two_processes_at_once(tmp_path):
    (tmp_path / "local").mkdir()
    both = [
        subprocess.Popen([sys.executable, "-P", "-c", TWO, tmp_path, *names], stdout=subprocess.PIPE, text=True)
        for names in (("a", "b"), ("b", "a"))
    ]
    assert [process.communicate(timeout=120)[0] for process in both] == ["499500\n"] * 2
    assert [entry.name for entry in (tmp_path / "local" / "sparknet-run").iterdir()] == ["train-0"]
