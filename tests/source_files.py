"""Files that data sources read, written for tests; and the sources, read whole."""

import io
import pathlib
import tarfile
from collections.abc import Mapping, Sequence

import cv2
import lmdb
import numpy as np

from sparknet_dsl.proto import caffe_pb2
from sparknet_dsl.runtime.data import BadRecords, Source


def noise(count: int, shape: tuple[int, int, int] = (3, 10, 12), seed: int = 0) -> list[np.ndarray]:
    """Images of smooth noise, channels × height × width."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 3, 4, shape[0]), np.uint8)
    large = [cv2.resize(each, (shape[2], shape[1]), interpolation=cv2.INTER_CUBIC) for each in small]
    return [each.reshape(shape[1], shape[2], shape[0]).transpose(2, 0, 1) for each in large]


def coded(image: np.ndarray, kind: str = ".png") -> bytes:
    """The image as a PNG or JPEG."""
    return cv2.imencode(kind, image.transpose(1, 2, 0))[1].tobytes()


def datum(image: "np.ndarray | bytes", label: int) -> bytes:
    """A record of Caffe's databases: of pixels, or of an encoded image."""
    if isinstance(image, bytes):
        return caffe_pb2.Datum(encoded=True, data=image, label=label).SerializeToString()
    channels, height, width = image.shape
    sizes = {"channels": channels, "height": height, "width": width}
    if image.dtype != np.uint8:
        return caffe_pb2.Datum(float_data=image.ravel().tolist(), label=label, **sizes).SerializeToString()
    return caffe_pb2.Datum(data=image.tobytes(), label=label, **sizes).SerializeToString()


def write_lmdb(path: pathlib.Path, records: Sequence[bytes]) -> pathlib.Path:
    """An LMDB whose keys are 00000000, 00000001, ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(path), map_size=1 << 26) as environment, environment.begin(write=True) as transaction:
        for number, record in enumerate(records):
            transaction.put(b"%08d" % number, record)
    return path


def write_tar(path: pathlib.Path, files: Mapping[str, bytes]) -> pathlib.Path:
    """A tar of files."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def read(source: Source, partition: int = 0, partitions: int = 1, bad: BadRecords | None = None) -> dict[str, list]:
    """The rows of a part by column, each an array, a number, or bytes."""
    rows: dict[str, list] = {column.name: [] for column in source.columns}
    for chunk in source.read(partition, partitions, bad or BadRecords()):
        assert len({len(values) for values in chunk.values()}) == 1
        for column in source.columns:
            values = chunk[column.name]
            assert column.encoded or (values.dtype.name, values.shape[1:]) == (column.dtype, column.shape)
            rows[column.name] += list(values)
    return rows


def parts_of(source: Source, partitions: int) -> list[dict[str, list]]:
    """All parts, each of which was read twice and was the same."""
    parts = [read(source, partition, partitions) for partition in range(partitions)]
    for partition, rows in enumerate(parts):
        again = read(source, partition, partitions)
        assert [np.asarray(x).tobytes() for name in rows for x in rows[name]] == [
            np.asarray(x).tobytes() for name in again for x in again[name]
        ]
    return parts
