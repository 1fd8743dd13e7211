"""Databases and mean images are to the byte those that Caffe's own tools wrote (the shared material)."""

import pathlib
import tarfile

import numpy as np
import pytest
from shared import shared

from sparknet_dsl.caffe_ext.database import open_database, pixels_of, read_datum
from sparknet_dsl.runtime.prepare.convert import Options, convert
from sparknet_dsl.runtime.prepare.mean import mean
from sparknet_dsl.runtime.prepare.pixels import Pixelwork
from sparknet_dsl.runtime.prepare.reading import open_input

INTEROP = "golden/interop"


def records(path: pathlib.Path) -> list[tuple[bytes, bytes]]:
    backend = "LMDB" if (path / "data.mdb").exists() else "LEVELDB"
    with open_database(path, backend) as database:
        return list(database)


@pytest.fixture
def cifar(tmp_path: pathlib.Path) -> pathlib.Path:
    """The image files that convert_imageset was given: its --encoded database holds them as they were."""
    for key, value in records(shared(INTEROP) / "cifar_jpg_lmdb"):
        file = tmp_path / "files" / key.decode().partition("_")[2]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(read_datum(value).data)
    return tmp_path / "files"


@pytest.fixture
def imagenet(tmp_path: pathlib.Path) -> pathlib.Path:
    for tar in sorted(shared("data/imagenet").glob("*.tar")):
        with tarfile.open(tar) as archive:
            archive.extractall(tmp_path / "files", filter="data")
    return tmp_path / "files"


@pytest.mark.parametrize(
    ("name", "format", "options"),
    [
        ("cifar_raw_lmdb", "lmdb", Options(encoding="raw")),
        ("cifar_jpg_lmdb", "lmdb", Options()),
        ("cifar_rawlog_leveldb", "leveldb", Options(encoding="raw")),
        ("cifar_gray_leveldb", "leveldb", Options(encoding="raw", gray=True)),
    ],
)
def test_convert_imageset(
    name: str, format: str, options: Options, tmp_path: pathlib.Path, cifar: pathlib.Path
) -> None:
    listed = shared(f"{INTEROP}/{name}.list.txt")
    convert(f"images:{listed}?root={cifar}/", f"{format}:{tmp_path / 'db'}", options)
    assert records(tmp_path / "db") == records(shared(f"{INTEROP}/{name}"))


def test_convert_imageset_resizes(imagenet: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Of the files that it was given some are in the sample."""
    lines = shared(f"{INTEROP}/imagenet_24x32_leveldb.list.txt").read_text().splitlines()
    here = [line for line in lines if (imagenet / line.split()[0]).exists()]
    (tmp_path / "list.txt").write_text("\n".join(here))
    convert(f"images:{tmp_path / 'list.txt'}?root={imagenet}/", f"leveldb:{tmp_path / 'db'}", Options(size=(24, 32)))
    want = {key[9:]: value for key, value in records(shared(f"{INTEROP}/imagenet_24x32_leveldb"))}
    found = records(tmp_path / "db")
    assert len(found) >= 4
    assert [key for key, _ in found] == [b"%08d_" % row + line.split()[0].encode() for row, line in enumerate(here)]
    assert [value for _, value in found] == [want[key[9:]] for key, _ in found]


def test_convert_imageset_encodes(cifar: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Another OpenCV packs PNGs in other bytes, of the same pixels."""
    listed = shared(f"{INTEROP}/cifar_png_lmdb.list.txt")
    convert(f"images:{listed}?root={cifar}/", f"lmdb:{tmp_path / 'db'}", Options(encoding="png"))
    found, want = records(tmp_path / "db"), records(shared(f"{INTEROP}/cifar_png_lmdb"))
    assert [key for key, _ in found] == [key for key, _ in want]
    for (_, ours), (_, theirs) in zip(found, want, strict=True):
        mine, caffes = read_datum(ours), read_datum(theirs)
        np.testing.assert_array_equal(pixels_of(mine), pixels_of(caffes))
        for datum in (mine, caffes):
            assert datum.data.startswith(b"\x89PNG")
            datum.ClearField("data")
        assert mine.SerializeToString() == caffes.SerializeToString()


@pytest.mark.parametrize("to", ["lmdb", "leveldb"])
@pytest.mark.parametrize(
    "name",
    [
        "cifar_raw_lmdb",
        "cifar_jpg_lmdb",
        "cifar_png_lmdb",
        "float_lmdb",
        "cifar_gray_leveldb",
        "cifar_rawlog_leveldb",
        "imagenet_24x32_leveldb",
    ],
)
def test_a_database_of_caffes_is_copied_as_it_is(name: str, to: str, tmp_path: pathlib.Path) -> None:
    source = shared(f"{INTEROP}/{name}")
    convert(f"{name.rpartition('_')[2]}:{source}", f"{to}:{tmp_path / 'db'}", Options())
    assert records(tmp_path / "db") == records(source)


def test_convert_mnist_data(tmp_path: pathlib.Path) -> None:
    """As create_mnist.sh has it: keys of eight digits, and nothing in a Datum but its sizes, pixels and label."""
    source = shared("data/mnist")
    convert(f"mnist:{source}", f"lmdb:{tmp_path / 'db'}", Options(phase="TEST"))
    found = records(tmp_path / "db")
    assert [key for key, _ in found] == [b"%08d" % row for row in range(10_000)]
    fields = [field.name for field, _ in read_datum(found[0][1]).ListFields()]
    assert fields == ["channels", "height", "width", "data", "label"]
    labels = [read_datum(value).label for _, value in found[:10]]
    assert labels == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]  # as everybody knows who has seen MNIST


@pytest.mark.parametrize(
    ("database", "file"),
    [("lmdb:cifar_raw_lmdb", "mean.binaryproto"), ("leveldb:imagenet_24x32_leveldb", "mean_rect.binaryproto")],
)
def test_compute_image_mean(database: str, file: str, tmp_path: pathlib.Path) -> None:
    folder = shared(INTEROP)
    found = mean(open_input(database.replace(":", f":{folder}/"), "TRAIN", "fail"), Pixelwork())
    found.save(str(tmp_path / "mean"))
    assert (tmp_path / "mean").read_bytes() == (folder / file).read_bytes()
    np.testing.assert_allclose(found.channels, found.image.mean(axis=(1, 2)), rtol=1e-6)
