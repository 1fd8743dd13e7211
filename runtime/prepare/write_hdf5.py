"""Writes HDF5 as Caffe's HDF5Data layer reads it: a dataset for each column, and a text file that lists the files."""

import pathlib
from typing import Any, ClassVar, Literal

import numpy as np

from ..data import Columns
from .writer import Names, Part, Parted

LIST = "list.txt"


class HDF5Writer(Parted):
    """Files of datasets, each in its column's own type, and list.txt, which names them."""

    images: ClassVar[Literal["raw", "encoded", "any"]] = "raw"
    suffix = ".h5"
    content = ("*.h5", LIST)

    @classmethod
    def read_as(cls, path: pathlib.Path) -> pathlib.Path:
        """As `Writer.read_as`: the list, which has the rows in their order."""
        return path if path.name.endswith(cls.suffix) else path / LIST

    def open(self, path: pathlib.Path) -> Part:
        """As `Parted.open`."""
        return _File(path, self)

    def finish(self) -> None:
        """As `Parted.finish`."""
        super().finish()
        if not self.layout.single:
            names = sorted(path.name for path in self.path.glob("*.h5"))
            (self.path / LIST).write_text("".join(f"{name}\n" for name in names))


class _File:
    def __init__(self, path: pathlib.Path, writer: HDF5Writer) -> None:
        import h5py

        self._file: Any = h5py.File(path, "w")
        for column in writer.columns:
            # numpy's booleans become an enumeration, which Caffe does not read.
            dtype = np.dtype(np.uint8 if column.dtype == "bool" else column.dtype)
            self._file.create_dataset(
                column.name, (0, *column.shape), dtype, maxshape=(None, *column.shape), chunks=True
            )

    def write(self, rows: Columns, names: Names, first: int) -> None:
        for name, dataset in self._file.items():
            start = len(dataset)
            dataset.resize(start + len(rows[name]), axis=0)
            dataset[start:] = rows[name]

    def close(self) -> None:
        self._file.close()
