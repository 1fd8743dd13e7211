"""The rows of a partition on an executor's disk: one memory-mapped .npy file for each column.

A shard is a cache. Any task that finds none makes it again from its partition's rows, wherever Spark runs it.
"""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import DataError, OutputError
from .data import Column, Columns

FOLDER_PREFIX = "sparknet-"


class Shard:
    """Rows of one partition; `columns[name]` is a read-only array (rows, *shape of a row), mapped from disk."""

    def __init__(self, folder: pathlib.Path) -> None:
        names, self.rows = json.loads((folder / "shard.json").read_text())
        # An empty file cannot be mapped.
        mode: Any = "r" if self.rows else None
        self.columns: dict[str, npt.NDArray[np.generic]] = {
            name: np.load(folder / f"{index}.npy", mmap_mode=mode) for index, name in enumerate(names)
        }


def local_folder() -> pathlib.Path:
    """Spark's local directory on this executor, which Spark removes when it ends; outside Spark a temporary one."""
    folders = os.environ.get("SPARK_LOCAL_DIRS", "").split(",")
    return pathlib.Path(folders[0] or tempfile.gettempdir())


def shard(
    run: str, name: str, columns: Sequence[Column], rows: Callable[[], Iterator[Columns]], parent: pathlib.Path
) -> Shard:
    """Opens the shard `name` of the run `run` below `parent`; where there is none, writes it from `rows()` first.

    `rows` gives the rows in chunks and is not called when the shard is there. Two processes may do this at once: the
    first to finish wins, and both read the same. Raises DataError for rows that `columns` does not describe,
    OutputError.
    """
    folder = parent / f"{FOLDER_PREFIX}{run}" / name
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return Shard(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = pathlib.Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder.parent))
        try:
            _write(unfinished, columns, rows())
            _place(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"cannot keep rows in {folder.parent}: {error.strerror or error}") from error
    return Shard(folder)


def remove_shards(run: str, parent: pathlib.Path) -> None:
    """Removes every shard of the run `run` below `parent`."""
    shutil.rmtree(parent / f"{FOLDER_PREFIX}{run}", ignore_errors=True)


def _place(unfinished: pathlib.Path, folder: pathlib.Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:
        # A folder with something in it cannot be replaced: somebody else was faster, with the same rows; or it
        # has lost a file to someone who cleans up.
        try:
            Shard(folder)
        except FileNotFoundError:
            shutil.rmtree(folder)
            unfinished.rename(folder)


def _write(folder: pathlib.Path, columns: Sequence[Column], chunks: Iterator[Columns]) -> None:
    rows = 0
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context((folder / f"{index}.npy").open("wb")) for index in range(len(columns))]
        # numpy pads its headers so that one with another number of rows takes the same room.
        starts = [_write_header(file, column, 0) for file, column in zip(files, columns, strict=True)]
        for chunk in chunks:
            length = _check(chunk, columns)
            for file, column in zip(files, columns, strict=True):
                file.write(np.ascontiguousarray(chunk[column.name]).data)
            rows += length
        for file, column, start in zip(files, columns, starts, strict=True):
            file.seek(0)
            if _write_header(file, column, rows) != start:
                raise AssertionError("a .npy header changed its length")
    (folder / "shard.json").write_text(json.dumps([[column.name for column in columns], rows]))


def _write_header(file: BinaryIO, column: Column, rows: int) -> int:
    descr = np.lib.format.dtype_to_descr(np.dtype(column.dtype))
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": (rows, *column.shape)})
    return file.tell()


def _check(chunk: Columns, columns: Sequence[Column]) -> int:
    lengths = set()
    for column in columns:
        values = chunk[column.name]
        if values.dtype != np.dtype(column.dtype) or values.shape[1:] != column.shape:
            raise DataError(
                f"column `{column.name}` was announced as {column.dtype} {column.shape}, but the source gave "
                f"{values.dtype} {values.shape[1:]}"
            )
        lengths.add(len(values))
    if len(lengths) != 1:
        raise DataError(f"the source gave columns of different lengths: {sorted(lengths)}")
    return lengths.pop()
