"""Writes TFRecord files of tf.train.Example messages, a feature for each column, as `tfrecord:` reads them."""

import pathlib
import struct
from typing import Any, ClassVar, Literal

import numpy as np

from ...errors import DataError
from ...proto.example_pb2 import Example
from ..data import Columns
from ..data.tables import EXTRA
from .writer import Names, Part, Parted, rows_of


class TFRecordWriter(Parted):
    """Whole numbers are int64 lists, others float lists; bytes are images, and arrays of bytes, which have no shape."""

    images: ClassVar[Literal["raw", "encoded", "any"]] = "any"
    suffix = ".tfrecord"
    content = ("*.tfrecord",)

    def open(self, path: pathlib.Path) -> Part:
        """As `Parted.open`."""
        try:
            import google_crc32c  # noqa: F401
        except ImportError as error:
            raise DataError(f"`tfrecord:` takes google-crc32c: {EXTRA}") from error
        return _File(path)


class _File:
    def __init__(self, path: pathlib.Path) -> None:
        self._file = path.open("wb")

    def write(self, rows: Columns, names: Names, first: int) -> None:
        for row in range(rows_of(rows)):
            example = Example()
            for name, values in rows.items():
                _fill(example.features.feature[name], values[row])
            content = example.SerializeToString()
            length = struct.pack("<Q", len(content))
            self._file.write(length + _checksum(length) + content + _checksum(content))

    def close(self) -> None:
        self._file.close()


def _fill(feature: Any, value: Any) -> None:
    if isinstance(value, bytes):
        feature.bytes_list.value.append(value)
    elif value.ndim and value.dtype == np.uint8:
        feature.bytes_list.value.append(value.tobytes())
    elif np.issubdtype(value.dtype, np.floating):
        feature.float_list.value.extend(value.ravel().tolist())
    else:
        feature.int64_list.value.extend(value.ravel().tolist())


def _checksum(content: bytes) -> bytes:
    """CRC-32C, masked as TensorFlow masks it."""
    import google_crc32c

    crc = google_crc32c.value(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
