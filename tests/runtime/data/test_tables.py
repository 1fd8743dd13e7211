"""Tables: Arrow's types as arrays, Parquet's row groups over the parts, what is refused, and why."""

import pathlib
import pickle
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from sparknet_dsl.errors import DataError
from sparknet_dsl.runtime.data import BadRecords, Source, open_source

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

RNG = np.random.default_rng(7)


def write(path: pathlib.Path, columns: dict[str, Any], **settings: Any) -> str:
    pq.write_table(pa.table(columns), path, **settings)
    return f"parquet:{path}"


def read(source: Source, partition: int = 0, partitions: int = 1, bad: BadRecords | None = None) -> dict[str, Any]:
    source = pickle.loads(pickle.dumps(source))
    chunks = list(source.read(partition, partitions, bad or BadRecords()))
    return {
        column.name: np.concatenate([chunk[column.name] for chunk in chunks] or [np.empty((0, *column.shape))])
        for column in source.columns
    }


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


VECTOR = pa.struct(
    [("type", pa.int8()), ("size", pa.int32()), ("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float64()))]
)
NUMBERS = RNG.normal(size=(5, 2, 3)).astype(np.float32)
# A column as Arrow has it -> its type and values as nets get them.
CONVERSIONS: dict[str, tuple[Callable[[], Any], str, Any]] = {
    "int8": (lambda: pa.array([1, -2], pa.int8()), "int8", [1, -2]),
    "uint16": (lambda: pa.array([1, 65535], pa.uint16()), "uint16", [1, 65535]),
    "int64": (lambda: pa.array([1, 2**40]), "int64", [1, 2**40]),
    "float64": (lambda: pa.array([0.5, 1e300]), "float32", [0.5, np.inf]),
    "float16": (lambda: pa.array(np.array([0.5, 2], np.float16)), "float32", [0.5, 2]),
    "decimal": (lambda: pa.array([1, 2], pa.decimal128(5, 2)), "float32", [1, 2]),
    "boolean": (lambda: pa.array([True, False]), "uint8", [1, 0]),
    "list": (lambda: pa.array([[1.0, 2.0], [3.0, 4.0]]), "float32", [[1, 2], [3, 4]]),
    "list of int": (lambda: pa.array([[1, 2], [3, 4]], pa.list_(pa.uint8())), "uint8", [[1, 2], [3, 4]]),
    "large list": (lambda: pa.array([[1], [3]], pa.large_list(pa.int32())), "int32", [[1], [3]]),
    "lists of lists": (lambda: pa.array(NUMBERS.tolist(), pa.list_(pa.list_(pa.float32()))), "float32", NUMBERS),
    "fixed-size lists": (
        lambda: pa.array(NUMBERS.tolist(), pa.list_(pa.list_(pa.float32(), 3), 2)),
        "float32",
        NUMBERS,
    ),
    "tensors": (lambda: pa.FixedShapeTensorArray.from_numpy_ndarray(NUMBERS), "float32", NUMBERS),
    "bytes": (lambda: pa.array([b"\x01\x02", b"\xff\x00"]), "uint8", [[1, 2], [255, 0]]),
    "fixed-size bytes": (lambda: pa.array([b"\x01\x02", b"\xff\x00"], pa.binary(2)), "uint8", [[1, 2], [255, 0]]),
    "vectors": (
        lambda: pa.array(
            [
                {"type": 1, "size": None, "indices": None, "values": [1.0, 2.0, 3.0]},
                {"type": 0, "size": 3, "indices": [2], "values": [9.0]},
                {"type": 0, "size": 3, "indices": [], "values": []},
            ],
            VECTOR,
        ),
        "float32",
        [[1, 2, 3], [0, 0, 9], [0, 0, 0]],
    ),
}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_types_become_arrays_by_the_rules(tmp_path, name):
    make, dtype, expected = CONVERSIONS[name]
    source = open_source(write(tmp_path / "x.parquet", {"x": make()}), "TRAIN")
    with np.errstate(over="ignore"):
        expected = np.asarray(expected).astype(dtype)
    values = read(source)["x"]
    assert (source.columns[0].dtype, source.columns[0].shape) == (dtype, expected.shape[1:])
    assert values.dtype == dtype
    np.testing.assert_array_equal(values, expected)


IMAGE = pa.struct(
    [
        ("origin", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("nChannels", pa.int32()),
        ("mode", pa.int32()),
        ("data", pa.binary()),
    ]
)


def spark_image(pixels: np.ndarray) -> dict[str, Any]:
    height, width, channels = pixels.shape
    mode = {1: 0, 3: 16, 4: 24}[channels]
    data = pixels.tobytes()
    return {"origin": "x", "height": height, "width": width, "nChannels": channels, "mode": mode, "data": data}


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_sparks_schema(tmp_path, channels):
    pixels = RNG.integers(0, 256, (3, 4, 6, channels), np.uint8)
    uri = write(tmp_path / "x.parquet", {"image": pa.array(map(spark_image, pixels), IMAGE)})
    images = read(open_source(uri, "TRAIN"))["image"]
    np.testing.assert_array_equal(images, pixels[..., :3].transpose(0, 3, 1, 2))
    resized = read(open_source(f"{uri}?resize=2x3", "TRAIN"))["image"]
    assert resized.shape == (3, min(channels, 3), 2, 3)
    grey = read(open_source(f"{uri}?gray=true", "TRAIN"))["image"]
    if channels == 3:
        expected = [cv2.cvtColor(each, cv2.COLOR_BGR2GRAY)[None] for each in pixels]
        np.testing.assert_array_equal(grey, expected)


@pytest.mark.parametrize("huggingface", [False, True])
@pytest.mark.parametrize("color", [False, True])
def test_encoded_images_are_kept_or_decoded(tmp_path, huggingface, color):
    pixels = RNG.integers(0, 256, (40, 8, 8, 3) if color else (40, 8, 8), np.uint8)
    files = [png(each) for each in pixels]
    images = [{"bytes": file, "path": None} for file in files] if huggingface else files
    uri = write(tmp_path / "x.parquet", {"label": list(range(40)), "image": images})
    source = open_source(uri, "TRAIN")
    channels = 3 if color else 1
    assert source.columns[0] == ("image", "encoded", (channels, 0, 0), (channels, 8, 8))
    assert source.columns[1].name == "label"
    assert read(source)["image"].tolist() == files
    decoded = read(open_source(f"{uri}?resize=8", "TRAIN"))["image"]
    planar = pixels.transpose(0, 3, 1, 2) if color else pixels[:, None]
    np.testing.assert_array_equal(decoded, planar)
    assert read(open_source(f"{uri}?resize=4&gray=true", "TRAIN"))["image"].shape == (40, 1, 4, 4)


def test_options_say_shape_label_classes_and_features(tmp_path):
    uri = write(
        tmp_path / "x.parquet",
        {
            "pixels": [bytes(range(12)), bytes(12)],
            "a": [1, 2],
            "b": [0.5, 0.25],
            "kind": ["dog", "cat"],
            "label": [8, 9],
            "target": [4, 5],
        },
    )
    source = open_source(
        f"{uri}?shape=pixels:3x2x2,features:2x1&features=a,b&label=target&classes=kind:cat|dog", "TRAIN"
    )
    assert [(column.name, column.shape) for column in source.columns] == [
        ("features", (2, 1)),
        ("pixels", (3, 2, 2)),
        ("kind", ()),
        ("label", ()),
    ]
    rows = read(source)
    np.testing.assert_array_equal(rows["features"], [[[1], [0.5]], [[2], [0.25]]])
    np.testing.assert_array_equal(rows["pixels"][0], np.arange(12).reshape(3, 2, 2))
    assert rows["kind"].tolist() == [1, 0]
    assert rows["label"].tolist() == [4, 5]
    every = read(open_source(f"{uri}?features=*&label=target&classes=kind:cat|dog,target:{{4..9}}", "TRAIN"))
    np.testing.assert_array_equal(every["features"], [[1, 0.5, 1], [2, 0.25, 0]])
    assert every["label"].tolist() == [0, 1]


@pytest.mark.parametrize(("groups", "partitions"), [(1, 3), (3, 3), (7, 3), (2, 4), (10, 1)])
def test_row_groups_are_dealt_and_every_row_is_read_once(tmp_path, groups, partitions):
    numbers = np.arange(701)
    size = -(-701 // groups)
    for index in range(2):
        half = numbers[: 2 * size] if index == 0 else numbers[2 * size :]
        if len(half):
            write(tmp_path / f"{index}.parquet", {"x": half}, row_group_size=size)
    source = open_source(f"parquet:{tmp_path}", "TRAIN")
    parts = [read(source, part, partitions)["x"] for part in range(partitions)]
    assert sorted(np.concatenate(parts)) == numbers.tolist()
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= (1 if groups < partitions else size)
    np.testing.assert_array_equal(parts[0], read(source, 0, partitions)["x"])


def test_only_the_needed_columns_are_read(tmp_path, monkeypatch):
    uri = write(tmp_path / "x.parquet", {"a": [1, 2], "b": [[1.0], [2.0]], "c": ["x", "y"]})
    asked = []
    iter_batches = pq.ParquetFile.iter_batches

    def watched(self: Any, rows: int, groups: Any, columns: Any, **settings: Any) -> Any:
        asked.append(columns)
        return iter_batches(self, rows, groups, columns, **settings)

    source = open_source(f"{uri}?columns=b", "TRAIN")
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    list(source.read(0, 1, BadRecords()))
    assert asked == [["b"]]


def test_chunks_are_bounded_in_bytes(tmp_path):
    rows = 60
    values = RNG.integers(0, 256, (rows, 500_000), np.uint8)
    uri = write(tmp_path / "x.parquet", {"x": [row.tobytes() for row in values]})
    chunks = list(open_source(uri, "TRAIN").read(0, 1, BadRecords()))
    assert max(chunk["x"].nbytes for chunk in chunks) <= 8 << 20
    np.testing.assert_array_equal(np.concatenate([chunk["x"] for chunk in chunks]), values)


def test_folders_named_after_values_are_columns(tmp_path):
    for label in (0, 1):
        (tmp_path / f"label={label}").mkdir()
        write(tmp_path / f"label={label}" / "part.parquet", {"x": [1.0, 2.0]})
    rows = read(open_source(f"parquet:{tmp_path}", "TRAIN"))
    assert rows["label"].tolist() == [0, 0, 1, 1]
    assert rows["x"].tolist() == [1, 2, 1, 2]


BAD: dict[str, tuple[list[Any], str]] = {
    "null": ([1, None, 3], "`x` is null"),
    "longer": ([[1.0, 2.0], [1.0], [3.0, 4.0]], "`x` is a list of 1, and 2 in the first row"),
    "null within": ([[1.0, 2.0], [1.0, None], [3.0, 4.0]], "`x` holds a null"),
    "bytes": ([b"ab", b"abc", b"cd"], "`x` is 3 bytes, and 2 in the first row"),
    "cut image": (
        [png(np.zeros((9, 9), np.uint8)), png(np.ones((9, 9), np.uint8))[:-20], png(np.ones((9, 9), np.uint8))],
        "`x`: ",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_have_a_key_and_a_reason(tmp_path, name):
    values, reason = BAD[name]
    uri = write(tmp_path / "x.parquet", {"x": values, "n": [0, 1, 2]})
    bad = BadRecords("skip")
    rows = read(open_source(uri, "TRAIN"), bad=bad)
    assert rows["n"].tolist() == [0, 2]
    assert bad.count == 1
    assert bad.first[0].key == f"{tmp_path}/x.parquet, row 1"
    assert bad.first[0].reason.startswith(reason)
    with pytest.raises(DataError, match=r"x\.parquet, row 1: .*--bad-records skip"):
        read(open_source(uri, "TRAIN"))


def test_a_string_that_is_no_class_is_bad(tmp_path):
    uri = write(tmp_path / "x.parquet", {"label": ["cat", "dgo", "dog"]})
    bad = BadRecords("skip")
    assert read(open_source(f"{uri}?classes=label:cat|dog", "TRAIN"), bad=bad)["label"].tolist() == [0, 1]
    assert bad.first[0].reason == "`label` is 'dgo', none of its 2 classes"


REFUSED: list[tuple[str, Any, str]] = [
    ("x", ["a", "b"], r"column `x` can feed no net: it holds strings: say which stands for 0, 1, .*classes=x:cat\|dog"),
    ("x", [{"a": 1}, {"a": 2}], "`x` can feed no net: it holds struct"),
    (
        "x",
        [["a"], ["b"]],
        "`x` can feed no net: it holds list<.*string> of which no|`x` can feed no net: it holds list",
    ),
    ("x", pa.array([1, 2], pa.date32()), "`x` can feed no net: it holds date32"),
    ("x", pa.array([None, None], pa.list_(pa.int32())), "first rows are null"),
    ("x", [[], [1]], "first row is empty"),
    ("y", [1, 2], r"there is no column `y`: there are x, other"),
]


@pytest.mark.parametrize(("name", "values", "message"), REFUSED)
def test_what_can_feed_no_net_is_refused_by_whoever_asks_for_it(tmp_path, name, values, message):
    uri = write(tmp_path / "x.parquet", {"x": values, "other": [1, 2]})
    assert "other" in [column.name for column in open_source(uri, "TRAIN").columns]
    with pytest.raises(DataError, match=message) as caught:
        open_source(f"{uri}?columns={name}", "TRAIN")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("shape=x:3", "its rows have 2 values, and shape=x:3 is 3"),
        ("shape=x:0x2", "write shape=NAME:3x32x32"),
        ("shape=3x32", "write shape=NAME:3x32x32"),
        ("shape=z:2", "shape: there is no column `z`: there are x"),
        ("label=z", "label: there is no column `z`"),
        ("classes=x", r"write classes=NAME:cat\|dog"),
        ("classes=x:a|a", "each class once"),
        ("features=x", "features: column `x`: it holds no single numbers"),
        ("features=z", "features: column `z`: there is none"),
        ("features=*", "no column of numbers but the label"),
        ("resize=0", "write resize=256"),
        ("shapes=x:2", "did you mean `shape`"),
    ],
)
def test_a_wrong_option_is_one_clear_error(tmp_path, options, message):
    uri = write(tmp_path / "x.parquet", {"x": [[1.0, 2.0]], "i": [png(np.zeros((2, 2), np.uint8))]})
    with pytest.raises(DataError, match=message):
        open_source(f"{uri}?columns=x&{options}", "TRAIN")


def damaged(tmp_path: pathlib.Path, how: str) -> str:
    file = tmp_path / "x.parquet"
    if how == "empty folder":
        return f"parquet:{tmp_path}"
    if how == "missing":
        return f"parquet:{file}"
    write(file, {"x": np.arange(10_000), "y": ["s"] * 10_000} if how != "no rows" else {"x": pa.array([], pa.int64())})
    content = file.read_bytes()
    if how == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif how == "noise":
        file.write_bytes(b"<html>404 not found</html>")
    elif how == "no bytes":
        file.write_bytes(b"")
    elif how == "no column":
        write(tmp_path / "z.parquet", {"y": [1]})
        return f"parquet:{tmp_path}"
    elif how == "other type":
        write(tmp_path / "z.parquet", {"x": [1.5]})
        return f"parquet:{tmp_path}"
    return f"parquet:{file}"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"x\.parquet does not exist"),
        ("empty folder", r"there is no file ending in \.parquet"),
        ("no rows", "has no rows"),
        ("cut", r"x\.parquet cannot be read as Parquet: .*is it whole"),
        ("noise", r"x\.parquet cannot be read as Parquet"),
        ("no bytes", r"x\.parquet cannot be read as Parquet"),
        ("no column", r"z\.parquet has no column `x`, which .*x\.parquet has"),
        ("other type", r"z\.parquet: column `x` holds double, and in .*x\.parquet int64"),
    ],
)
def test_files_that_are_not_as_they_should_be(tmp_path, how, message):
    with pytest.raises(DataError, match=message) as caught:
        open_source(damaged(tmp_path, how), "TRAIN")
    assert "\n" not in str(caught.value)


def test_a_page_that_is_damaged_ends_the_reading(tmp_path):
    uri = write(
        tmp_path / "x.parquet", {"x": RNG.integers(0, 2**40, 100_000)}, compression="snappy", use_dictionary=False
    )
    source = open_source(uri, "TRAIN")
    content = bytearray((tmp_path / "x.parquet").read_bytes())
    content[2000:400_000] = bytes(398_000)
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.parquet cannot be read as Parquet"):
        list(source.read(0, 1, BadRecords("skip")))
