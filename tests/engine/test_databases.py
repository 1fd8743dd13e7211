"""Caffe's databases and images: what Caffe's own tools wrote, and what is damaged."""

import json
import os
import pathlib
import shutil
from typing import Any

import cv2
import lmdb
import numpy as np
import plyvel
import pytest
from shared import shared, shared_names

from sparknet_dsl.caffe_ext.database import open_database, pixels_of, read_datum
from sparknet_dsl.caffe_ext.images import decode, read_image
from sparknet_dsl.errors import DataError
from sparknet_dsl.proto import caffe_pb2


def databases() -> list[str]:
    return [*shared_names("golden/interop", "*_lmdb"), *shared_names("golden/interop", "*_leveldb")]


@pytest.mark.parametrize("name", databases())
def test_caffes_databases(name: str) -> None:
    folder = shared("golden/interop")
    meta: dict[str, Any] = json.loads((folder / "index.json").read_text())["databases"][name]
    before = {file.name: file.read_bytes() for file in (folder / name).iterdir()}
    with np.load(folder / meta["expected"]) as want, open_database(folder / name, meta["backend"].upper()) as database:
        keys = []
        for i, (key, value) in enumerate(database):
            datum = read_datum(value)
            pixels = pixels_of(datum)
            keys.append(key.decode())
            np.testing.assert_array_equal(pixels, want["data"][i])
            assert datum.label == want["label"][i]
            assert pixels.dtype == (np.float32 if meta.get("float_data") else np.uint8)
        assert keys == meta["keys"]
        assert [key.decode() for key, _ in database] == keys  # from the first on again
    assert {file.name: file.read_bytes() for file in (folder / name).iterdir()} == before


def write_lmdb(path: pathlib.Path, values: list[bytes]) -> None:
    with lmdb.open(str(path), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for i, value in enumerate(values):
            transaction.put(b"%05d" % i, value)


def write_leveldb(path: pathlib.Path, values: list[bytes]) -> None:
    with plyvel.DB(str(path), create_if_missing=True, write_buffer_size=1 << 16) as database:
        for i, value in enumerate(values):
            database.put(b"%05d" % i, value)


def test_lmdb_files_are_read_as_lmdb_reads_them(tmp_path: pathlib.Path) -> None:
    """Trees of several levels, records of all sizes, some of them deleted or overwritten."""
    random = np.random.default_rng(0)
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 26) as environment:
        for turn in range(4):
            with environment.begin(write=True) as transaction:
                for i in random.integers(0, 10**6, 900):
                    size = int(
                        random.choice([0, 1, 60, 2000, 2037, 5000, 20000], p=[0.1, 0.2, 0.4, 0.1, 0.1, 0.05, 0.05])
                    )
                    transaction.put(b"%d" % i, random.bytes(size))
                if turn:
                    for key in [key for key, _ in transaction.cursor()][::3]:
                        transaction.delete(key)
        with environment.begin() as transaction:
            assert environment.stat()["depth"] >= 3
            want = list(transaction.cursor())
    with open_database(tmp_path / "db", "LMDB") as database:
        assert list(database) == want


def test_any_damage_to_an_lmdb_is_a_data_error(tmp_path: pathlib.Path) -> None:
    write_lmdb(tmp_path / "db", [bytes(5000 if i % 40 == 0 else 200) for i in range(120)])
    file = tmp_path / "db" / "data.mdb"
    whole = file.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        # Mostly where pages have their headers.
        places = 4096 * random.integers(0, len(whole) // 4096, 3) + random.integers(0, 40, 3)
        spoilt = bytearray(whole)
        for place in places:
            spoilt[place] = random.integers(256)
        file.write_bytes(spoilt)
        try:
            read_all(tmp_path / "db", "LMDB")
        except DataError as error:
            refused += 1
            assert str(file) in str(error)
    assert refused > 75


WRITERS = {"LMDB": write_lmdb, "LEVELDB": write_leveldb}


@pytest.mark.parametrize("backend", WRITERS)
def test_read_twice_at_once(backend: str, tmp_path: pathlib.Path) -> None:
    values = [bytes([i]) * 100 for i in range(50)]
    WRITERS[backend](tmp_path / "db", values)
    with open_database(tmp_path / "db", backend) as first, open_database(tmp_path / "db", backend) as second:
        ahead = iter(first)
        next(ahead)
        assert [value for _, value in second] == values
        assert [value for _, value in ahead] == values[1:]


def test_a_stand_in_goes_away(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_leveldb(tmp_path / "db", [b"x" * 1000] * 200)  # tables and a log
    assert {".ldb", ".log"} <= {file.suffix for file in (tmp_path / "db").iterdir()}
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names = set((tmp_path / "db").iterdir())
    with open_database(tmp_path / "db", "LEVELDB") as database:
        assert len(list(tmp_path.iterdir())) == 2
        assert sum(1 for _ in database) == 200
    assert [path.name for path in tmp_path.iterdir()] == ["db"]
    assert set((tmp_path / "db").iterdir()) == names


def read_all(path: pathlib.Path, backend: str) -> int:
    with open_database(path, backend) as database:
        return sum(1 for _ in database)


def test_no_database(tmp_path: pathlib.Path) -> None:
    with pytest.raises(
        DataError, match=r"there is no database .*absent: the path is relative to the working directory"
    ):
        read_all(tmp_path / "absent", "LMDB")
    with pytest.raises(DataError, match=r"is no LMDB database; data\.mdb is missing"):
        read_all(tmp_path, "LMDB")
    write_lmdb(tmp_path / "l", [b"x"])
    # LEVELDB is the default, and so the usual mistake.
    with pytest.raises(DataError, match="is no LEVELDB database; it looks like LMDB: write backend: LMDB"):
        read_all(tmp_path / "l", "LEVELDB")
    (tmp_path / "data.mdb").write_bytes(b"nothing of the kind" * 1000)
    with pytest.raises(DataError, match=r"data\.mdb is no LMDB file"):
        read_all(tmp_path, "LMDB")
    with lmdb.open(str(tmp_path / "several"), max_dbs=1) as environment:
        environment.open_db(b"name")
    with pytest.raises(DataError, match="a record has the flags 0x2"):
        read_all(tmp_path / "several", "LMDB")
    content = bytearray((tmp_path / "l" / "data.mdb").read_bytes())
    for page in (0, 4096):
        content[page + 92] = 4  # several values to a key
    (tmp_path / "l" / "data.mdb").write_bytes(content)
    with pytest.raises(DataError, match="of another kind than Caffe's: its flags are 0x4"):
        read_all(tmp_path / "l", "LMDB")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_lmdb(share: float, tmp_path: pathlib.Path) -> None:
    write_lmdb(tmp_path / "db", [bytes([i]) * 3000 for i in range(30)])
    file = tmp_path / "db" / "data.mdb"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(
        DataError,
        match=r"data\.mdb is (cut short: it has \d+ bytes of \d+; copy it again|no LMDB file, or is cut short)",
    ):
        read_all(tmp_path / "db", "LMDB")


def test_a_damaged_leveldb(tmp_path: pathlib.Path) -> None:
    write_leveldb(tmp_path / "db", [os.urandom(1000) for _ in range(200)])
    [table, *_] = sorted((tmp_path / "db").glob("*.ldb"))
    whole = bytearray(table.read_bytes())
    whole[5000] ^= 0xFF
    table.write_bytes(whole)
    with pytest.raises(
        DataError, match=r"the LevelDB .*db is damaged: .*Corruption|is damaged: .*block checksum mismatch"
    ):
        read_all(tmp_path / "db", "LEVELDB")
    table.unlink()
    with pytest.raises(DataError, match=r"cannot open the LevelDB .*db: .*missing files"):
        read_all(tmp_path / "db", "LEVELDB")
    shutil.rmtree(tmp_path / "db")
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "CURRENT").write_bytes(b"MANIFEST-000009\n")
    with pytest.raises(DataError, match=f"cannot open the LevelDB {tmp_path / 'db'}"):
        read_all(tmp_path / "db", "LEVELDB")


@pytest.mark.parametrize("size", [100, 12_000])
@pytest.mark.parametrize("missing", [1, 37, 90])
def test_a_leveldb_with_a_log_cut_short(size: int, missing: int, tmp_path: pathlib.Path) -> None:
    write_leveldb(tmp_path / "db", [os.urandom(size) for _ in range(5)])  # all in the log
    assert read_all(tmp_path / "db", "LEVELDB") == 5
    [log] = (tmp_path / "db").glob("*.log")
    log.write_bytes(log.read_bytes()[:-missing])
    with pytest.raises(DataError, match=r"\.log is cut short: its last record is not whole; copy the database again"):
        read_all(tmp_path / "db", "LEVELDB")


def test_a_leveldb_with_a_manifest_cut_short(tmp_path: pathlib.Path) -> None:
    write_leveldb(tmp_path / "db", [os.urandom(1000) for _ in range(200)])
    [manifest] = (tmp_path / "db").glob("MANIFEST-*")
    manifest.write_bytes(manifest.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"MANIFEST-\d+ is cut short"):
        read_all(tmp_path / "db", "LEVELDB")


def encoded(image: np.ndarray, kind: str = ".png") -> bytes:
    return cv2.imencode(kind, image)[1].tobytes()


def test_encoded_datums_take_their_channels_from_the_file() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    color = caffe_pb2.Datum(encoded=True, data=encoded(image))
    gray = caffe_pb2.Datum(encoded=True, data=encoded(image[:, :, 0]))
    np.testing.assert_array_equal(pixels_of(color), image.transpose(2, 0, 1))
    np.testing.assert_array_equal(pixels_of(gray), image[None, :, :, 0])
    assert pixels_of(color, color=False).shape == (1, 4, 5)
    np.testing.assert_array_equal(pixels_of(gray, color=True), np.stack([image[:, :, 0]] * 3))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"\xff", "no Datum, or is damaged"),
        (b"", "has 0 values for 0 × 0 × 0"),
        (caffe_pb2.Datum(channels=1, height=2, width=2, data=b"123").SerializeToString(), "has 3 values for 1 × 2 × 2"),
        (caffe_pb2.Datum(channels=-1, height=-1, width=3, data=b"123").SerializeToString(), "3 values for -1 × -1 × 3"),
        (caffe_pb2.Datum(channels=1, height=1, width=2, float_data=[1]).SerializeToString(), "has 1 values"),
        (caffe_pb2.Datum(encoded=True, data=b"\xff\xd8\xff\xe0 no picture").SerializeToString(), "cannot be decoded"),
        (caffe_pb2.Datum(encoded=True).SerializeToString(), "cannot be decoded: it is damaged, or no image"),
        (caffe_pb2.Datum(encoded=True, data=encoded(np.ones((2, 2), np.uint16))).SerializeToString(), "has 16 bits"),
    ],
)
def test_records_that_are_none(value: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        pixels_of(read_datum(value))


def test_images(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a b.png"
    image = np.random.default_rng(1).integers(0, 256, (6, 4, 3), np.uint8)
    path.write_bytes(encoded(image))
    np.testing.assert_array_equal(read_image(path), image.transpose(2, 0, 1))
    assert read_image(path, color=False).shape == (1, 6, 4)
    # Halving by bilinear interpolation is the mean of 2 × 2 pixels.
    half = read_image(path, height=3, width=2).astype(int)
    mean = image.reshape(3, 2, 2, 2, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    assert np.abs(half - mean).max() <= 0.5
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match=r"a b\.png: the image cannot be decoded"):
        read_image(path)
    with pytest.raises(DataError, match=r"cannot read the image .*absent"):
        read_image(tmp_path / "absent")
    with pytest.raises(DataError, match="cannot be decoded"):
        decode(b"")
