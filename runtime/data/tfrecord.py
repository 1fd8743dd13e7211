"""`tfrecord:PLACE`: TFRecord files of tf.train.Example messages, one, a folder or a pattern; without TensorFlow.

A record is its length (8 bytes, little endian) and that one's checksum, its bytes and their checksum: CRC-32C, masked
(https://www.tensorflow.org/tutorials/load_data/tfrecord). Features of one value are numbers, of more lists, bytes as
in other tables; the first records say which there are. Whole files are dealt out, of the rest every so many-th record.
"""

import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

from google.protobuf.message import DecodeError

from ...errors import DataError
from ...proto.example_pb2 import Example
from .arrow import is_image, typed
from .base import CHUNK, CHUNK_BYTES, BadRecords, Phase, SourceURI
from .dealing import Turns, deal
from .places import Found, find, open_place, shown
from .tables import EXTRA, Batch, Table, require_pyarrow

# Record files have no name of their own: `train-00000-of-00128` is as usual as `.tfrecord`.
HEADER, FOOTER = 12, 4
PEEK = 64


class Record(NamedTuple):
    """A record's number in its file, and its bytes; None: the checksum is another."""

    number: int
    content: bytes | None


class TFRecord(Table):
    """The records of TFRecord files; columns are the features of the first ones, images first, then by name."""

    def __init__(self, uri: SourceURI, phase: Phase) -> None:
        del phase
        require_pyarrow(uri.scheme)
        try:
            import google_crc32c  # noqa: F401
        except ImportError as error:
            raise DataError(f"`tfrecord:` takes google-crc32c: {EXTRA}") from error
        if not uri.path:
            raise DataError("`tfrecord:` wants files, tfrecord:FOLDER or tfrecord:s3://bucket/train-*")
        self._files = find(uri.path)
        examples = _first(self._files)
        if not examples:
            raise DataError(f"{shown(uri.path)} has no record that can be read")
        self._texts = frozenset(name.partition(":")[0].strip() for name in uri.options.get("classes", "").split(","))
        if "label" in uri.options and "label" in self._texts:
            self._texts |= {uri.options["label"]}
        self._fields = self._found(examples)
        super().__init__(uri, self._batch(examples, list(self._fields)))

    def batches(self, partition: int, partitions: int, bad: BadRecords) -> Iterator[Batch]:
        """Reads as `Table.batches` says."""
        turns = Turns(partition, partitions)
        needed = self.needed()
        for file, shared in deal(self._files, partition, partitions):
            taken: list[tuple[int, Any]] = []
            size = 0
            for number, example, length in _examples(file, turns, shared, bad):
                taken.append((number, example))
                size += length
                if len(taken) == CHUNK or size > CHUNK_BYTES:
                    yield self._taken_batch(file.place, taken, needed)
                    taken, size = [], 0
            if taken:
                yield self._taken_batch(file.place, taken, needed)

    def _taken_batch(self, place: str, taken: Sequence[tuple[int, Any]], needed: Sequence[str]) -> Batch:
        rows = self._batch([example for _, example in taken], needed)
        return Batch(rows, lambda row: _key(place, taken[row][0]))

    def _found(self, examples: Sequence[Any]) -> dict[str, Any]:
        """Each feature's Arrow type, as the first records have it."""
        import pyarrow as pa

        kinds = {"int64_list": pa.int64(), "float_list": pa.float32(), "bytes_list": pa.binary()}
        types: dict[str, Any] = {}
        images = set()
        for example in examples:
            for name, feature in example.features.feature.items():
                kind = feature.WhichOneof("kind")
                if name in types or kind is None:
                    continue
                values = getattr(feature, kind).value
                types[name] = pa.string() if name in self._texts and kind == "bytes_list" else kinds[kind]
                if len(values) != 1:
                    types[name] = pa.list_(types[name])
                elif kind == "bytes_list" and is_image(values[0]):
                    images.add(name)
        return {name: types[name] for name in sorted(types, key=lambda name: (name not in images, name))}

    def _batch(self, examples: Sequence[Any], names: Sequence[str]) -> Any:
        import pyarrow as pa

        columns = []
        for name in names:
            values = [_values(example, name) for example in examples]
            type = self._fields[name]
            if not pa.types.is_list(type):
                # Of another number of values, or none: a null, which is a bad record.
                values = [value[0] if value is not None and len(value) == 1 else None for value in values]
            columns.append(typed(values, type))
        return pa.record_batch(columns, list(names))


def _first(files: Sequence[Found]) -> list[Any]:
    ignored = BadRecords("skip")
    found = (example for file in files for _, example, _ in _examples(file, Turns(0, 1), False, ignored))
    return list(itertools.islice(found, PEEK))


def _examples(file: Found, turns: Turns, shared: bool, bad: BadRecords) -> Iterator[tuple[int, Any, int]]:
    """Number, message and bytes of each record whose turn it is and that is whole; the others go to `bad`."""
    for number, content in _records(file, turns, shared):
        if content is None:
            bad.add(_key(file.place, number), "its checksum is another: the record is damaged")
            continue
        try:
            yield number, Example.FromString(content), len(content)
        except DecodeError:
            bad.add(_key(file.place, number), "it is no tf.train.Example")


def _records(file: Found, turns: Turns, shared: bool) -> Iterator[Record]:
    """The records of a file whose turn it is. Raises DataError for a file that is no such file, or cut short."""
    with open_place(file.place) as stream:
        number = position = 0
        while position < file.size:
            length = _length(stream, file, position, number)
            position += HEADER + length + FOOTER
            if position > file.size:
                raise DataError(
                    f"{shown(file.place)} is cut short: record {number:,} ends at byte {position:,}, the file at "
                    f"{file.size:,}; copy it again"
                )
            if turns.take(1, shared):
                content = stream.read(length)
                checksum = stream.read(FOOTER)
                whole = len(checksum) == FOOTER and struct.unpack("<I", checksum)[0] == _masked(content)
                yield Record(number, content if whole else None)
            else:
                stream.seek(position)
            number += 1


def _length(stream: BinaryIO, file: Found, position: int, number: int) -> int:
    header = stream.read(HEADER)
    if len(header) == HEADER:
        length, checksum = struct.unpack("<QI", header)
        if checksum == _masked(header[:8]):
            return int(length)
    if header.startswith(b"\x1f\x8b"):
        raise DataError(f"{shown(file.place)} is compressed: unpack it (gunzip) first")
    what = "is no TFRecord file" if number == 0 else f"is damaged at byte {position:,}, record {number:,}"
    raise DataError(f"{shown(file.place)} {what}: the length's checksum is another; write or copy it again")


def _masked(content: bytes) -> int:
    import google_crc32c

    crc = int(google_crc32c.value(content))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _values(example: Any, name: str) -> Any:
    if name not in example.features.feature:
        return None
    feature = example.features.feature[name]
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else None


def _key(place: str, number: int) -> str:
    return f"{shown(place)}, record {number:,}"
