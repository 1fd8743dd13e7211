"""Small data sets of known content for the tests of sparknet-data, and what a source makes of them."""

import pathlib
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import source_files

from sparknet_dsl.caffe_ext.images import decode
from sparknet_dsl.runtime.data import open_source

ROWS = 7
LABELS = np.array([3, 0, 2, 2, 0, 11, 1])
# What a row is: an image of numbers, other numbers, or an image as bytes.
KINDS = ("color", "gray", "float", "vector", "jpg", "png")


def values(kind: str) -> npt.NDArray[Any]:
    """`ROWS` rows of a kind, all different."""
    random = np.random.default_rng(3)
    if kind in ("float", "vector"):
        shape = (ROWS, 6) if kind == "vector" else (ROWS, 3, 5, 4)
        return random.standard_normal(shape, np.float32) * random.integers(0, 2, shape, np.int8)  # with some zeros
    if kind in ("color", "gray"):
        return random.integers(0, 256, (ROWS, 3 if kind == "color" else 1, 5, 4), np.uint8)
    result = np.empty(ROWS, object)
    result[:] = [source_files.coded(image, f".{kind}") for image in source_files.noise(ROWS)]
    return result


def write(kind: str, folder: pathlib.Path) -> str:
    """Writes rows of a kind and LABELS, without the writers that are tested; gives the source's URI."""
    rows = values(kind)
    folder.mkdir(parents=True, exist_ok=True)
    if rows.dtype != object:
        with h5py.File(folder / "rows.h5", "w") as file:
            file["image"], file["label"] = rows, LABELS
        return f"hdf5:{folder / 'rows.h5'}"
    for row, content in enumerate(rows):
        (folder / f"{row}.{kind}").write_bytes(content)
    (folder / "list.txt").write_text("\n".join(f"{row}.{kind} {label}" for row, label in enumerate(LABELS)))
    return f"images:{folder / 'list.txt'}"


def read(text: str, *, gray: bool = False) -> tuple[list[Any], list[int]]:
    """A source's images, or other arrays, decoded where they are bytes, and labels."""
    rows = source_files.read(open_source(text, "TRAIN"))
    (array,) = (name for name in rows if name != "label")
    images = [decode(each, not gray) if isinstance(each, bytes) else np.asarray(each) for each in rows[array]]
    return images, [int(label) for label in rows["label"]]


def check(text: str, kind: str) -> None:
    """Fails unless the source has the rows of `kind`, in their order; arrays may have other axes."""
    images, labels = read(text, gray=kind == "gray")
    assert labels == LABELS.tolist()
    assert len(images) == ROWS
    for found, want in zip(images, values(kind), strict=True):
        want = decode(want) if isinstance(want, bytes) else want
        np.testing.assert_array_equal(found.ravel(), want.ravel())
        assert kind == "vector" or found.shape == want.shape
