"""show, verify, mean and shards: what they find in data sets of known content, and how they tell."""

import json
import pathlib

import cv2
import h5py
import known_rows
import numpy as np
import pytest
import source_files
from rich.console import Console

from sparknet_dsl.caffe_ext import read_mean
from sparknet_dsl.errors import DataError
from sparknet_dsl.runtime.data import open_source
from sparknet_dsl.runtime.prepare.convert import Options, convert
from sparknet_dsl.runtime.prepare.mean import mean, mean_on_spark
from sparknet_dsl.runtime.prepare.pixels import Pixelwork
from sparknet_dsl.runtime.prepare.reading import Input, open_input
from sparknet_dsl.runtime.prepare.shards import shards
from sparknet_dsl.runtime.prepare.sheet import Sample, print_sheet
from sparknet_dsl.runtime.prepare.show import show
from sparknet_dsl.runtime.prepare.verify import Verdict, verify
from sparknet_dsl.runtime.spark import Cluster


def write(folder: pathlib.Path, **columns: np.ndarray) -> str:
    with h5py.File(folder / "rows.h5", "w") as file:
        for name, values in columns.items():
            file[name] = values
    return f"hdf5:{folder / 'rows.h5'}"


def opened(text: str) -> Input:
    return open_input(text, "TRAIN", "skip")


# ---- show ----


def test_show_counts(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = np.full((6, 2, 2, 3), 4, np.float32)
    image[3, 0, 0, 0], image[4, 1, 1, 2], image[5, 0, 0, 0] = -1.5, 10, np.inf
    source = write(tmp_path, image=image, label=np.array([1, 1, 7, 1, 7, 0]))
    show(opened(source), None, 4, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 6 and found["classes"] == {"0": 1, "1": 3, "7": 2}
    values = found["columns"][0]["values"]
    assert (values["min"], values["max"], values["not_finite"]) == (-1.5, 10, 1)
    assert values["mean"] == pytest.approx((69 * 4 - 1.5 + 10) / 71)
    assert found["image_sizes"] == [{"shape": [2, 2, 3], "rows": 6}]
    show(opened(source), None, 4, as_json=False)
    text = capsys.readouterr().out
    assert "6 rows" in text and "2×2×3" in text and "3 classes of 1 to 3 rows: 0: 1, 1: 3, 7: 2" in text
    assert "1 values of image are NaN or infinite" in text


def test_contact_sheet(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Red, green and blue, each at its place, in the order of the labels."""
    colors = [(0, 0, 255), (0, 255, 0), (255, 0, 0)]
    (tmp_path / "list.txt").write_text("2.png 2\n1.png 1\n0.png 0\n")
    for label, color in enumerate(colors):
        cv2.imwrite(str(tmp_path / f"{label}.png"), np.full((10, 20, 3), color, np.uint8))
    show(opened(f"images:{tmp_path / 'list.txt'}"), str(tmp_path / "sheet.png"), 64, as_json=False)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    middle = [sheet[4 + 48, 4 + 100 * index + 48] for index in range(3)]
    np.testing.assert_array_equal(middle, colors)
    assert (sheet[4 + 4, 4 + 48] == 0).all()  # twice as wide as high: black above
    assert "sheet.png: 3 images" in capsys.readouterr().out


def test_rows_that_are_no_images_have_no_sheet(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match="has no images to make a contact sheet of"):
        show(opened(known_rows.write("vector", tmp_path)), str(tmp_path / "sheet.png"), 4, as_json=False)
    assert not (tmp_path / "sheet.png").exists()


def test_a_sheet_in_the_terminal(tmp_path: pathlib.Path) -> None:
    """Two pixels a character; terminals with fewer colours get the nearest."""
    image = np.zeros((2, 3, 2, 2), np.uint8)
    image[:, 2, 0], image[:, 0, 1] = 255, 255  # red above, blue below
    sample = Sample(data := opened(write(tmp_path, image=image, label=np.arange(2))), 4)
    for rows in data.chunks():
        sample.add(rows)
    console = Console(force_terminal=True, color_system="truecolor", width=40, record=True, file=None)
    with console.capture() as captured:
        print_sheet(console, sample.tiles(), side=2)
    assert captured.get().splitlines()[0].startswith("\x1b[38;2;255;0;0;48;2;0;0;255m▀")


def test_a_sample_is_fair() -> None:
    """Each of 1,437 rows has the same chance, whatever the sample's size: of 64, the middle is near the middle."""
    sample = Sample(data := opened("digits:"), 400)
    for rows in data.chunks():
        sample.add(rows)
    labels = [int(caption) for caption, _ in sample.tiles()]
    assert len(labels) == 400 and labels == sorted(labels)
    assert np.bincount(labels).min() > 25


# ---- verify ----


def checked(source: str, classes: int | None = None, *allow: str) -> tuple[dict[str, int], Verdict]:
    found = verify(opened(source), classes, allow)
    return {finding.check: finding.count for finding in found.findings}, found


def test_a_good_data_set(tmp_path: pathlib.Path) -> None:
    found, verdict = checked("digits:", 10)
    assert not found and verdict.good and verdict.rows == 1437
    assert str(verdict) == "digits:: 1,437 rows, nothing wrong"


def test_everything_that_can_be_wrong(tmp_path: pathlib.Path) -> None:
    image = np.arange(24, dtype=np.float32).reshape(8, 3)
    image[4], image[6], image[7, 1] = image[1], image[1], np.nan
    source = write(tmp_path, image=image, label=np.array([0, 1, 4, -1, 1, 9, 0, 1]))
    found, verdict = checked(source, 6)
    assert found == {"labels": 2, "values": 1, "gaps": 3, "duplicates": 2}
    text = str(verdict)
    assert "row 3: label -1" in text and "row 5: label 9" in text and "row 7: column `image`" in text
    assert "of 6 classes have no rows: 2 to 3, 5" in text
    assert "row 4 is row 1 again\n" in text and "row 6 is row 1 again, with label 0 in place of 1" in text
    assert not verdict.good
    assert checked(source, 6, *found)[1].good
    assert not checked(source, 6, "labels", "values", "gaps")[1].good


def test_bad_records_are_listed(tmp_path: pathlib.Path) -> None:
    """Ten of them, and how many there are."""
    for row, content in enumerate(known_rows.values("jpg")):
        (tmp_path / f"{row}.jpg").write_bytes(content if row < 2 else content[:-40])
    lines = [f"{row % 7}.jpg {row % 2}" for row in range(21)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    found, verdict = checked(f"images:{tmp_path / 'list.txt'}")
    assert found["records"] == 15 and verdict.rows == 6
    records = verdict.findings[0]
    assert len(records.first) == 10 and "2.jpg" in records.first[0] and "and 5 more" in str(verdict)
    assert found["duplicates"] == 4
    assert "row 2 (0.jpg) is row 0 (0.jpg) again" in str(verdict)
    with pytest.raises(DataError, match="has no rows\n15 records could not be read"):
        (tmp_path / "list.txt").write_text("\n".join(line for line in lines if line[0] > "1"))
        verify(opened(f"images:{tmp_path / 'list.txt'}"), None, ())


def test_sizes_differ(tmp_path: pathlib.Path) -> None:
    for row, size in enumerate(((10, 12), (10, 12), (20, 24))):
        (tmp_path / f"{row}.png").write_bytes(source_files.coded(source_files.noise(1, (3, *size), row)[0]))
    (tmp_path / "list.txt").write_text("0.png 0\n1.png 0\n2.png 0\n")
    found, verdict = checked(f"images:{tmp_path / 'list.txt'}")
    assert found == {"sizes": 2} and verdict.findings[0].first == ["3×10×12: 2", "3×20×24: 1"]


# ---- mean ----


def test_mean_of_encoded_and_resized_images(tmp_path: pathlib.Path) -> None:
    source = known_rows.write("png", tmp_path)
    images = np.stack(known_rows.read(source)[0])
    found = mean(opened(source), Pixelwork(encoding="raw"))
    np.testing.assert_array_equal(found.image, images.mean(axis=0).astype(np.float32))
    assert found.rows == known_rows.ROWS and found.channels == pytest.approx(images.mean(axis=(0, 2, 3)))
    data = open_input(source, "TRAIN", "fail", (4, 5))
    small = mean(data, Pixelwork((4, 5), encoding="raw"))
    want = [cv2.resize(image.transpose(1, 2, 0), (5, 4)).transpose(2, 0, 1) for image in images]
    np.testing.assert_array_equal(small.image, np.mean(want, axis=0).astype(np.float32))


def test_mean_of_cifars_is_grey_by_its_own_order(tmp_path: pathlib.Path) -> None:
    image = np.zeros((2, 3, 2, 2), np.uint8)
    image[:, 0] = 200  # blue, or red where the planes are R, G, B
    source = write(tmp_path, image=image)
    blue = mean(opened(source), Pixelwork(gray=True)).channels
    red = mean(opened(source), Pixelwork(gray=True, rgb=True)).channels
    assert blue == [pytest.approx(200 * 0.114, abs=0.6)] and red == [pytest.approx(200 * 0.299, abs=0.6)]


@pytest.mark.parametrize("kind", ["gray", "png", "float"])
def test_spark_gives_the_same_mean(kind: str, spark: Cluster, tmp_path: pathlib.Path) -> None:
    source = known_rows.write(kind, tmp_path)
    asked = Pixelwork(encoding="raw" if kind == "png" else None)
    with Cluster("", 2, spark.context) as cluster:
        found = mean_on_spark(opened(source), asked, cluster)
    here = mean(opened(source), asked)
    np.testing.assert_array_equal(found.image, here.image)
    assert found.json() == here.json()
    here.save(str(tmp_path / "mean.binaryproto"))
    np.testing.assert_array_equal(read_mean(tmp_path / "mean.binaryproto"), here.image)


def test_images_without_a_mean(tmp_path: pathlib.Path) -> None:
    for row, size in enumerate(((10, 12), (20, 24))):
        (tmp_path / f"{row}.png").write_bytes(source_files.coded(source_files.noise(1, (3, *size))[0]))
    (tmp_path / "list.txt").write_text("0.png 0\n1.png 0\n")
    with pytest.raises(DataError, match="--resize"):
        mean(opened(f"images:{tmp_path / 'list.txt'}"), Pixelwork(encoding="raw"))
    with pytest.raises(DataError, match="has no images, nor other arrays: label"):
        mean(opened(write(tmp_path, label=np.arange(3))), Pixelwork())


# ---- shards ----


def test_shards(tmp_path: pathlib.Path) -> None:
    for label, name in enumerate(("n01440764", "n01443537", "n01484850")):
        (tmp_path / "in" / name).mkdir(parents=True)
        for number, image in enumerate(source_files.noise(5, seed=label)):
            (tmp_path / "in" / name / f"{name}_{number}.JPEG").write_bytes(source_files.coded(image, ".jpg"))
    settings = {"per_tar": 4, "size": None, "seed": 0, "bad_records": "fail", "force": False}
    text = shards(str(tmp_path / "in"), str(tmp_path / "out"), order="shuffled", phase="train", **settings)
    assert text.startswith(f"wrote imagenet:{tmp_path / 'out'}: 15 rows")
    names = [f"train.{number:05d}.tar" for number in range(4)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["classes.txt", *names, "train.txt"]
    assert (tmp_path / "out" / "classes.txt").read_text() == "0 n01440764\n1 n01443537\n2 n01484850\n"
    lines = (tmp_path / "out" / "train.txt").read_text().splitlines()
    assert lines != sorted(lines)
    for line in lines:
        name, label = line.split()
        assert name.startswith(["n01440764_", "n01443537_", "n01484850_"][int(label)])
    rows = source_files.read(open_source(f"imagenet:{tmp_path / 'out'}", "TRAIN"))
    for line, image, label in zip(lines, rows["image"], rows["label"], strict=True):
        name = line.split()[0]
        assert image == (tmp_path / "in" / name[:9] / name).read_bytes() and label == int(line.split()[1])
    shards(str(tmp_path / "in"), str(tmp_path / "val"), order="sorted", phase="test", **settings)
    assert (
        source_files.read(open_source(f"imagenet:{tmp_path / 'val'}", "TEST"))["label"] == [0] * 5 + [1] * 5 + [2] * 5
    )


def test_files_of_one_name_are_told_apart_in_tars(tmp_path: pathlib.Path) -> None:
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "0.png").write_bytes(source_files.coded(source_files.noise(1, seed=label)[0]))
    convert(f"images:{tmp_path / 'in'}", f"imagenet:{tmp_path / 'out'}", Options())
    assert (tmp_path / "out" / "train.txt").read_text() == "0.png 0\n00000001_0.png 1\n"
    assert source_files.read(open_source(f"imagenet:{tmp_path / 'out'}", "TRAIN"))["label"] == [0, 1]
