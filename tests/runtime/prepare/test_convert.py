"""Conversions: there and back through every pair of formats, broken off and gone on with, shuffled, split."""

import contextlib
import dataclasses
import fcntl
import functools
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator

import h5py
import known_rows
import numpy as np
import pytest
import source_files
from known_rows import ROWS

from sparknet_dsl.caffe_ext.database import open_database
from sparknet_dsl.caffe_ext.images import resize
from sparknet_dsl.errors import DataError, OutputError, UsageError
from sparknet_dsl.runtime.data import BadRecords, Columns
from sparknet_dsl.runtime.data.hdf5 import Hdf5
from sparknet_dsl.runtime.prepare import destination, write_databases
from sparknet_dsl.runtime.prepare.convert import Options, assigned, convert, shares_of, split
from sparknet_dsl.runtime.prepare.writer import Names, Writer
from sparknet_dsl.runtime.prepare.writers import WRITERS

NUMBERS = ("color", "gray", "float", "vector")
PIXELS = ("color", "gray")
CODED = ("jpg", "png")
# What each format holds, and what a source of it is called.
HOLDS = {
    "hdf5": (NUMBERS, "hdf5:{}/list.txt"),
    "imagenet": ((*PIXELS, *CODED), "imagenet:{}"),
    "images": ((*PIXELS, *CODED), "images:{}/list.txt"),
    "leveldb": (known_rows.KINDS, "leveldb:{}"),
    "lmdb": (known_rows.KINDS, "lmdb:{}"),
}
KINDS = [(kind, format) for format, (kinds, _) in HOLDS.items() for kind in kinds]


def pairs() -> list[tuple[str, str, str]]:
    """Every pair of formats, with a kind of numbers that both hold, another each time, and one of encoded images."""
    found = []
    for number, (first, second) in enumerate(itertools.product(HOLDS, HOLDS)):
        both = [kind for kind in known_rows.KINDS if (kind, first) in KINDS and (kind, second) in KINDS]
        for kinds in (NUMBERS, CODED):
            some = [kind for kind in both if kind in kinds]
            found += [(some[number % len(some)], first, second)] if some else []
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], str]:
    """Writes a kind in a format, once: the source."""
    folder = tmp_path_factory.mktemp("written")

    @functools.cache
    def source(kind: str, format: str) -> str:
        path = folder / format / kind
        convert(known_rows.write(kind, folder / "first" / kind), f"{format}:{path}", Options(gray=kind == "gray"))
        return HOLDS[format][1].format(path)

    return source


def test_every_format_is_tried() -> None:
    assert sorted(HOLDS) == sorted(WRITERS)


@pytest.mark.parametrize(("kind", "format"), KINDS)
def test_formats_hold_what_is_written_to_them(kind: str, format: str, written: Callable[[str, str], str]) -> None:
    known_rows.check(written(kind, format), kind)


@pytest.mark.parametrize(("kind", "first", "second"), pairs())
def test_there_and_back(
    kind: str, first: str, second: str, written: Callable[[str, str], str], tmp_path: pathlib.Path
) -> None:
    done, _ = convert(written(kind, first), f"{second}:{tmp_path / 'to'}", Options(gray=kind == "gray"))
    assert done.rows == ROWS
    known_rows.check(HOLDS[second][1].format(tmp_path / "to"), kind)
    assert [path.name for path in tmp_path.iterdir()] == ["to"]


# ---- whole or not at all ----


@pytest.fixture
def source(tmp_path: pathlib.Path) -> str:
    """600 rows of an image of one pixel, a row's number."""
    return numbered(tmp_path, 600)


def numbered(folder: pathlib.Path, rows: int) -> str:
    with h5py.File(folder / f"{rows}.h5", "w") as file:
        number = np.arange(rows)
        file["image"] = np.stack([number % 256, number // 256, number * 0], axis=1).astype(np.uint8)[:, :, None, None]
        file["label"] = number
    return f"hdf5:{folder / f'{rows}.h5'}"


def numbers(text: str) -> list[int]:
    """The rows that a data set made of such a source has."""
    images, labels = known_rows.read(text)
    assert [int(image.ravel()[:2] @ [1, 256]) for image in images] == labels
    return labels


@contextlib.contextmanager
def break_off(monkeypatch: pytest.MonkeyPatch, at: int, error: type[BaseException]) -> Iterator[None]:
    """In the block, reading HDF5 files ends with `error` before row `at`."""
    read = Hdf5.read

    def broken(self: Hdf5, partition: int, partitions: int, bad: BadRecords) -> Iterator[Columns]:
        rows = 0
        for chunk in read(self, partition, partitions, bad):
            rows += len(chunk["label"])
            if rows > at:
                raise error("broken off")
            yield chunk

    with monkeypatch.context() as patched:
        patched.setattr(Hdf5, "read", broken)
        yield


@pytest.mark.parametrize("format", ["hdf5", "imagenet", "images", "leveldb", "lmdb"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, DataError])
def test_the_same_command_goes_on(
    format: str, error: type[BaseException], source: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off after 400 rows, whatever was kept of them is there once in the end, and nothing before that."""
    monkeypatch.setattr(destination, "NOTED", 0)
    monkeypatch.setattr(write_databases, "COMMIT", 100)
    to = tmp_path / "to"
    options = Options(per_file=100)
    with break_off(monkeypatch, 400, error), pytest.raises(error):
        convert(source, f"{format}:{to}", options)
    assert not to.exists()
    done = json.loads((tmp_path / ".to.unfinished" / "progress.json").read_text())["rows"]
    assert 300 <= done <= 400
    written = []
    kind = WRITERS[format]
    write = kind.write

    def counted(self: Writer, rows: Columns, names: Names) -> int:
        written.append(len(rows["label"]))
        return write(self, rows, names)

    monkeypatch.setattr(kind, "write", counted)
    convert(source, f"{format}:{to}", options)
    assert sum(written) == 600 - done
    assert numbers(HOLDS[format][1].format(to)) == list(range(600))
    assert not (tmp_path / ".to.unfinished").exists()


def test_other_settings_begin_anew(source: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination, "NOTED", 0)
    with break_off(monkeypatch, 400, KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        convert(source, f"images:{tmp_path / 'to'}", Options())
    convert(source, f"images:{tmp_path / 'to'}", Options(encoding="jpg"))
    assert {path.suffix for path in (tmp_path / "to").glob("*/*")} == {".jpg"}
    assert len(list((tmp_path / "to").glob("*/*"))) == 600


@pytest.mark.parametrize("format", HOLDS)
def test_what_is_there_stays(format: str, written: Callable[[str, str], str], tmp_path: pathlib.Path) -> None:
    kind = HOLDS[format][0][0]
    source = written(kind, format)
    to = tmp_path / "to"
    options = Options(gray=kind == "gray")
    convert(source, f"{format}:{to}", options)
    before = sorted(to.rglob("*"))
    with pytest.raises(OutputError, match="there already: --force"):
        convert(source, f"{format}:{to}", options)
    assert sorted(to.rglob("*")) == before
    convert(source, f"{format}:{to}", dataclasses.replace(options, force=True))
    known_rows.check(HOLDS[format][1].format(to), kind)
    (to / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"holds thesis\.tex, so it is no"):
        convert(source, f"{format}:{to}", dataclasses.replace(options, force=True))
    assert (to / "thesis.tex").exists()


def test_two_processes_do_not_write_one_data_set(source: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / ".to.unfinished").mkdir()
    with (tmp_path / ".to.unfinished" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="is being written by another process"):
            convert(source, f"lmdb:{tmp_path / 'to'}", Options())


def test_a_full_map_grows(source: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_databases, "FIRST_MAP", 1 << 16)
    convert(source, f"lmdb:{tmp_path / 'to'}", Options())
    assert numbers(f"lmdb:{tmp_path / 'to'}") == list(range(600))


# ---- other orders, parts ----


@pytest.mark.parametrize("to", ["lmdb", "images"])
def test_shuffled(to: str, source: str, tmp_path: pathlib.Path) -> None:
    """Whatever the source, rows come in an order that follows from the seed, whole rows, each once."""
    orders = []
    for index, seed in enumerate((1, 1, 2)):
        convert(source, f"{to}:{tmp_path / f'to{index}'}", Options(shuffle=True, seed=seed))
        orders.append(numbers(HOLDS[to][1].format(tmp_path / f"to{index}")))
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == list(range(600))
    assert len(set(orders[0][:100])) == 100 and max(orders[0][:100]) > 300
    convert(HOLDS[to][1].format(tmp_path / "to0"), f"lmdb:{tmp_path / 'again'}", Options(shuffle=True, seed=3))
    assert sorted(numbers(f"lmdb:{tmp_path / 'again'}")) == list(range(600))
    with open_database(tmp_path / "again", "LMDB") as database:
        keys = [key for key, _ in database]
    # Numbers begin anew; what a record was called stays.
    assert [key[:8] for key in keys] == [b"%08d" % row for row in range(600)]
    assert all(len(key) == 8 for key in keys) == (to == "lmdb")


def test_split(source: str, tmp_path: pathlib.Path) -> None:
    options = Options(seed=5)
    done, _ = split(source, f"lmdb:{tmp_path / '{}_lmdb'}", shares_of("train=0.9,val=0.06,test=0.04"), False, options)
    parts = [numbers(f"lmdb:{tmp_path / name}_lmdb") for name in ("train", "val", "test")]
    assert [each.rows for each in done] == list(map(len, parts)) == [540, 36, 24]
    assert sorted(parts[0] + parts[1] + parts[2]) == list(range(600))
    assert all(part == sorted(part) for part in parts)
    assert max(parts[2]) - min(parts[2]) > 400  # from everywhere


def test_split_by_class() -> None:
    classes = np.repeat([0, 1, 7], [1000, 100, 10])
    chosen = assigned(classes, [0.8, 0.2], 0)
    assert [np.bincount(chosen[classes == each]).tolist() for each in (0, 1, 7)] == [[800, 200], [80, 20], [8, 2]]
    assert (assigned(classes, [0.8, 0.2], 1) != chosen).any()


# ---- what cannot be ----


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("out", "names no format: write scheme:path"),
        ("lmbd:out", r"cannot be written: did you mean `lmdb:`"),
        ("mnist:out", "cannot be written: there are"),
        ("lmdb:", "a path on this machine is wanted"),
        ("lmdb:s3://bucket/db", "a path on this machine is wanted"),
        ("lmdb:out?columns=a", "belong to what is read"),
    ],
)
def test_destinations_that_are_none(to: str, message: str, source: str) -> None:
    with pytest.raises(UsageError, match=message):
        convert(source, to, Options())


@pytest.mark.parametrize(
    ("kind", "to", "options", "message"),
    [
        ("float", "images", Options(), r"`image` holds float32 of 3×5×4; only images of 8 bits"),
        ("vector", "imagenet", Options(), r"`image` holds float32 of 6; only images of 8 bits"),
        ("jpg", "hdf5", Options(encoding="png"), "hdf5: holds no images that are png"),
        ("color", "images", Options(encoding="raw"), "images: holds no images that are raw"),
        ("vector", "lmdb", Options(size=(8, 8)), "only images of 8 bits"),
    ],
)
def test_rows_that_a_format_does_not_hold(
    kind: str, to: str, options: Options, message: str, tmp_path: pathlib.Path
) -> None:
    source = known_rows.write(kind, tmp_path / "from")
    with pytest.raises(DataError, match=message):
        convert(source, f"{to}:{tmp_path / 'to'}", options)
    assert not (tmp_path / "to").exists()


def test_columns_that_a_database_does_not_hold(tmp_path: pathlib.Path) -> None:
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["image"], file["label"], file["weight"] = np.zeros((3, 2)), np.arange(3) * 2**30, np.zeros(3)
    source = f"hdf5:{tmp_path / 'rows.h5'}"
    with pytest.raises(DataError, match=r"has also weight .* choose with \?columns=IMAGE,LABEL"):
        convert(source, f"lmdb:{tmp_path / 'to'}", Options())
    with pytest.raises(DataError, match="a label is 2147483648"):
        convert(f"{source}?columns=image,label", f"lmdb:{tmp_path / 'to'}", Options())
    with pytest.raises(DataError, match="no column `lable`; there are image, label, weight"):
        convert(f"{source}?columns=image,lable", f"lmdb:{tmp_path / 'to'}", Options())
    with pytest.raises(DataError, match="wants a label for each image"):
        convert(known_rows.write("png", tmp_path) + "?columns=image", f"imagenet:{tmp_path / 'to'}", Options())


def test_images_of_several_sizes_are_resized_or_refused(tmp_path: pathlib.Path) -> None:
    small, large = source_files.noise(1)[0], source_files.noise(1, (3, 20, 24))[0]
    for name, image in (("small", small), ("large", large)):
        (tmp_path / f"{name}.png").write_bytes(source_files.coded(image))
    (tmp_path / "list.txt").write_text("small.png 0\nlarge.png 1\n")
    source = f"images:{tmp_path / 'list.txt'}"
    with pytest.raises(DataError, match=r"large\.png: its image is 3×20×24, the first one 3×10×12; --resize"):
        convert(source, f"hdf5:{tmp_path / 'to'}", Options())
    convert(source, f"hdf5:{tmp_path / 'to'}", Options(size=(10, 12)))
    images, _ = known_rows.read(f"hdf5:{tmp_path / 'to' / 'list.txt'}")
    np.testing.assert_array_equal(images[0], small)
    np.testing.assert_array_equal(images[1], resize(large.transpose(1, 2, 0), 10, 12).transpose(2, 0, 1))


@pytest.mark.parametrize(
    "text", ["train", "train=1,test=0", "train=0.5,train=0.5", "train=0.5,test=0.4", "a/b=0.5,c=0.5"]
)
def test_shares_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--into"):
        shares_of(text)


def test_parts_without_names_or_rows(tmp_path: pathlib.Path) -> None:
    source = numbered(tmp_path, 3)
    with pytest.raises(UsageError, match=r"write \{\} where the name of a part goes"):
        split(source, f"lmdb:{tmp_path / 'to'}", shares_of("a=0.5,b=0.5"), False, Options())
    with pytest.raises(DataError, match="has 3 rows, too few for a part `b`"):
        split(source, f"lmdb:{tmp_path / 'to_{}'}", shares_of("a=0.9,b=0.1"), False, Options())
