"""Writes LMDB and LevelDB as Caffe's tools do: `convert_imageset`, `convert_mnist_data`, `convert_cifar_data`."""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from ...proto import caffe_pb2
from ..data import Column, Columns
from .writer import Layout, Names, Writer, image_and_label, labels_of, rows_of, slices, unnumbered

COMMIT = 1000  # rows, as Caffe's tools
LONGEST_KEY = 511  # that LMDB takes
FIRST_MAP = 1 << 28


class _Database(Writer):
    """What both have in common: a key and a Datum for each row."""

    images: ClassVar[Literal["raw", "encoded", "any"]] = "any"

    def __init__(self, path: pathlib.Path, columns: Sequence[Column], done: int, layout: Layout) -> None:
        super().__init__(path, columns, done, layout)
        self._image, self._label = image_and_label(columns, "a database of Caffe's")
        if len(self._image.shape) > 3:
            raise DataError(f"column `{self._image.name}` has {len(self._image.shape)} axes; a Datum has three at most")

    def write(self, rows: Columns, names: Names) -> int:
        """As `Writer.write`."""
        labels = labels_of(rows, self._label) if self._label is not None else None
        values = rows[self._image.name]
        for piece in slices(rows_of(rows), COMMIT):
            records = []
            for row in range(piece.start, piece.stop):
                key = self._key(None if names is None else names[row])
                datum = self._datum(values[row], None if labels is None else int(labels[row]))
                records.append((key, datum.SerializeToString()))
                self.rows += 1
            self.put(records)
        return self.rows

    def put(self, records: list[tuple[bytes, bytes]]) -> None:
        """Writes records, all or none of them."""
        raise NotImplementedError

    def _key(self, name: Any) -> bytes:
        if name is not None and self.layout.caffe == "copy":
            return bytes(name)
        number = b"%05d" if self.layout.caffe == "convert_cifar_data" else b"%08d"
        key = number % self.rows
        if name is not None and self.layout.caffe == "renumber":
            name = unnumbered(name) or None
        return key if name is None else (key + b"_" + name)[:LONGEST_KEY]

    def _datum(self, value: Any, label: int | None) -> caffe_pb2.Datum:
        datum = caffe_pb2.Datum(label=label)
        if self._image.encoded:
            # Their sizes are left to the decoder, as convert_imageset does.
            datum.data = value
            datum.encoded = True
            return datum
        shape = (*value.shape, 1, 1, 1)
        datum.channels, datum.height, datum.width = shape[:3]
        if value.dtype == np.uint8:
            datum.data = value.tobytes()
            if not self.layout.caffe.endswith("_data"):
                datum.encoded = False
        else:
            datum.float_data.extend(_floats(value, self._image.name))
        return datum


def _floats(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.float32]:
    floats = values.ravel().astype(np.float32)
    if not np.issubdtype(values.dtype, np.floating) and (floats.astype(np.float64) != values.ravel()).any():
        raise DataError(f"column `{name}`: {values.dtype.name} does not fit a Datum's float32 exactly")
    return floats


class LMDBWriter(_Database):
    """An LMDB: the folder with data.mdb."""

    content = ("data.mdb", "lock.mdb")

    def __init__(self, path: pathlib.Path, columns: Sequence[Column], done: int, layout: Layout) -> None:
        import lmdb

        super().__init__(path, columns, done, layout)
        self._room = FIRST_MAP
        data = path / "data.mdb"
        if data.exists():
            self._room = max(FIRST_MAP, 2 * data.stat().st_size)
        with _system_errors():
            # Nobody else opens an unfinished one; it is brought to the disk once, at its end.
            self._environment: Any = lmdb.open(str(path), map_size=self._room, lock=False, sync=False, metasync=False)

    def put(self, records: list[tuple[bytes, bytes]]) -> None:
        """As `_Database.put`."""
        import lmdb

        with _system_errors():
            while True:
                try:
                    with self._environment.begin(write=True) as transaction:
                        for key, value in records:
                            transaction.put(key, value)
                    return
                except lmdb.MapFullError:
                    self._room *= 2
                    self._environment.set_mapsize(self._room)

    def finish(self) -> None:
        """As `Writer.finish`."""
        with _system_errors():
            self._environment.sync(True)
        self.close()

    def close(self) -> None:
        """As `Writer.close`."""
        self._environment.close()


class LevelDBWriter(_Database):
    """A LevelDB: a folder of tables."""

    content = ("CURRENT", "LOCK", "LOG", "LOG.old", "MANIFEST-*", "*.ldb", "*.sst", "*.log")

    def __init__(self, path: pathlib.Path, columns: Sequence[Column], done: int, layout: Layout) -> None:
        import plyvel

        super().__init__(path, columns, done, layout)
        with _system_errors():
            self._database: Any = plyvel.DB(str(path), create_if_missing=True, write_buffer_size=1 << 26)

    def put(self, records: list[tuple[bytes, bytes]]) -> None:
        """As `_Database.put`."""
        with _system_errors(), self._database.write_batch(transaction=True) as batch:
            for key, value in records:
                batch.put(key, value)

    def finish(self) -> None:
        """As `Writer.finish`."""
        with _system_errors():
            # From the log into tables, which readers need not replay.
            self._database.compact_range()
        self.close()
        for name in ("LOCK", "LOG", "LOG.old"):
            (self.path / name).unlink(missing_ok=True)

    def close(self) -> None:
        """As `Writer.close`."""
        self._database.close()


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
    """What the databases' libraries raise becomes an OSError."""
    import lmdb
    import plyvel

    try:
        yield
    except (lmdb.Error, plyvel.Error) as error:
        raise OSError(str(error)) from error
