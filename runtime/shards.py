"""The rows of a partition on an executor's disk: one memory-mapped .npy file for each column.

An encoded column has a file of bytes beside it, one image after another, and in the .npy where each of them begins.
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
from .data import Bad, BadPolicy, BadRecords, Column, Columns

FOLDER_PREFIX = "sparknet-"
# Reads the rows of a part, in chunks; those that cannot be read go to the BadRecords.
Reading = Callable[[BadRecords], Iterator[Columns]]


class Encoded:
    """An encoded column: `column[row]` is an image's bytes, mapped from disk."""

    def __init__(self, content: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64]) -> None:
        self._content = memoryview(content)  # type: ignore[arg-type]
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, row: int) -> memoryview:
        return self._content[self._starts[row] : self._starts[row + 1]]


class Shard:
    """Rows of one partition; `columns[name]` is a read-only array (rows, *shape of a row), mapped from disk.

    encoded   the encoded columns, which are not among `columns`
    bad       the records that could not be read and were left out
    folder    where it is
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        kept = json.loads((folder / "shard.json").read_text())
        self.rows: int = kept["rows"]
        self.bad = BadRecords("skip", kept["bad"], [Bad(*each) for each in kept["first"]])
        # An empty file cannot be mapped.
        mode: Any = "r" if self.rows else None
        self.columns: dict[str, npt.NDArray[np.generic]] = {}
        self.encoded: dict[str, Encoded] = {}
        for index, (name, encoded) in enumerate(kept["columns"]):
            values = np.load(folder / f"{index}.npy", mmap_mode=mode)
            if encoded:
                self.encoded[name] = Encoded(_mapped(folder / f"{index}.bin"), values)
            else:
                self.columns[name] = values


def local_folder() -> pathlib.Path:
    """Spark's local directory on this executor, which Spark removes when it ends; outside Spark a temporary one."""
    folders = os.environ.get("SPARK_LOCAL_DIRS", "").split(",")
    return pathlib.Path(folders[0] or tempfile.gettempdir())


def shard(
    run: str,
    name: str,
    columns: Sequence[Column],
    rows: Reading,
    parent: pathlib.Path,
    bad_records: BadPolicy = "fail",
) -> Shard:
    """Opens the shard `name` of the run `run` below `parent`; where there is none, writes it from `rows` first.

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
            _write(unfinished, columns, rows, BadRecords(bad_records))
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


def _write(folder: pathlib.Path, columns: Sequence[Column], rows: Reading, bad: BadRecords) -> None:
    with contextlib.ExitStack() as stack:
        writers = [_Writer(stack, folder, index, column) for index, column in enumerate(columns)]
        for chunk in rows(bad):
            lengths = {writer.write(chunk[writer.column.name]) for writer in writers}
            if len(lengths) != 1:
                raise DataError(f"the source gave columns of different lengths: {sorted(lengths)}")
        (count,) = {writer.finish() for writer in writers}
    kept = {
        "columns": [(column.name, column.encoded) for column in columns],
        "rows": count,
        "bad": bad.count,
        "first": bad.first,
    }
    (folder / "shard.json").write_text(json.dumps(kept))


class _Writer:
    """Writes a column, chunk by chunk."""

    def __init__(self, stack: contextlib.ExitStack, folder: pathlib.Path, index: int, column: Column) -> None:
        self.column = column
        self._rows = 0
        self._file: BinaryIO = stack.enter_context((folder / f"{index}.npy").open("wb"))
        self._content: BinaryIO | None = None
        self._ends = 0
        if column.encoded:
            self._content = stack.enter_context((folder / f"{index}.bin").open("wb"))
        # numpy pads its headers so that one with another number of rows takes the same room.
        self._start = self._write_header()
        if column.encoded:
            self._file.write(bytes(8))  # where the first image begins

    def write(self, values: npt.NDArray[Any]) -> int:
        """Writes a chunk's values; gives how many there are."""
        column = self.column
        dtype = np.dtype(object if column.encoded else column.dtype)
        shape = () if column.encoded else column.shape
        if values.dtype != dtype or values.shape[1:] != shape:
            raise DataError(
                f"column `{column.name}` was announced as {column.dtype} {column.shape}, but the source gave "
                f"{values.dtype} {values.shape[1:]}"
            )
        if self._content is not None:
            self._content.write(b"".join(values))
            ends = self._ends + np.cumsum([len(value) for value in values], dtype=np.int64)
            self._ends = int(ends[-1]) if len(ends) else self._ends
            values = ends
        self._file.write(np.ascontiguousarray(values).data)
        self._rows += len(values)
        return len(values)

    def finish(self) -> int:
        """Writes how many rows there are, which it gives."""
        self._file.seek(0)
        if self._write_header() != self._start:
            raise AssertionError("a .npy header changed its length")
        return self._rows

    def _write_header(self) -> int:
        column = self.column
        dtype, shape = (
            (np.dtype(np.int64), (self._rows + 1,))
            if column.encoded
            else (np.dtype(column.dtype), (self._rows, *column.shape))
        )
        descr = np.lib.format.dtype_to_descr(dtype)
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()


def _mapped(path: pathlib.Path) -> npt.NDArray[np.uint8]:
    return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
