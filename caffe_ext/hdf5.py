"""HDF5 files: opened with clear errors, arrays out of them and into them."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import SparkNetError

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

SIGNATURE = b"\x89HDF\r\n\x1a\n"

# What h5py raises for files that are damaged, cut short or none.
_DAMAGE = (OSError, RuntimeError, ValueError, TypeError, KeyError, MemoryError)


def is_hdf5(path: str | os.PathLike[str]) -> bool:
    """Whether the file begins as HDF5 files do; False where it cannot be read."""
    try:
        with pathlib.Path(path).open("rb") as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return False


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], error: type[SparkNetError]) -> Iterator[Any]:
    """Opens an HDF5 file (an h5py.File) for the block; `error`, naming the file, for whatever HDF5 fails at there."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError as failure:
        raise error(f"cannot read {path}: there is no such file") from failure
    except _DAMAGE as failure:
        raise error(f"{path} is no HDF5 file that can be read, or is damaged: {failure}") from failure


def floats(dataset: Any, where: str, error: type[SparkNetError]) -> Array:
    """The values of an h5py.Dataset of numbers as float32.

    Raises `error`, beginning with `where`, for other things, and for more values than the machine has memory for.
    """
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise error(f"{where} is no dataset of numbers")
    # Linux grants more memory than there is, and kills the process when it is used.
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if dataset.size * max(dataset.dtype.itemsize, 4) > physical:
        raise error(f"{where} has {dataset.size:,} values, more than fit into this machine's memory")
    return np.asarray(dataset[()], np.float32)


def write_floats(group: Any, name: str, values: Array) -> None:
    """Writes `values` as the dataset `name` of the h5py.Group `group`, in the type that Caffe gives it."""
    group.create_dataset(name, data=np.ascontiguousarray(values, np.float32))
