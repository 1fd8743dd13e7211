"""`lmdb:DIR` and `leveldb:DIR`: Caffe's databases, whose records are Datum messages, raw, float or encoded.

They are read as Caffe's Data layer reads them, in the order of their keys; with N workers each takes every N-th record.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from ...caffe_ext.database import open_database, pixels_of, read_datum
from ...errors import DataError
from .base import NAME, BadRecords, Column, Columns, Phase, SourceURI, gathered
from .encoded import Images, Record
from .places import is_url

LABEL = Column("label", "int32", ())


class _Datum:
    """Columns image, of the first record's type and shape (its own bytes, where it is encoded), and label."""

    OPTIONS: ClassVar[Mapping[str, str]] = {
        **Images.OPTIONS,
        "color": "true: encoded images have three channels, whatever they have themselves (Caffe's force_color)",
    }
    BACKEND: ClassVar[str]

    def __init__(self, uri: SourceURI, phase: Phase) -> None:
        del phase
        if not uri.path:
            raise DataError(f"`{uri}` wants a database, {uri}DIR")
        if is_url(uri.path):
            raise DataError(f"{uri}: a database is read from a local path only: copy it to every worker")
        self.path = uri.located(uri.path)
        self.name = str(uri)
        self.images = Images.of(uri, True if uri.flag("color") else None)
        with open_database(self.path, self.BACKEND) as database:
            found = next(database.every(0, 1), None)
        if found is None:
            raise DataError(f"{uri} holds no records")
        # What is wrong with the record itself is told when all of them are read.
        try:
            first = read_datum(found[1])
            self.encoded = first.encoded
            pixels = None if first.encoded else pixels_of(first)
        except DataError as error:
            raise DataError(f"{_key(found[0])} of {uri}, which tells the shape of all: {error}") from error
        if pixels is None:
            image = self.images.column("image", first.data)
        elif self.images.size:
            raise DataError(f"{uri}: only encoded images are resized as they are read, and this database has raw ones")
        else:
            image = Column("image", pixels.dtype.name, pixels.shape)
        self.columns: tuple[Column, ...] = (image, LABEL)

    def read(self, partition: int, partitions: int, bad: BadRecords) -> Iterator[Columns]:
        """Reads as `base.Source` says."""
        with open_database(self.path, self.BACKEND) as database:
            records = database.every(partition, partitions)
            if self.encoded:
                yield from self.images.chunks(map(self._record, records), [*self.columns, NAME], bad)
            else:
                yield from gathered(self._rows(records, bad), [*self.columns, NAME])

    def _record(self, record: tuple[bytes, bytes]) -> Record:
        """Of a database of encoded images."""
        name = f"{_key(record[0])} of {self.name}"
        try:
            datum = read_datum(record[1])
        except DataError as error:
            return Record(name, error)
        if not datum.encoded:
            return Record(name, DataError("it is raw, and the first record encoded"))
        return Record(name, datum.data, (datum.label, record[0]))

    def _rows(self, records: Iterable[tuple[bytes, bytes]], bad: BadRecords) -> Iterator[tuple[Any, ...]]:
        """Of a database of raw images."""
        image = self.columns[0]
        dtype = np.dtype(image.dtype)
        for key, value in records:
            try:
                datum = read_datum(value)
                pixels = pixels_of(datum)
                if datum.encoded or pixels.dtype != dtype or pixels.shape != image.shape:
                    what = "encoded" if datum.encoded else f"{pixels.dtype} {_times(pixels.shape)}"
                    raise DataError(f"it is {what}, and the first record {image.dtype} {_times(image.shape)}")
            except DataError as error:
                bad.add(f"{_key(key)} of {self.name}", str(error))
            else:
                yield pixels, datum.label, key


class Lmdb(_Datum):
    """An LMDB."""

    BACKEND = "LMDB"


class LevelDb(_Datum):
    """A LevelDB."""

    BACKEND = "LEVELDB"


def _key(key: bytes) -> str:
    return f"record {key.decode(errors='backslashreplace')}"


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
