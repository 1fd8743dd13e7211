"""Caffe's databases: LMDB and LevelDB, both read in the order of their keys, and the Datum that their records hold."""

import contextlib
import itertools
import os
import pathlib
import shutil
import struct
import tempfile
import weakref
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from google.protobuf.message import DecodeError

from ..errors import DataError
from ..files import exists, is_dir, is_file
from ..proto import caffe_pb2
from .images import Pixels, decode
from .lmdb_file import LMDBFile

# Of LevelDB's logs: checksum, length and kind of a part of a record.
_LOG_BLOCK = 32768
_LOG_HEADER = struct.Struct("<IHB")
_LOG_FIRST, _LOG_MIDDLE = 2, 3


class Database(Protocol):
    """Records of a database: iterating gives (key, value) in the order of the keys, each time from the first on."""

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]: ...

    def every(self, first: int, step: int) -> Iterator[tuple[bytes, bytes]]:
        """Record number `first` and every `step`-th after it."""


@contextlib.contextmanager
def open_database(path: str | os.PathLike[str], backend: str) -> Iterator[Database]:
    """The database at `path`; `backend` is LMDB or LEVELDB. Nothing is written into its folder.

    It must be finished: what another process writes meanwhile may or may not be seen, or look like damage. Raises
    DataError when there is none, or it is cut short or damaged.
    """
    folder = pathlib.Path(path)
    _check_kind(folder, backend)
    if backend == "LMDB":
        database: LMDBFile | _LevelDB = LMDBFile(folder / "data.mdb" if is_dir(folder) else folder)
    else:
        database = _LevelDB(folder)
    with contextlib.closing(database):
        yield database


def _check_kind(folder: pathlib.Path, backend: str) -> None:
    if not exists(folder):
        raise DataError(f"there is no database {folder}: the path is relative to the working directory")
    kinds = {"LMDB": folder / "data.mdb" if is_dir(folder) else folder, "LEVELDB": folder / "CURRENT"}
    if is_file(kinds[backend]):
        return
    found = next((kind for kind, file in kinds.items() if is_file(file)), None)
    advice = f"it looks like {found}: write backend: {found}" if found else f"{kinds[backend].name} is missing"
    raise DataError(f"{folder} is no {backend} database; {advice}")


# ---- LevelDB ----


class _LevelDB:
    """Opening a LevelDB rewrites its logs and its manifest, so what is opened is a stand-in in a temporary folder.

    It has copies of the small files that change, links to the tables, which never do.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        import plyvel

        self._path = folder
        self._stand_in = tempfile.mkdtemp(prefix="sparknet-leveldb-")
        self._clean = weakref.finalize(self, shutil.rmtree, self._stand_in, ignore_errors=True)
        try:
            for file in folder.iterdir():
                to = pathlib.Path(self._stand_in, file.name)
                if file.suffix in (".ldb", ".sst"):
                    to.symlink_to(file.resolve())
                elif file.is_file() and file.name not in ("LOCK", "LOG", "LOG.old"):
                    if file.suffix == ".log" or file.name.startswith("MANIFEST-"):
                        _check_log(file)
                    shutil.copyfile(file, to)
            self._database: Any = plyvel.DB(self._stand_in, create_if_missing=False, paranoid_checks=True)
        except DataError:
            self._clean()
            raise
        except (OSError, plyvel.Error) as error:
            self._clean()
            raise DataError(f"cannot open the LevelDB {folder}: {self._reason(error)}") from error

    def close(self) -> None:
        self._database.close()
        self._clean()

    def _reason(self, error: Exception) -> str:
        return str(error.args[0] if error.args else error).replace(self._stand_in, str(self._path))

    def every(self, first: int, step: int) -> Iterator[tuple[bytes, bytes]]:
        return itertools.islice(self, first, None, step)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        import plyvel

        try:
            with self._database.iterator(verify_checksums=True) as records:
                yield from records
        except plyvel.Error as error:
            raise DataError(f"the LevelDB {self._path} is damaged: {self._reason(error)}") from error


def _check_log(path: pathlib.Path) -> None:
    """Raises DataError where the last record of a log is not whole: LevelDB takes that for the log's end, silently.

    The format: https://github.com/google/leveldb/blob/main/doc/log_format.md (blocks of 32 KB; a record, or a part of
    one, is checksum, length, kind, content).
    """
    size, at, parts_follow = path.stat().st_size, 0, False
    with path.open("rb") as file:
        while at < size:
            room = _LOG_BLOCK - at % _LOG_BLOCK
            if room < _LOG_HEADER.size:
                at += room
                continue
            file.seek(at)
            header = file.read(_LOG_HEADER.size)
            if len(header) < _LOG_HEADER.size:
                break
            _, length, kind = _LOG_HEADER.unpack(header)
            at += room if kind == 0 else _LOG_HEADER.size + length
            parts_follow = kind in (_LOG_FIRST, _LOG_MIDDLE)
    if at != size or parts_follow:
        raise DataError(f"{path} is cut short: its last record is not whole; copy the database again")


# ---- Datum ----


def read_datum(value: bytes) -> caffe_pb2.Datum:
    """The Datum of a record; raises DataError when `value` is none."""
    try:
        return caffe_pb2.Datum.FromString(value)
    except DecodeError as error:
        raise DataError("the record is no Datum, or is damaged") from error


def pixels_of(datum: caffe_pb2.Datum, color: bool | None = None) -> Pixels:
    """The image of a Datum, channels × height × width: uint8, or float32 where it has `float_data`.

    Encoded images have their own channels, in BGR order, unless `color` says three (True) or one (False). Raises
    DataError when an image cannot be decoded, or the Datum's numbers disagree.
    """
    if datum.encoded:
        return decode(datum.data, color)
    shape = (datum.channels, datum.height, datum.width)
    raw = datum.data
    pixels: Pixels = np.frombuffer(raw, np.uint8) if raw else np.array(datum.float_data, np.float32)
    if min(shape) < 1 or pixels.size != shape[0] * shape[1] * shape[2]:
        times = " × ".join(map(str, shape))
        raise DataError(f"the Datum has {pixels.size} values for {times}; encoded images must be marked `encoded`")
    return pixels.reshape(shape)
