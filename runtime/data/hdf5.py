"""`hdf5:FILE` or `hdf5:LIST`: data sets of HDF5 files, the rows of Caffe's HDF5Data; a list names a file a line.

Data sets are read by slices, of which each worker has every so many-th, so a file may be larger than memory.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from ...caffe_ext.hdf5 import is_hdf5, reading
from ...caffe_ext.sources import lines_of
from ...errors import DataError
from .base import CHUNK, CHUNK_BYTES, BadRecords, Column, Columns, Phase, SourceURI
from .places import is_url

# Slices of a file for each worker, where it has the rows for them: their last one is what parts differ by.
SLICES = 16


class Hdf5:
    """A column for each data set of the first file; the others have the same ones, with rows of the same shapes."""

    OPTIONS: ClassVar[Mapping[str, str]] = {}

    def __init__(self, uri: SourceURI, phase: Phase) -> None:
        del phase
        if not uri.path:
            raise DataError(f"`{uri}` wants a file, or a text file that lists files")
        if is_url(uri.path):
            raise DataError(f"{uri}: HDF5 files are read from local paths only: copy them to every worker")
        self.uri = uri
        path = uri.located(uri.path)
        self.files = [path]
        if not is_hdf5(path):
            names = [name for line in lines_of(path) for name in line.split()]
            self.files = [uri.located(name, path) for name in names]
        with reading(self.files[0], DataError) as file:
            self.columns: tuple[Column, ...] = _columns(file, self.files[0])

    def read(self, partition: int, partitions: int, bad: BadRecords) -> Iterator[Columns]:
        """Reads as `base.Source` says."""
        del bad
        size = sum(np.dtype(column.dtype).itemsize * int(np.prod(column.shape)) for column in self.columns)
        for number, path in enumerate(self.files):
            with reading(path, DataError) as file:
                self._check(file, path)
                rows = len(file[self.columns[0].name])
                step = max(1, min(CHUNK, CHUNK_BYTES // max(1, size), rows // (SLICES * partitions)))
                # Each file begins with another worker's slice.
                first = (partition - number) % partitions
                for start in range(first * step, rows, partitions * step):
                    yield {
                        column.name: np.asarray(file[column.name][start : start + step], column.dtype)
                        for column in self.columns
                    }

    def _check(self, file: Any, path: str) -> None:
        found = _columns(file, path)
        if found != self.columns:
            raise DataError(f"{path} has {_shown(found)}, and {self.files[0]} {_shown(self.columns)}")


def _columns(file: Any, path: str) -> tuple[Column, ...]:
    """The data sets of numbers in an open file, which have equally many rows."""
    import h5py

    found = {
        name: data
        for name, data in file.items()
        if isinstance(data, h5py.Dataset) and data.dtype.kind in "fiu" and data.shape
    }
    if not found:
        raise DataError(f"{path} has no data sets of numbers with rows; it has {', '.join(file) or 'nothing'}")
    if len({len(data) for data in found.values()}) > 1:
        rows = ", ".join(f"`{name}` {len(data):,}" for name, data in found.items())
        raise DataError(f"{path}: data sets need equally many rows; there are {rows}")
    return tuple(Column(name, data.dtype.newbyteorder("=").name, data.shape[1:]) for name, data in found.items())


def _shown(columns: tuple[Column, ...]) -> str:
    return ", ".join(f"`{c.name}` {c.dtype} {'×'.join(map(str, c.shape)) or 'numbers'}" for c in columns)
