"""Caffe's databases as sources: what Caffe's own tools wrote, each worker's share, and whatever is damaged."""

import json
import pathlib
import pickle

import numpy as np
import plyvel
import pytest
from shared import shared
from source_files import coded, datum, noise, parts_of, read, write_lmdb

from sparknet_dsl.caffe_ext.images import decode
from sparknet_dsl.errors import DataError
from sparknet_dsl.runtime.data import BadRecords, open_source


@pytest.mark.parametrize(
    "name",
    ["cifar_gray_leveldb", "cifar_jpg_lmdb", "cifar_png_lmdb", "cifar_raw_lmdb", "cifar_rawlog_leveldb", "float_lmdb"],
)
@pytest.mark.parametrize("partitions", [1, 3])
def test_caffes_own_databases(name, partitions):
    expected = np.load(shared(f"golden/interop/{name}.expected.npz"))
    kind = json.loads(shared("golden/interop/index.json").read_text())["databases"][name]
    source = pickle.loads(pickle.dumps(open_source(f"{kind['backend']}:{shared('golden/interop') / name}", "TRAIN")))
    for partition, rows in enumerate(parts_of(source, partitions)):
        images = [decode(image, None) for image in rows["image"]] if source.columns[0].encoded else rows["image"]
        np.testing.assert_array_equal(images, expected["data"][partition::partitions])
        np.testing.assert_array_equal(rows["label"], expected["label"][partition::partitions])


def test_encoded_images_are_kept_or_resized(tmp_path):
    images = [coded(image) for image in (*noise(2), *noise(2, (3, 20, 14)))]
    place = write_lmdb(tmp_path / "db", [datum(image, label) for label, image in enumerate(images)])
    kept = open_source(f"lmdb:{place}", "TRAIN")
    assert (kept.columns[0].shape, kept.columns[0].first) == ((0, 0, 0), (3, 10, 12))
    assert read(kept)["image"] == images
    resized = open_source(f"lmdb:{place}?resize=8x6&gray=true", "TRAIN")
    assert resized.columns[0][1:3] == ("uint8", (1, 8, 6))
    np.testing.assert_array_equal(read(resized)["image"], [decode(image, False, (8, 6)) for image in images])
    assert open_source(f"lmdb:{place}?color=true", "TRAIN").columns[0].shape == (3, 0, 0)


def test_only_the_share_of_a_worker_is_read(tmp_path, monkeypatch):
    import os

    images = noise(40, (3, 40, 40))
    place = write_lmdb(tmp_path / "db", [datum(image, 0) for image in images])
    source = open_source(f"lmdb:{place}", "TRAIN")
    taken = 0
    pread = os.pread

    def counting(*arguments):
        nonlocal taken
        content = pread(*arguments)
        taken += len(content)
        return content

    monkeypatch.setattr(os, "pread", counting)
    read(source, 1, 4)
    assert taken < 0.5 * sum(image.nbytes for image in images)


def test_bad_records_are_told_by_their_keys(tmp_path):
    good = coded(noise(1)[0])
    jpeg = coded(noise(1)[0], ".jpg")
    records = [
        datum(good, 0),
        datum(jpeg[:-40], 1),
        b"\x0a",
        datum(noise(1)[0], 2),
        datum(b"no image", 3),
        datum(good, 4),
    ]
    source = open_source(f"lmdb:{write_lmdb(tmp_path / 'db', records)}", "TRAIN")
    bad = BadRecords("skip")
    assert read(source, bad=bad)["label"] == [0, 4]
    assert bad.count == 4
    found = {key.split()[1]: reason for key, reason in bad.first}
    assert "JPEG is cut short" in found["00000001"]
    assert "no Datum, or is damaged" in found["00000002"]
    assert "raw, and the first record encoded" in found["00000003"]
    assert "cannot be decoded" in found["00000004"]
    with pytest.raises(DataError, match=r"record 00000001 of .*/db: the JPEG is cut short: .*; --bad-records skip"):
        read(source)


def test_raw_records_of_other_shapes_are_bad(tmp_path):
    one, other = noise(1)[0], noise(1, (3, 9, 9))[0]
    records = [datum(one, 0), datum(other, 1), datum(one.astype(np.float32), 2), datum(coded(one), 3)]
    source = open_source(f"lmdb:{write_lmdb(tmp_path / 'db', records)}", "TRAIN")
    bad = BadRecords("skip")
    assert read(source, bad=bad)["label"] == [0]
    assert [reason for _, reason in bad.first] == [
        "it is uint8 3×9×9, and the first record uint8 3×10×12",
        "it is float32 3×10×12, and the first record uint8 3×10×12",
        "it is encoded, and the first record uint8 3×10×12",
    ]


def cut_short(place: pathlib.Path) -> None:
    data = place / "data.mdb"
    data.write_bytes(data.read_bytes()[:-4096])


@pytest.mark.parametrize(
    ("scheme", "records", "options", "message"),
    [
        ("lmdb", [], "", "holds no records"),
        ("lmdb", None, "", r"there is no database .*/db"),
        ("leveldb", [b""], "", "is no LEVELDB database; it looks like LMDB"),
        ("lmdb", [b"\x0a"], "", r"record 00000000 of lmdb:.*, which tells the shape of all: .* no Datum"),
        ("lmdb", ["raw"], "?resize=8", "only encoded images are resized as they are read, and this database has raw"),
        ("lmdb", ["raw"], "?resize=8by6", "resize=8by6: write resize=256, or resize=HEIGHTxWIDTH"),
        ("lmdb", ["raw"], "?gray=yes", "gray=yes: write gray=true or gray=false"),
        ("lmdb", ["raw"], "?grey=true", "`lmdb:` has no option `grey` .*: did you mean `gray`"),
    ],
)
def test_a_wrong_database_is_one_clear_error(tmp_path, scheme, records, options, message):
    if records is not None:
        write_lmdb(tmp_path / "db", [datum(noise(1)[0], 0) if each == "raw" else each for each in records])
    with pytest.raises(DataError, match=message) as caught:
        open_source(f"{scheme}:{tmp_path / 'db'}{options}", "TRAIN")
    assert "\n" not in str(caught.value)


def test_a_database_that_is_cut_short(tmp_path):
    place = write_lmdb(tmp_path / "db", [datum(image, 0) for image in noise(30, (3, 40, 40))])
    source = open_source(f"lmdb:{place}", "TRAIN")
    cut_short(place)
    for broken in (lambda: open_source(f"lmdb:{place}", "TRAIN"), lambda: read(source, bad=BadRecords("skip"))):
        with pytest.raises(DataError, match=r"data.mdb is cut short: it has \d+ bytes of \d+; copy it again"):
            broken()


def test_a_database_that_another_process_has_open(tmp_path):
    with plyvel.DB(str(tmp_path / "db"), create_if_missing=True) as database:
        database.put(b"0", datum(noise(1)[0], 7))
        assert read(open_source(f"leveldb:{tmp_path / 'db'}", "TRAIN"))["label"] == [7]


@pytest.mark.parametrize("scheme", ["lmdb", "leveldb"])
def test_databases_lie_here(scheme):
    with pytest.raises(DataError, match="read from a local path only: copy it to every worker"):
        open_source(f"{scheme}:s3://bucket/db", "TRAIN")
    with pytest.raises(DataError, match="wants a database"):
        open_source(f"{scheme}:", "TRAIN")
