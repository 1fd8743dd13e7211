"""`mnist:DIR`: MNIST's idx files, and whatever else comes in them (Fashion-MNIST, KMNIST), gzipped or not.

The format: http://yann.lecun.com/exdb/mnist/ (four bytes of magic, big-endian sizes, then the bytes).
"""

import gzip
import math
import pathlib
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from .base import BadRecords, Column, Columns, Phase, SourceURI, chunks, existing_folder, part

CONTENT = (
    "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, "
    "each with or without .gz"
)
UNSIGNED_BYTE = 0x08


class Mnist:
    """`train-*` in phase TRAIN, `t10k-*` in TEST; columns image, (1, 28, 28) of 0 to 255, and label."""

    OPTIONS: ClassVar[Mapping[str, str]] = {}

    def __init__(self, uri: SourceURI, phase: Phase) -> None:
        folder = existing_folder(uri, CONTENT)
        prefix = "t10k" if phase == "TEST" else "train"
        self.images = _find(folder, prefix, "images", 3)
        self.labels = _find(folder, prefix, "labels", 1)
        # Read whole: of a gzipped file nobody knows before whether it is cut short.
        images, labels = read_idx(self.images, 3), read_idx(self.labels, 1)
        if len(images) != len(labels):
            raise DataError(
                f"{self.images} holds {len(images):,} images but {self.labels} {len(labels):,} labels: "
                "they are not of one set, fetch both again"
            )
        self.columns: tuple[Column, ...] = (
            Column("image", "uint8", (1, *images.shape[1:])),
            Column("label", "uint8", ()),
        )

    def read(self, partition: int, partitions: int, bad: BadRecords) -> Iterator[Columns]:
        """Reads as `base.Source` says."""
        del bad
        images, labels = read_idx(self.images, 3), read_idx(self.labels, 1)
        mine = part(len(images), partition, partitions)
        yield from chunks({"image": images[mine][:, None], "label": labels[mine]})


def _find(folder: pathlib.Path, prefix: str, what: str, axes: int) -> pathlib.Path:
    name = f"{prefix}-{what}-idx{axes}-ubyte"
    # Some unpackers write train-images.idx3-ubyte.
    names = [name, f"{name}.gz", f"{prefix}-{what}.idx{axes}-ubyte", f"{prefix}-{what}.idx{axes}-ubyte.gz"]
    for candidate in names:
        if (folder / candidate).is_file():
            return (folder / candidate).absolute()
    raise DataError(f"mnist:{folder}: there is no {name} or {name}.gz in {folder.absolute()}; it should hold {CONTENT}")


def read_idx(path: pathlib.Path, axes: int) -> npt.NDArray[np.uint8]:
    """The array of bytes in an idx file of `axes` axes; raises DataError that names the file and what is wrong."""
    again = "it is damaged or was not copied whole, fetch it again"
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                content = file.read()
        else:
            content = path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        size = path.stat().st_size
        raise DataError(f"{path} ({size:,} bytes) cannot be unpacked: {error}; {again}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    header = 4 + 4 * axes
    if len(content) < header:
        raise DataError(f"{path}: expected at least the {header} bytes of a header, found {len(content)}; {again}")
    zero, kind, found_axes = struct.unpack_from(">HBB", content)
    if zero != 0 or kind != UNSIGNED_BYTE or found_axes != axes:
        raise DataError(
            f"{path}: no idx file of bytes with {axes} axes (it starts with {content[:4].hex(' ')}, expected "
            f"00 00 08 {axes:02x}); {again}"
        )
    shape = struct.unpack_from(f">{axes}I", content, 4)
    expected = header + math.prod(shape)
    if len(content) != expected:
        sizes = "×".join(map(str, shape))
        raise DataError(f"{path}: expected {expected:,} bytes for {sizes}, found {len(content):,}; {again}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
