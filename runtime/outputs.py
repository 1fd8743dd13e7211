"""Where predictions go: a Parquet folder, a file of CSV, of JSON lines or of NumPy arrays."""

import csv
import json
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import OutputError, UsageError
from ..files import atomic_path, exists

# Some rows: name of the column -> array (rows, *shape of a row); names (object) among them.
Table = Mapping[str, npt.NDArray[Any]]
Write = Callable[[Table], None]
KINDS = ("parquet", "csv", "json", "npz")


class Out(NamedTuple):
    """What `--out kind:place` names."""

    kind: str
    place: str


def parse(text: str) -> Out:
    """Reads kind:place; raises UsageError."""
    kind, colon, place = text.partition(":")
    if not colon or kind not in KINDS or not place:
        raise UsageError(f"--out {text}: write {', '.join(f'{kind}:FILE' for kind in KINDS[1:])} or parquet:DIR")
    if kind == "parquet":
        _pyarrow()
    return Out(kind, place)


@contextmanager
def writing(out: Out) -> Iterator[Write]:
    """Gives what writes rows, a table at a time; the file or folder is there when the block has ended well.

    Raises OutputError, also for a Parquet folder that is there already.
    """
    path = pathlib.Path(out.place)
    if out.kind == "parquet":
        with _folder(path) as folder, _parquet(folder) as write:
            yield write
        return
    with atomic_path(path) as temporary:
        if out.kind == "npz":
            kept: list[Table] = []
            yield kept.append
            arrays = {name: np.concatenate([table[name] for table in kept]) for name in (kept[0] if kept else {})}
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **{name: _plain(values) for name, values in arrays.items()})
            return
        with temporary.open("w", newline="", encoding="utf-8") as text:
            yield _csv(text) if out.kind == "csv" else _json(text)


def arrow(table: Table) -> Any:
    """A table as a RecordBatch of Arrow; arrays of a row as lists, flattened."""
    pa = _pyarrow()
    arrays = []
    for values in table.values():
        if values.ndim == 1:
            arrays.append(pa.array(values))
        else:
            flat = np.ascontiguousarray(values).reshape(len(values), -1)
            offsets = np.arange(len(flat) + 1, dtype=np.int32) * np.int32(flat.shape[1])
            arrays.append(pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat.ravel())))
    return pa.RecordBatch.from_arrays(arrays, list(table))


def stream(table: Table) -> bytes:
    """A table as a stream of Arrow, which `table_of` reads."""
    pa = _pyarrow()
    batch = arrow(table)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def table_of(content: bytes) -> Table:
    """The table of a stream; arrays of a row are flat."""
    pa = _pyarrow()
    with pa.ipc.open_stream(content) as reader:
        (batch,) = reader
    return {
        name: column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
        if pa.types.is_list(column.type)
        else column.to_numpy(zero_copy_only=False)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }


def _csv(file: Any) -> Write:
    writer = csv.writer(file)
    begun = False

    def write(table: Table) -> None:
        nonlocal begun
        flat = {name: values.reshape(len(values), -1) for name, values in table.items()}
        if not begun:
            begun = True
            writer.writerow(
                f"{name}_{i}" if table[name].ndim > 1 else name
                for name, values in flat.items()
                for i in range(values.shape[1])
            )
        for row in zip(*flat.values(), strict=True):
            writer.writerow(_number(value) for values in row for value in values)

    return write


def _json(file: Any) -> Write:
    def write(table: Table) -> None:
        for row in zip(*table.values(), strict=True):
            file.write(json.dumps({name: _json_value(value) for name, value in zip(table, row, strict=True)}) + "\n")

    return write


def _number(value: Any) -> Any:
    # The fewest digits that give the same number.
    return str(value) if isinstance(value, np.floating) else value


def _json_value(value: Any) -> Any:
    """NaN and infinite numbers as null, which JSON has not; a float32 in as few digits as it takes."""
    if isinstance(value, np.ndarray):
        return [_json_value(each) for each in value]
    if isinstance(value, np.floating):
        return float(str(value)) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def _plain(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.astype(str) if values.dtype == object else values


@contextmanager
def _folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new folder that becomes `path` when the block ends well."""
    if exists(path):
        raise OutputError(f"{path} exists already: name another folder, or remove it")
    try:
        unfinished = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.absolute().parent))
    except OSError as error:
        raise OutputError(f"cannot write to {path}: {error.strerror or error}") from error
    try:
        yield unfinished
        unfinished.chmod(0o755)
        unfinished.rename(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _parquet(folder: pathlib.Path) -> Iterator[Write]:
    import pyarrow.parquet as pq

    writer: Any = None

    def write(table: Table) -> None:
        nonlocal writer
        batch = arrow(table)
        if writer is None:
            writer = pq.ParquetWriter(folder / "part-00000.parquet", batch.schema)
        writer.write_batch(batch)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise UsageError("Parquet takes pyarrow: pip install 'sparknet-dsl[data]'") from error
    return pyarrow
