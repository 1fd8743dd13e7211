"""TFRecord files, written as their format says, and damaged ones."""

import pathlib
import struct
from typing import Any

import cv2
import numpy as np
import pytest

from sparknet_dsl.errors import DataError
from sparknet_dsl.proto.example_pb2 import Example
from sparknet_dsl.runtime.data import BadRecords, Source, open_source

pytest.importorskip("pyarrow")
crc32c = pytest.importorskip("google_crc32c")


def masked(content: bytes) -> bytes:
    crc = crc32c.value(content)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def framed(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + masked(length) + content + masked(content)


def example(**features: Any) -> bytes:
    message = Example()
    for name, values in features.items():
        values = values if isinstance(values, list) else [values]
        feature = message.features.feature[name.replace("__", "/")]
        kind = {int: feature.int64_list, float: feature.float_list, bytes: feature.bytes_list}[type(values[0])]
        kind.value.extend(values)
    return message.SerializeToString()


def png(seed: int) -> bytes:
    return cv2.imencode(".png", np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8))[1].tobytes()


def write(path: pathlib.Path, count: int = 30, start: int = 0) -> list[bytes]:
    records = [
        framed(
            example(image__encoded=png(n), image__class__label=n, box=[0.5, float(n)], text=b"cat" if n % 2 else b"dog")
        )
        for n in range(start, start + count)
    ]
    path.write_bytes(b"".join(records))
    return records


def read(
    source: Source, partition: int = 0, partitions: int = 1, bad: BadRecords | None = None
) -> dict[str, np.ndarray]:
    chunks = list(source.read(partition, partitions, bad or BadRecords()))
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def test_the_checksum_is_the_one_of_the_format():
    # CRC-32C of 32 zero bytes, as RFC 3720 (B.4) has it.
    assert crc32c.value(bytes(32)) == 0x8A9136AA


def test_features_become_columns(tmp_path):
    write(tmp_path / "train-00000-of-00001")
    source = open_source(f"tfrecord:{tmp_path}?label=image/class/label&classes=text:dog|cat", "TRAIN")
    assert [(column.name, column.dtype, column.shape) for column in source.columns] == [
        ("image/encoded", "encoded", (3, 0, 0)),
        ("box", "float32", (2,)),
        ("text", "int64", ()),
        ("label", "int64", ()),
    ]
    rows = read(source)
    assert rows["image/encoded"].tolist() == [png(n) for n in range(30)]
    assert rows["label"].tolist() == list(range(30))
    np.testing.assert_array_equal(rows["box"], [[0.5, n] for n in range(30)])
    assert rows["text"].tolist() == [n % 2 for n in range(30)]


@pytest.mark.parametrize(("files", "partitions"), [(1, 3), (2, 2), (3, 2), (5, 3)])
def test_every_record_is_read_once(tmp_path, files, partitions):
    for index in range(files):
        write(tmp_path / f"part-{index}", 30, index * 30)
    source = open_source(f"tfrecord:{tmp_path}/part-*?columns=image/class/label", "TRAIN")
    parts = [read(source, part, partitions)["image/class/label"] for part in range(partitions)]
    assert sorted(np.concatenate(parts)) == list(range(files * 30))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= (1 if files <= partitions or files % partitions else 0)


def test_records_that_are_damaged_are_bad(tmp_path):
    records = write(tmp_path / "x")
    records[3] = records[3][:-5] + bytes([records[3][-5] ^ 1]) + records[3][-4:]
    records[5] = framed(b"\xff\xff\xff")
    records[7] = framed(example(image__encoded=png(7), image__class__label=[1, 2], box=[0.5, 1.0], text=b"x"))
    records[9] = framed(example(image__encoded=png(7)[:-9], image__class__label=1, box=[0.5, 1.0], text=b"cat"))
    records[11] = framed(example(image__encoded=png(7), image__class__label=b"one", box=[0.5, 1.0], text=b"cat"))
    (tmp_path / "x").write_bytes(b"".join(records))
    bad = BadRecords("skip")
    rows = read(open_source(f"tfrecord:{tmp_path}/x?columns=image/encoded,image/class/label", "TRAIN"), bad=bad)
    assert rows["image/class/label"].tolist() == [n for n in range(30) if n not in (3, 5, 7, 9, 11)]
    reasons = {each.key.rpartition(" ")[2]: each.reason for each in bad.first}
    assert "checksum" in reasons["3"] and "no tf.train.Example" in reasons["5"]
    assert reasons["7"] == reasons["11"] == "`image/class/label` is null"
    assert "image" in reasons["9"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut", r"x is cut short: record 29 ends at byte [\d,]+, the file at"),
        ("noise", "x is no TFRecord file: the length's checksum is another"),
        ("gzip", r"x is compressed: unpack it \(gunzip\) first"),
        ("middle", r"x is damaged at byte [\d,]+, record 4"),
        ("empty", "has no record that can be read"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, how, message):
    records = write(tmp_path / "x")
    whole = b"".join(records)
    at = len(b"".join(records[:4]))
    content = {
        "cut": whole[:-3],
        "noise": b"<html>404 not found</html>",
        "gzip": b"\x1f\x8b\x08" + bytes(30),
        "middle": whole[:at] + b"\xff" + whole[at + 1 :],
        "empty": b"",
    }[how]
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(open_source(f"tfrecord:{tmp_path}/x", "TRAIN"))
