"""Image files by class and by list, and ImageNet's tars: labels, shares, what is damaged or missing."""

import pathlib
import pickle

import numpy as np
import pytest
from shared import shared
from source_files import coded, noise, parts_of, read, write_tar

from sparknet_dsl.caffe_ext.images import check_whole, decode
from sparknet_dsl.errors import DataError
from sparknet_dsl.runtime.data import BadRecords, open_source

IMAGES = [coded(image, kind) for image, kind in zip(noise(6), [".png", ".jpg"] * 3, strict=True)]


def write_classes(folder: pathlib.Path) -> pathlib.Path:
    for number, image in enumerate(IMAGES):
        place = folder / ["owl", "cat", "fox"][number % 3] / f"{number}.JPG"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(image)
    (folder / "cat" / "notes.txt").write_text("no image")
    return folder


def test_a_folder_for_each_class(tmp_path):
    source = pickle.loads(pickle.dumps(open_source(f"images:{write_classes(tmp_path)}", "TRAIN")))
    # cat, fox, owl, in each the files by their names.
    assert read(source) == {"image": [IMAGES[i] for i in (1, 4, 2, 5, 0, 3)], "label": [0, 0, 1, 1, 2, 2]}
    assert [rows["label"] for rows in parts_of(source, 4)] == [[0, 2], [0, 2], [1], [1]]
    assert source.columns[0].first == (3, 10, 12)


def test_a_list_with_its_root(tmp_path, monkeypatch):
    write_classes(tmp_path / "all")
    (tmp_path / "list.txt").write_text("cat/1.JPG 7\n\nfox/2.JPG -3\n")
    for root in (f"{tmp_path}/all/", "all/"):
        # Relative ones are found from the list's folder, too.
        rows = read(open_source(f"images:{tmp_path}/list.txt?root={root}", "TRAIN"))
        assert rows == {"image": [IMAGES[1], IMAGES[2]], "label": [7, -3]}
    monkeypatch.chdir(tmp_path / "all")
    assert read(open_source("images:../list.txt", "TRAIN"))["label"] == [7, -3]


def test_images_are_resized_as_caffes_tool_does(tmp_path):
    source = open_source(f"images:{write_classes(tmp_path)}?resize=5x7", "TRAIN")
    assert source.columns[0][1:3] == ("uint8", (3, 5, 7))
    np.testing.assert_array_equal(read(source)["image"][0], decode(IMAGES[1], True, (5, 7)))


def test_missing_and_damaged_files_are_bad_records(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "cat" / "1.JPG").write_bytes(IMAGES[1][:-30])
    (tmp_path / "cat" / "4.JPG").write_bytes(b"")
    (tmp_path / "list.txt").write_text("cat/1.JPG 0\ncat/4.JPG 0\nnone.jpg 1\nowl/0.JPG 2\n")
    source = open_source(f"images:{tmp_path}/list.txt", "TRAIN")
    bad = BadRecords("skip")
    assert read(source, bad=bad)["label"] == [2]
    assert [key for key, _ in bad.first] == ["cat/1.JPG", "cat/4.JPG", "none.jpg"]
    assert ["cut short" in bad.first[0].reason, "no such file" in bad.first[2].reason.lower()] == [True, True]


@pytest.mark.parametrize(
    ("write", "uri", "message"),
    [
        ("", "images:", "wants a folder with a folder for each class, or a list"),
        ("", "images:{0}/none", r"none cannot be read: No such file"),
        ("", "images:{0}", r"there is no file ending in \.jpg or"),
        ("", "images:{0}/list.txt", "is empty"),
        ("a.jpg", "images:{0}/list.txt", "`a.jpg` is not `path label`"),
        ("a.jpg cat", "images:{0}/list.txt", "`a.jpg cat` is not `path label`, the label a number"),
        ("loose", "images:{0}", "loose.png lies in the folder itself; images lie in a folder for each class"),
    ],
)
def test_wrong_lists_and_folders(tmp_path, write, uri, message):
    (tmp_path / "list.txt").write_text("" if write == "loose" else write)
    if write == "loose":
        (tmp_path / "loose.png").write_bytes(IMAGES[0])
    with pytest.raises(DataError, match=message) as caught:
        open_source(uri.format(tmp_path), "TRAIN")
    assert "\n" not in str(caught.value)


# ---- tars ----


def write_imagenet(folder: pathlib.Path, tars: int = 2) -> pathlib.Path:
    names = [f"n0{number}.JPEG" for number in range(len(IMAGES))]
    for tar in range(tars):
        files = dict(zip(names[tar::tars], IMAGES[tar::tars], strict=True))
        write_tar(folder / f"train.{tar:05}.tar", {f"some/{name}": image for name, image in files.items()})
    (folder / "train.txt").write_text("".join(f"{name} {10 * number}\n" for number, name in enumerate(names)))
    return folder


@pytest.mark.parametrize("tars", [1, 2, 6])
def test_tars_with_a_list_of_labels(tmp_path, tars):
    source = pickle.loads(pickle.dumps(open_source(f"imagenet:{write_imagenet(tmp_path, tars)}", "TRAIN")))
    order = [number for tar in range(tars) for number in range(tar, 6, tars)]
    assert read(source) == {"image": [IMAGES[i] for i in order], "label": [10 * i for i in order]}
    parts = parts_of(source, 4)
    assert sorted(label for rows in parts for label in rows["label"]) == [0, 10, 20, 30, 40, 50]
    assert max(len(rows["label"]) for rows in parts) == 2


def test_many_tars_are_read_whole_each_by_one_worker(tmp_path, monkeypatch):
    from sparknet_dsl.runtime.data import tars

    opened = []
    open_place = tars.open_place
    monkeypatch.setattr(tars, "ENOUGH", 3)
    source = open_source(f"imagenet:{write_imagenet(tmp_path, 6)}", "TRAIN")
    monkeypatch.setattr(tars, "open_place", lambda place: opened.append(place[-5]) or open_place(place))
    assert [read(source, part, 2)["label"] for part in range(2)] == [[0, 20, 40], [10, 30, 50]]
    assert opened == ["0", "2", "4", "1", "3", "5"]


@pytest.mark.parametrize("labels", [None, "n00000003\nn00000001\nn00000002\n"])
def test_a_tar_for_each_class(tmp_path, labels):
    for number in (2, 1):
        write_tar(tmp_path / f"n0000000{number}.tar", {f"n0000000{number}_{i}.JPEG": IMAGES[i] for i in range(number)})
    uri = f"imagenet:{tmp_path}"
    if labels:
        (tmp_path / "synsets.txt").write_text(labels)
        uri += "?labels=synsets.txt"
    expected = [1, 2, 2] if labels else [0, 1, 1]
    assert read(open_source(uri, "TEST")) == {"image": [IMAGES[0], IMAGES[0], IMAGES[1]], "label": expected}


def test_the_sample_of_imagenet():
    place = shared("data/imagenet")
    source = open_source(f"imagenet:{place}?resize=32", "TRAIN")
    rows = [read(source, part, 3) for part in range(3)]
    assert sorted(label for part in rows for label in part["label"]) == list(range(0, 1000, 5))


def test_files_without_a_label_and_truncated_ones_are_bad(tmp_path):
    write_imagenet(tmp_path)
    write_tar(tmp_path / "train.00001.tar", {"n01.JPEG": IMAGES[1], "cut.JPEG": IMAGES[1][:-9], "new.JPEG": IMAGES[0]})
    with (tmp_path / "train.txt").open("a") as file:
        file.write("cut.JPEG 5\n")
    bad = BadRecords("skip")
    assert read(open_source(f"imagenet:{tmp_path}", "TRAIN"), bad=bad)["label"] == [0, 20, 40, 10]
    assert [key.rpartition("/")[0].split(" in ")[0] for key, _ in bad.first] == ["cut.JPEG", "new.JPEG"]
    assert {reason for _, reason in bad.first if "no label" in reason} == {f"{tmp_path}/train.txt has no label for it"}


def cut(place: pathlib.Path, end: int) -> None:
    place.write_bytes(place.read_bytes()[:end])


@pytest.mark.parametrize("end", [300, 700, 1024, 1600])
def test_a_tar_that_is_cut_short(tmp_path, end):
    write_imagenet(tmp_path, 2)
    source = open_source(f"imagenet:{tmp_path}", "TRAIN")
    cut(tmp_path / "train.00001.tar", end)
    with pytest.raises(DataError, match=r"train.00001.tar is (no tar that can be read, or is )?cut short") as caught:
        read(source, bad=BadRecords("skip"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("phase", "remove", "uri", "message"),
    [
        ("TRAIN", "", "imagenet:", "wants a folder of tars, or a pattern"),
        ("TRAIN", "", "imagenet:{0}/none", "none does not exist"),
        ("TRAIN", "*.tar", "imagenet:{0}", r"there is no file ending in \.tar"),
        ("TRAIN", "train.txt", "imagenet:{0}", r"there is no train.txt beside the tars, .*: \?labels=FILE"),
        ("TEST", "", "imagenet:{0}", "none is for phase TEST: none has val or test in its name"),
        ("TEST", "", "imagenet:{0}/*.tar", "there is no val.txt or test.txt beside the tars"),
        ("TRAIN", "", "imagenet:{0}?labels=none.txt", "none.txt cannot be read"),
        ("TRAIN", "", "imagenet:{0}?label=none.txt", "has no option `label` .* did you mean `labels`"),
    ],
)
def test_wrong_tars(tmp_path, phase, remove, uri, message):
    write_imagenet(tmp_path)
    for file in tmp_path.glob(remove) if remove else ():
        file.unlink()
    with pytest.raises(DataError, match=message) as caught:
        open_source(uri.format(tmp_path), phase)
    assert "\n" not in str(caught.value)


def test_whole_images_are_told_from_cut_ones():
    for kind in (".jpg", ".png"):
        whole = coded(noise(1, (3, 60, 80))[0], kind)
        check_whole(whole)
        check_whole(whole + b"more behind the end")
        for end in (len(whole) // 2, len(whole) - 1):
            with pytest.raises(DataError, match="is cut short"):
                check_whole(whole[:end])
    damaged = bytearray(coded(noise(1)[0]))
    damaged[60] ^= 1
    with pytest.raises(DataError, match="the checksum of its chunk"):
        check_whole(bytes(damaged))
