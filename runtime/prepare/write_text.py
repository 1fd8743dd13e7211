"""Writes numbers as text: CSV, and libsvm's sparse rows."""

import math
import pathlib
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from ..data import Column, Columns
from .writer import Layout, Names, Part, Parted, rows_of


class CSVWriter(Parted):
    """A line for each row, names in the first one; an array's numbers are NAME_0, NAME_1 and so on."""

    images: ClassVar[Literal["raw", "encoded", "any"]] = "raw"
    suffix = ".csv"
    content = ("*.csv",)

    def open(self, path: pathlib.Path) -> Part:
        """As `Parted.open`."""
        return _CSV(path, self.columns)


class _Text:
    def __init__(self, path: pathlib.Path) -> None:
        self.file = path.open("w", encoding="utf-8", newline="\n")

    def close(self) -> None:
        self.file.close()


class _CSV(_Text):
    def __init__(self, path: pathlib.Path, columns: Sequence[Column]) -> None:
        super().__init__(path)
        self._columns = columns
        headings: list[str] = []
        for column in columns:
            if column.shape:
                headings += [f"{column.name}_{number}" for number in range(math.prod(column.shape))]
            else:
                headings.append(column.name)
        self.file.write(",".join(map(_quoted, headings)) + "\n")

    def write(self, rows: Columns, names: Names, first: int) -> None:
        texts = np.concatenate([_texts(rows[column.name]) for column in self._columns], axis=1)
        self.file.writelines(",".join(line) + "\n" for line in texts.tolist())


class LibSVMWriter(Parted):
    """Lines of `label index:value ...`, indices from 1, zeros left out."""

    images: ClassVar[Literal["raw", "encoded", "any"]] = "raw"
    suffix = ".svm"
    content = ("*.svm",)

    def __init__(self, path: pathlib.Path, columns: Sequence[Column], done: int, layout: Layout) -> None:
        super().__init__(path, columns, done, layout)
        labels = [column for column in columns if column.shape == () and column.name == "label"]
        self.arrays = [column for column in columns if column.shape]
        if len(self.arrays) != 1 or len(labels) != 1 or len(columns) != 2:
            raise DataError(
                "libsvm: holds a `label` and one array of numbers for each row, and the data has "
                f"{', '.join(column.name for column in columns)}; choose with ?columns="
            )

    def open(self, path: pathlib.Path) -> Part:
        """As `Parted.open`."""
        return _LibSVM(path, self.arrays[0].name)


class _LibSVM(_Text):
    def __init__(self, path: pathlib.Path, array: str) -> None:
        super().__init__(path)
        self._array = array

    def write(self, rows: Columns, names: Names, first: int) -> None:
        values = rows[self._array].reshape(rows_of(rows), -1)
        for label, row in zip(_texts(rows["label"])[:, 0], values, strict=True):
            places = np.flatnonzero(row)
            pairs = (f" {place + 1}:{text}" for place, text in zip(places, _texts(row[places])[:, 0], strict=True))
            self.file.write(f"{label}{''.join(pairs)}\n")


def _texts(values: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    """Each number of each row in as few digits as tell it from its neighbours: (rows, numbers)."""
    if values.dtype == bool:
        values = values.astype(np.uint8)
    return values.reshape(len(values), -1).astype(str)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if set(name) & set(',"\n\r') else name
