"""WebDataset's tars: samples of files, whole tars or every so many-th sample to each part."""

import io
import pathlib
import tarfile

import cv2
import numpy as np
import pytest

from sparknet_dsl.errors import DataError
from sparknet_dsl.runtime.data import BadRecords, Source, open_source

pytest.importorskip("pyarrow")


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write(path: pathlib.Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def samples(start: int, count: int) -> dict[str, bytes]:
    files = {}
    for n in range(start, start + count):
        files[f"train/{n:04}.jpg"] = jpeg(n)
        files[f"train/{n:04}.cls"] = b"%d\n" % (n % 3)
        files[f"train/{n:04}.box.npy"] = npy(np.array([n, 0.5]))
        files[f"train/{n:04}.txt"] = b"cat" if n % 2 else b"dog"
    return files


def read(
    source: Source, partition: int = 0, partitions: int = 1, bad: BadRecords | None = None
) -> dict[str, np.ndarray]:
    chunks = list(source.read(partition, partitions, bad or BadRecords()))
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def test_extensions_become_columns(tmp_path):
    write(tmp_path / "a.tar", samples(0, 20))
    source = open_source(f"webdataset:{tmp_path}/a.tar?classes=txt:dog|cat", "TRAIN")
    assert [(column.name, column.dtype, column.shape) for column in source.columns] == [
        ("image", "encoded", (3, 0, 0)),
        ("box.npy", "float32", (2,)),
        ("txt", "int64", ()),
        ("label", "int64", ()),
    ]
    rows = read(source)
    assert rows["image"].tolist() == [jpeg(n) for n in range(20)]
    assert rows["label"].tolist() == [n % 3 for n in range(20)]
    np.testing.assert_array_equal(rows["box.npy"], [[n, 0.5] for n in range(20)])
    assert rows["txt"].tolist() == [n % 2 for n in range(20)]


@pytest.mark.parametrize(("tars", "partitions"), [(1, 3), (2, 2), (5, 3)])
def test_every_sample_is_read_once(tmp_path, tars, partitions):
    for index in range(tars):
        write(tmp_path / f"train-{index:03}.tar", samples(index * 10, 10))
    uri = f"webdataset:{tmp_path}/train-{{000..{tars - 1:03}}}.tar?columns=box.npy,label"
    parts = [read(open_source(uri, "TRAIN"), part, partitions)["box.npy"][:, 0] for part in range(partitions)]
    assert sorted(np.concatenate(parts)) == list(range(10 * tars))


def test_samples_that_lack_something_are_bad(tmp_path):
    files = samples(0, 20)
    del files["train/0003.cls"]
    files["train/0005.cls"] = b"one"
    files["train/0007.jpg"] = files["train/0007.jpg"][:-30]
    files["train/.DS_Store"] = b"x"
    write(tmp_path / "a.tar", files)
    bad = BadRecords("skip")
    rows = read(open_source(f"webdataset:{tmp_path}?columns=image,label", "TRAIN"), bad=bad)
    assert len(rows["label"]) == 17
    assert [each.key for each in bad.first] == [f"train/{n:04} in {tmp_path}/a.tar" for n in (3, 5, 7)]
    assert [each.reason for each in bad.first[:2]] == ["`label` is null"] * 2


@pytest.mark.parametrize(
    ("how", "message"),
    [("cut", "is cut short"), ("noise", "is no tar"), ("empty", "holds no files"), ("none", "no file ending in")],
)
def test_a_damaged_tar_is_one_clear_error(tmp_path, how, message):
    write(tmp_path / "a.tar", {} if how == "empty" else samples(0, 30))
    content = (tmp_path / "a.tar").read_bytes()
    if how == "cut":
        (tmp_path / "a.tar").write_bytes(content[:-20_000])
    elif how == "noise":
        (tmp_path / "a.tar").write_bytes(b"<html>404 not found</html>" * 50)
    elif how == "none":
        (tmp_path / "a.tar").unlink()
    with pytest.raises(DataError, match=message):
        read(open_source(f"webdataset:{tmp_path}?columns=label", "TRAIN"))
