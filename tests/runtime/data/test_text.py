"""CSV and LIBSVM files: every line once, whatever the pieces, and what becomes of the wrong ones."""

import pathlib

import numpy as np
import pytest
from sklearn.datasets import dump_svmlight_file

from sparknet_dsl.errors import DataError
from sparknet_dsl.runtime.data import BadRecords, Source, open_source, text

RNG = np.random.default_rng(3)
FEATURES = RNG.normal(size=(300, 4)).astype(np.float32)
LABELS = RNG.integers(0, 3, 300)


def read(
    source: Source, partition: int = 0, partitions: int = 1, bad: BadRecords | None = None
) -> dict[str, np.ndarray]:
    chunks = list(source.read(partition, partitions, bad or BadRecords()))
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def csv_lines(separator: str = ",") -> list[str]:
    return [separator.join([*map(repr, row.tolist()), str(label)]) for row, label in zip(FEATURES, LABELS, strict=True)]


def write_csv(path: pathlib.Path, header: str = "a,b,c,d,label\n", separator: str = ",") -> str:
    pytest.importorskip("pyarrow")
    path.write_text(header + "\n".join(csv_lines(separator)) + "\n")
    return f"csv:{path}"


def write_libsvm(path: pathlib.Path) -> str:
    with path.open("wb") as file:
        dump_svmlight_file(FEATURES, LABELS, file, zero_based=False)
    return f"libsvm:{path}"


@pytest.mark.parametrize("write", [write_csv, write_libsvm])
@pytest.mark.parametrize("partitions", [1, 2, 7])
@pytest.mark.parametrize("piece", [1, 100, 1000, 1 << 20])
def test_every_line_is_read_once_whatever_the_pieces(tmp_path, monkeypatch, write, partitions, piece):
    monkeypatch.setattr(text, "PIECE", piece)
    source = open_source(write(tmp_path / "x.txt"), "TRAIN")
    parts = [read(source, part, partitions) for part in range(partitions)]
    found = np.concatenate([np.column_stack([part["features"], part["label"]]) for part in parts])
    expected = np.column_stack([FEATURES, LABELS])
    order, wanted = np.lexsort(found.T), np.lexsort(expected.T)
    np.testing.assert_allclose(found[order], expected[wanted], rtol=1e-6)
    assert parts[0]["features"].dtype == np.float32 and parts[0]["label"].dtype == np.int64


def test_without_a_line_end_at_the_end(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "x.csv").write_bytes(b"a,label\r\n1,2\r\n\r\n3,4")
    rows = read(open_source(f"csv:{tmp_path}/x.csv", "TRAIN"))
    assert rows["features"].tolist() == [[1], [3]] and rows["label"].tolist() == [2, 4]


def test_columns_by_themselves_other_signs_and_no_header(tmp_path):
    uri = write_csv(tmp_path / "x.csv", "", "\t")
    source = open_source(f"{uri}?sep=tab&header=false&columns=c2,c4", "TRAIN")
    rows = read(source)
    np.testing.assert_allclose(rows["c2"], FEATURES[:, 2], rtol=1e-6)
    assert rows["c4"].tolist() == LABELS.tolist()


def test_strings_count_by_their_classes(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "adult.data").write_text("39, State-gov, <=50K\n50, Private, >50K\n38, Private, <=50K\n")
    uri = f"csv:{tmp_path}/adult.data?header=false&label=c2&classes=c1:State-gov|Private,label:<=50K|>50K"
    rows = read(open_source(uri, "TRAIN"))
    assert rows["features"].tolist() == [[39, 0], [50, 1], [38, 1]]
    assert rows["label"].tolist() == [0, 1, 0]


def test_bad_lines_of_a_csv_file(tmp_path):
    uri = write_csv(tmp_path / "x.csv")
    lines = (tmp_path / "x.csv").read_text().splitlines()
    lines[3], lines[100], lines[200] = "1,2,three,4,0", "1,2", ",2,3,4,0"
    (tmp_path / "x.csv").write_text("\n".join(lines))
    bad = BadRecords("skip")
    assert len(read(open_source(uri, "TRAIN"), bad=bad)["label"]) == 297
    assert bad.count == 3
    assert sorted(each.key for each in bad.first)[1].startswith(f"{tmp_path}/x.csv, byte ")
    said = " ".join(each.reason for each in bad.first)
    assert "invalid value 'three'" in said and "Expected 5 columns, got 2" in said and "`a` is null" in said
    # Every part tells of its own, so that none counts twice.
    counts = [BadRecords("skip") for _ in range(3)]
    for part, each in enumerate(counts):
        read(open_source(uri, "TRAIN"), part, 3, each)
    assert sum(each.count for each in counts) == 3
    with pytest.raises(DataError, match=r"x\.csv, byte \d+: .*--bad-records skip"):
        read(open_source(uri, "TRAIN"))


def test_bad_lines_of_a_libsvm_file(tmp_path):
    uri = write_libsvm(tmp_path / "x.t")
    lines = (tmp_path / "x.t").read_text().splitlines()
    lines[3], lines[100], lines[200] = "zero 1:1", "1 a:1", "1 9:1"
    (tmp_path / "x.t").write_text("\n".join(lines))
    bad = BadRecords("skip")
    rows = read(open_source(f"{uri}?width=4", "TRAIN"), bad=bad)
    assert rows["features"].shape == (297, 4)
    assert "there is a feature 9, and width=4" in [each.reason for each in bad.first]


def test_the_width_of_a_libsvm_file_is_the_largest_index(tmp_path):
    (tmp_path / "x.t").write_text("1.5 2:1\n-1 7:0.5\n")
    source = open_source(f"libsvm:{tmp_path}/x.t", "TRAIN")
    rows = read(source)
    assert rows["features"].shape == (2, 7) and rows["features"][1, 6] == 0.5
    assert rows["label"].tolist() == [1.5, -1] and rows["label"].dtype == np.float32
    assert read(open_source(f"libsvm:{tmp_path}/x.t?width=9", "TRAIN"))["features"].shape == (2, 9)


@pytest.mark.parametrize(
    ("uri", "content", "message"),
    [
        ("csv:{}", "", "has no rows"),
        ("csv:{}", "a,label\n", "has no rows"),
        ("csv:{}?sep=;;", "a\n1\n", "one sign is wanted"),
        ("csv:{}?header=no", "a\n1\n", "header=true or header=false"),
        ("csv:{}?columns=b", "a,label\n1,2\n", "there is no column `b`: there are a, label"),
        ("csv:{}?columns=s,label", "s,label\nx,2\n", "`s` can feed no net: it holds strings"),
        ("csv:{}", "a,b,label\nx;1\ny;2\n", "cannot be read as CSV: .*Expected 3 columns, got 1"),
        ("csv:{}.none", "", "does not exist"),
        ("csv:", "", "wants files, csv:FILE"),
        ("libsvm:{}", "", "has no rows"),
        ("libsvm:{}", "hello\n", "holds no line of"),
        ("libsvm:{}?width=x", "1 1:1\n", "write width=784"),
        ("libsvm:{}.none", "", "does not exist"),
        ("libsvm:", "", "wants files, libsvm:FILE"),
    ],
)
def test_a_wrong_file_or_option_is_one_clear_error(tmp_path, uri, content, message):
    pytest.importorskip("pyarrow")
    (tmp_path / "x.txt").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        open_source(uri.format(tmp_path / "x.txt"), "TRAIN")
    assert "\n" not in str(caught.value)


def test_files_with_other_columns_are_no_one_table(tmp_path):
    write_csv(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match=r"b\.csv has another first line than .*a\.csv"):
        open_source(f"csv:{tmp_path}", "TRAIN")
