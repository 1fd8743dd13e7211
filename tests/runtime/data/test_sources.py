"""Each source's rows, and each way in which its files can be wrong."""

import gzip
import pathlib
import pickle
import struct

import numpy as np
import pytest
from shared import shared

from sparknet_dsl.errors import DataError
from sparknet_dsl.runtime.data import BadRecords, Source, SourceURI, open_source, parse_uri


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: pathlib.Path, rows: int = 30, gzipped: bool = True) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {}
    for prefix in ("train", "t10k"):
        arrays[f"{prefix}-images-idx3-ubyte"] = rng.integers(0, 256, (rows, 28, 28), np.uint8)
        arrays[f"{prefix}-labels-idx1-ubyte"] = rng.integers(0, 10, rows, np.uint8)
    for name, array in arrays.items():
        if gzipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array), 1))
        else:
            (folder / name).write_bytes(idx(array))
    return arrays


def write_cifar10(folder: pathlib.Path) -> None:
    # Sparse files: black images of class 0, on no disk space.
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        with (folder / name).open("wb") as file:
            file.truncate(30_730_000)


def read(source: Source, partition: int = 0, partitions: int = 1) -> dict[str, np.ndarray]:
    pieces = list(source.read(partition, partitions, BadRecords()))
    return {column.name: np.concatenate([piece[column.name] for piece in pieces]) for column in source.columns}


def write_cifar100(folder: pathlib.Path) -> None:
    for name, rows in (("train.bin", 50_000), ("test.bin", 10_000)):
        with (folder / name).open("wb") as file:
            file.truncate(rows * 3074)


@pytest.fixture(params=["digits", "mnist", "cifar10", "cifar100"])
def uri(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> str:
    if request.param == "mnist":
        write_mnist(tmp_path)
    elif request.param == "cifar10":
        write_cifar10(tmp_path)
    elif request.param == "cifar100":
        write_cifar100(tmp_path)
    return f"{request.param}:" if request.param == "digits" else f"{request.param}:{tmp_path}"


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_a_source_gives_what_it_announces(uri, phase):
    source = pickle.loads(pickle.dumps(open_source(uri, phase)))
    columns = read(source)
    assert len({len(values) for values in columns.values()}) == 1
    for column in source.columns:
        assert columns[column.name].dtype == column.dtype
        assert columns[column.name].shape[1:] == column.shape


def test_parts_are_disjoint_and_hold_every_row(uri):
    source = open_source(uri, "TRAIN")
    whole, parts = read(source), [read(source, part, 3) for part in range(3)]
    for name, values in whole.items():
        again = np.empty_like(values)
        for part, columns in enumerate(parts):
            again[part::3] = columns[name]
        np.testing.assert_array_equal(again, values)
    sizes = [len(columns["label"]) for columns in parts]
    assert max(sizes) - min(sizes) <= 1


def test_digits_are_those_of_scikit_learn():
    train, test = (read(open_source("digits:", phase)) for phase in ("TRAIN", "TEST"))
    assert (len(train["label"]), len(test["label"])) == (1437, 360)
    from sklearn.datasets import load_digits

    whole = load_digits()
    got = {(i.tobytes(), int(y)) for c in (train, test) for i, y in zip(c["image"], c["label"], strict=True)}
    assert got == {(i.astype(np.uint8).tobytes(), int(y)) for i, y in zip(whole.images, whole.target, strict=True)}
    assert set(test["label"]) == set(range(10))


def test_digits_take_no_path():
    with pytest.raises(DataError, match="take no path"):
        open_source("digits:/data", "TRAIN")


@pytest.mark.parametrize("gzipped", [False, True])
def test_mnist_reads_the_files_of_the_phase(tmp_path, gzipped):
    arrays = write_mnist(tmp_path, gzipped=gzipped)
    for phase, prefix in (("TRAIN", "train"), ("TEST", "t10k")):
        columns = read(open_source(f"mnist:{tmp_path}", phase))
        np.testing.assert_array_equal(columns["image"][:, 0], arrays[f"{prefix}-images-idx3-ubyte"])
        np.testing.assert_array_equal(columns["label"], arrays[f"{prefix}-labels-idx1-ubyte"])


def test_the_real_mnist():
    columns = read(open_source(f"mnist:{shared('data/mnist')}", "TEST"))
    assert columns["image"].shape == (10_000, 1, 28, 28)
    assert list(columns["label"][:10]) == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_cifar10_keeps_the_planes_as_stored(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    write_cifar10(folder)
    rng = np.random.default_rng(1)
    records = rng.integers(0, 256, (3, 3073), np.uint8)
    records[:, 0] = 3, 9, 0
    with (folder / "data_batch_2.bin").open("r+b") as file:
        file.write(records.tobytes())
    for uri in (f"cifar10:{tmp_path}", f"cifar10:{folder}"):
        columns = read(open_source(uri, "TRAIN"))
        np.testing.assert_array_equal(columns["image"][10_000:10_003].reshape(3, -1), records[:, 1:])
        np.testing.assert_array_equal(columns["label"][10_000:10_003], [3, 9, 0])


def test_cifar100_has_both_labels(tmp_path):
    write_cifar100(tmp_path)
    records = np.random.default_rng(1).integers(0, 256, (3, 3074), np.uint8)
    records[:, 0] = 19, 0, 4
    records[:, 1] = 99, 5, 0
    with (tmp_path / "test.bin").open("r+b") as file:
        file.write(records.tobytes())
    columns = read(open_source(f"cifar100:{tmp_path}", "TEST"))
    np.testing.assert_array_equal(columns["image"][:3].reshape(3, -1), records[:, 2:])
    assert columns["label"][:3].tolist() == [99, 5, 0]
    assert columns["coarse_label"][:3].tolist() == [19, 0, 4]


def damage(path: pathlib.Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-5])
    elif how == "too long":
        path.write_bytes(path.read_bytes() + b"12345")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "noise":
        path.write_bytes(b"<html>404 not found</html>")


# What is done to which file -> what the message must say.
WRONG = [
    ("mnist", "train-images-idx3-ubyte", "missing", "there is no train-images-idx3-ubyte or train-images"),
    ("mnist", "train-images-idx3-ubyte", "truncated", "expected 23,536 bytes for 30×28×28, found 23,531"),
    ("mnist", "train-images-idx3-ubyte", "too long", "expected 23,536 bytes for 30×28×28, found 23,541"),
    ("mnist", "train-labels-idx1-ubyte", "empty", "expected at least the 8 bytes of a header, found 0"),
    ("mnist", "train-labels-idx1-ubyte", "noise", "no idx file of bytes with 1 axes"),
    ("mnist.gz", "train-images-idx3-ubyte.gz", "truncated", "cannot be unpacked"),
    ("mnist.gz", "train-labels-idx1-ubyte.gz", "noise", "cannot be unpacked"),
    ("mnist.gz", "train-labels-idx1-ubyte.gz", "empty", "expected at least the 8 bytes of a header, found 0"),
    ("cifar10", "data_batch_3.bin", "missing", "data_batch_3.bin does not exist"),
    ("cifar10", "data_batch_3.bin", "truncated", "expected 30,730,000 bytes .* found 30,729,995"),
    ("cifar10", "data_batch_3.bin", "empty", "expected 30,730,000 bytes .* found 0"),
]


@pytest.mark.parametrize(("kind", "file", "how", "message"), WRONG, ids=lambda value: str(value)[:30])
def test_a_damaged_file_is_one_clear_error(tmp_path, kind, file, how, message):
    scheme, _, gzipped = kind.partition(".")
    if scheme == "mnist":
        write_mnist(tmp_path, gzipped=bool(gzipped))
    else:
        write_cifar10(tmp_path)
    damage(tmp_path / file, how)
    with pytest.raises(DataError, match=message) as caught:
        open_source(f"{scheme}:{tmp_path}", "TRAIN")
    assert file.removesuffix(".gz") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_and_labels_of_different_sets(tmp_path):
    write_mnist(tmp_path, gzipped=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(29, np.uint8)))
    with pytest.raises(DataError, match=r"holds 30 images but .* 29 labels"):
        open_source(f"mnist:{tmp_path}", "TRAIN")


def test_a_cifar10_label_out_of_range(tmp_path):
    write_cifar10(tmp_path)
    with (tmp_path / "test_batch.bin").open("r+b") as file:
        file.write(b"\x0a")
    with pytest.raises(DataError, match="a label is 10, expected 0 to 9"):
        read(open_source(f"cifar10:{tmp_path}", "TEST"))


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mnits:/data", "did you mean `mnist:/data`"),
        ("zarr:/data", "known are cifar10, "),
        ("digits:?column=image", "`digits:` has no option `column` .*: did you mean `columns`"),
        ("digits:?columns=a&columns=b", "the option columns is given twice"),
        ("/data/mnist", "names no data source: write scheme:place"),
        ("mnist:/does/not/exist", "the folder /does/not/exist does not exist; it should hold train-images"),
        ("cifar10:/does/not/exist", "the folder /does/not/exist does not exist; it should hold data_batch_1"),
        ("mnist:", "wants a folder, mnist:DIR"),
        ("cifar10:/dev/null", "is no folder"),
    ],
)
def test_a_wrong_uri_is_one_clear_error(uri, message):
    with pytest.raises(DataError, match=message):
        open_source(uri, "TRAIN")


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("digits:", SourceURI("digits", "", (), {})),
        ("MNIST:~/x?columns=image, label", SourceURI("mnist", "~/x", ("image", "label"), {})),
        (
            "images:l.txt?resize=64&root=/a%26b",
            SourceURI("images", "l.txt", (), {"resize": "64", "root": "/a&b"}),
        ),
        ("parquet:/x/part-?.parquet", SourceURI("parquet", "/x/part-?.parquet", (), {})),
        ("?columns=a,b", SourceURI("", "", ("a", "b"), {})),
        ("examples/mnist/mnist_train_lmdb", None),
        ("", None),
    ],
)
def test_the_parts_of_a_uri(text, uri):
    assert parse_uri(text) == uri
