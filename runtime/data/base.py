"""What a data source is: rows in named columns, read partition by partition, anywhere."""

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from ...files import exists, is_dir

Phase = Literal["TRAIN", "TEST"]
# Some rows: name of the column -> array of shape (rows, *shape of a row).
Columns = Mapping[str, npt.NDArray[np.generic]]
# Rows that are read, cached and handed on at a time.
CHUNK = 1024


class Column(NamedTuple):
    """A column's name, type and the shape of one row: () for a number, (channels, height, width) for an image."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class SourceURI(NamedTuple):
    """A URI's parts; `columns` (empty: not given) name the columns that feed the tops, in the tops' order."""

    scheme: str
    path: str
    columns: tuple[str, ...]


class Source(Protocol):
    """Rows of one phase. Sources are pickled and sent to the workers, which call `read`."""

    rows: int
    columns: tuple[Column, ...]

    def __init__(self, path: str, phase: Phase) -> None:
        """Looks at the files, without keeping them; raises DataError that names file, expected and found sizes."""

    def read(self, partition: int, partitions: int) -> Iterator[Columns]:
        """Reads one of `partitions` parts, a few rows at a time; the parts are disjoint and together hold every row.

        Two calls give the same rows in the same order. Raises DataError.
        """


def part(rows: int, partition: int, partitions: int) -> slice:
    """Every `partitions`-th row from `partition` on: parts differ by one row at most, even where files are sorted."""
    return slice(partition, rows, partitions)


def chunks(columns: Columns) -> Iterator[Columns]:
    """Cuts `columns` into pieces of CHUNK rows."""
    rows = len(next(iter(columns.values())))
    for start in range(0, rows, CHUNK):
        yield {name: values[start : start + CHUNK] for name, values in columns.items()}


def existing_folder(path: str, scheme: str, content: str) -> pathlib.Path:
    """The folder `path`, `~` expanded; raises DataError, which says what is to lie there (`content`)."""
    folder = pathlib.Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib's may raise
    if not path:
        raise DataError(f"`{scheme}:` wants a folder, {scheme}:DIR, where DIR holds {content}")
    if not is_dir(folder):
        problem = "is no folder" if exists(folder) else "does not exist"
        raise DataError(f"{scheme}:{path}: the folder {folder.absolute()} {problem}; it should hold {content}")
    return folder
