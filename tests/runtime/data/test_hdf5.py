"""HDF5 files as a source: data sets as columns, slices, lists, and what does not fit together."""

import pathlib
import pickle

import h5py
import numpy as np
import pytest
from source_files import parts_of, read

from sparknet_dsl.errors import DataError
from sparknet_dsl.runtime.data import open_source

ARRAYS = {
    "data": np.random.default_rng(0).random((50, 2, 3), np.float32),
    "label": np.arange(50, dtype=">i4"),
    "weight": np.linspace(0, 1, 50),
}


def write(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> pathlib.Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
        file["note"] = "no column"
    return path


def test_data_sets_are_columns(tmp_path):
    source = pickle.loads(pickle.dumps(open_source(f"hdf5:{write(tmp_path / 'a.h5', ARRAYS)}", "TRAIN")))
    assert [column[:3] for column in source.columns] == [
        ("data", "float32", (2, 3)),
        ("label", "int32", ()),
        ("weight", "float64", ()),
    ]
    rows = read(source)
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(rows[name], values)


@pytest.mark.parametrize("partitions", [2, 3, 7])
def test_every_row_is_in_one_part(tmp_path, partitions):
    write(tmp_path / "a.h5", {name: values[:31] for name, values in ARRAYS.items()})
    write(tmp_path / "b.h5", {name: values[31:] for name, values in ARRAYS.items()})
    (tmp_path / "list.txt").write_text("a.h5\nb.h5\n")
    parts = parts_of(open_source(f"hdf5:{tmp_path}/list.txt", "TRAIN"), partitions)
    assert sorted(label for rows in parts for label in rows["label"]) == list(range(50))
    assert max(len(rows["label"]) for rows in parts) - min(len(rows["label"]) for rows in parts) <= 2
    for rows in parts:
        np.testing.assert_array_equal(rows["data"], ARRAYS["data"][rows["label"]])


def test_large_files_are_read_by_slices(tmp_path):
    write(tmp_path / "a.h5", {"data": np.zeros((3000, 2048))})
    source = open_source(f"hdf5:{tmp_path}/a.h5", "TRAIN")
    from sparknet_dsl.runtime.data import BadRecords

    sizes = [chunk["data"].nbytes for chunk in source.read(0, 1, BadRecords())]
    assert sum(sizes) == 3000 * 2048 * 8
    assert max(sizes) <= 8 << 20


@pytest.mark.parametrize(
    ("arrays", "list_", "message"),
    [
        ({}, None, "has no data sets of numbers with rows; it has note"),
        ({"a": np.zeros(3), "b": np.zeros(4)}, None, "need equally many rows; there are `a` 3, `b` 4"),
        ({"a": np.zeros(3)}, "none.h5", "there is no such file"),
        ({"a": np.zeros(3)}, "", "is empty"),
        ({"a": np.zeros(3)}, "list.txt", "is no HDF5 file that can be read"),
    ],
)
def test_wrong_files(tmp_path, arrays, list_, message):
    place = write(tmp_path / "a.h5", arrays)
    if list_ is not None:
        place = tmp_path / "list.txt"
        place.write_text(list_)
    with pytest.raises(DataError, match=message) as caught:
        open_source(f"hdf5:{place}", "TRAIN")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_remote():
    with pytest.raises(DataError, match=r"cannot read /none\.h5: No such file"):
        open_source("hdf5:/none.h5", "TRAIN")
    with pytest.raises(DataError, match="local paths only: copy them to every worker"):
        open_source("hdf5:s3://bucket/a.h5", "TRAIN")
    with pytest.raises(DataError, match="wants a file, or a text file that lists files"):
        open_source("hdf5:", "TRAIN")


def test_files_of_different_rows(tmp_path):
    write(tmp_path / "a.h5", {"a": np.zeros((3, 2))})
    write(tmp_path / "b.h5", {"a": np.zeros((3, 5))})
    (tmp_path / "list.txt").write_text("a.h5 b.h5")
    source = open_source(f"hdf5:{tmp_path}/list.txt", "TRAIN")
    with pytest.raises(DataError, match=r"b.h5 has `a` float64 5, and .*a.h5 `a` float64 2"):
        read(source)


def test_a_file_that_is_cut_short(tmp_path):
    place = write(tmp_path / "a.h5", {"data": np.zeros((1000, 50))})
    source = open_source(f"hdf5:{place}", "TRAIN")
    place.write_bytes(place.read_bytes()[:100_000])
    with pytest.raises(DataError, match=r"a.h5 is no HDF5 file that can be read, or is damaged"):
        read(source)
