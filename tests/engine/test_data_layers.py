"""Data layers that read their files themselves: what Caffe's nets got from the same files, order, threads, errors."""

import gc
import json
import pathlib
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import h5py
import lmdb
import numpy as np
import pytest
from google.protobuf import text_format
from shared import shared, shared_names

from sparknet_dsl import caffe_ext
from sparknet_dsl.caffe_ext.prefetch import Prefetcher
from sparknet_dsl.errors import DataError, EngineError, LayerError, OutputError
from sparknet_dsl.proto import caffe_pb2


def message(layers: str) -> caffe_pb2.NetParameter:
    return text_format.Parse(layers, caffe_pb2.NetParameter())


def net_of(layers: str, phase: int = caffe_ext.TEST, seed: int = 1) -> caffe_ext.Net:
    return caffe_ext.Net(message(layers), phase, seed=seed)


def layer(type: str, fields: str, tops: str = 'top: "x" top: "t"') -> str:
    return f'layer {{ name: "d" type: "{type}" {tops} {fields} }}'


def passes(net: caffe_ext.Net, count: int, blob: str = "t") -> np.ndarray:
    """The values of a blob after each of `count` passes, one after the other."""
    values = []
    for _ in range(count):
        net.forward()
        values.append(net.blobs[blob].data.copy())
    return np.concatenate(values)


# ---- what Caffe computed ----


@pytest.mark.parametrize("name", [name[:-9] for name in shared_names("golden/interop/transforms", "*.prototxt")])
def test_caffes_transforms(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared("golden/interop")
    monkeypatch.chdir(folder)
    [meta] = [entry for entry in json.loads((folder / "index.json").read_text())["transforms"] if entry["name"] == name]
    net = caffe_ext.Net(f"transforms/{name}.prototxt", caffe_ext.TEST)
    scale = message(pathlib.Path(f"transforms/{name}.prototxt").read_text()).layer[0].transform_param.scale
    with np.load(f"transforms/{name}.npz") as want:
        for n in range(meta["forwards"]):
            net.forward()
            for blob in ("data", "label"):
                np.testing.assert_allclose(
                    net.blobs[blob].data,
                    want[f"{n}:{blob}"],
                    rtol=1e-6,
                    atol=1e-5 + meta["pixel_tol"] * scale,
                    err_msg=f"{n}:{blob}",
                )


def test_caffes_hdf5_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shared("golden/interop"))
    net = caffe_ext.Net("hdf5/net.prototxt", caffe_ext.TEST)
    assert net.inputs == []
    with np.load("hdf5/expected.npz") as want:
        assert len(want.files) == 18
        for n in range(6):
            net.forward()
            for blob in net.blobs:
                np.testing.assert_array_equal(net.blobs[blob].data, want[f"{n}:{blob}"])


def test_caffes_memory_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shared("golden/interop/memorydata"))
    net = caffe_ext.Net("net.prototxt", caffe_ext.TEST)
    with np.load("expected.npz") as want:
        net.set_input_arrays(want["data"], want["labels"])
        for n in range(4):
            net.forward()
            for blob in ("data", "label", "y"):
                np.testing.assert_array_equal(net.blobs[blob].data, want[f"{n}:{blob}"])


def test_caffes_hdf5_output(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared("golden/interop/hdf5")
    monkeypatch.chdir(tmp_path)
    net = caffe_ext.Net(folder / "output_net.prototxt", caffe_ext.TEST)
    assert not (tmp_path / "out.h5").exists()
    with np.load(folder / "output_inputs.npz") as inputs:
        for count in (1, 2):
            net.forward(**inputs)
            with h5py.File("out.h5") as got, h5py.File(folder / "output_expected.h5") as want:
                assert set(got) == set(want)
                for name in want:
                    assert got[name].dtype == want[name].dtype
                    np.testing.assert_array_equal(got[name], np.concatenate([want[name]] * count))


# ---- sources of our own ----


def write_lmdb(path: pathlib.Path, images: list[np.ndarray] | list[bytes]) -> pathlib.Path:
    """Records 0, 1, ... with their numbers as labels; bytes are encoded images."""
    with lmdb.open(str(path), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for i, image in enumerate(images):
            if isinstance(image, bytes):
                datum = caffe_pb2.Datum(encoded=True, data=image, label=i)
            else:
                channels, height, width = image.shape
                datum = caffe_pb2.Datum(channels=channels, height=height, width=width, data=image.tobytes(), label=i)
            transaction.put(b"%05d" % i, datum.SerializeToString())
    return path


def noise(count: int, shape: tuple[int, ...] = (3, 4, 5)) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8))


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image.transpose(1, 2, 0))[1].tobytes()


def data_layer(path: pathlib.Path, batch: int = 2, more: str = "", transform: str = "") -> str:
    fields = f'data_param {{ source: "{path}" batch_size: {batch} backend: LMDB {more} }}'
    return layer("Data", f"{fields} transform_param {{ {transform} }}")


def write_list(path: pathlib.Path, shapes: list[tuple[int, int]]) -> str:
    """An ImageData layer's list, with images of these heights and widths, whose numbers are labels."""
    lines = []
    for i, (height, width) in enumerate(shapes):
        cv2.imwrite(str(path / f"{i} x.png"), np.full((height, width, 3), i, np.uint8))
        lines.append(f"{i} x.png {i}")
    (path / "list").write_text("\n".join(lines) + "\n")
    return f'source: "{path}/list" root_folder: "{path}/"'


def test_one_top_and_no_label(tmp_path: pathlib.Path) -> None:
    images = noise(3)
    source = write_lmdb(tmp_path / "db", images)
    net = net_of(data_layer(source).replace('top: "t"', ""))
    assert net.inputs == [] and net.outputs == ["x"]
    np.testing.assert_array_equal(passes(net, 2, "x"), np.stack([*images, images[0]]))


def test_files_of_other_phases_are_not_opened(tmp_path: pathlib.Path) -> None:
    source = write_lmdb(tmp_path / "db", noise(3))
    text = data_layer(source).replace("type:", "include { phase: TEST } type:", 1)
    text += data_layer(tmp_path / "absent").replace("type:", "include { phase: TRAIN } type:", 1)
    net_of(text, caffe_ext.TEST)
    with pytest.raises(LayerError, match=r"layer `d` \(Data\): there is no database .*absent"):
        net_of(text, caffe_ext.TRAIN)
    # The dry run looks at no file.
    assert not caffe_ext.check_net(message(text), caffe_ext.TRAIN).problems


def test_a_part_of_the_net(tmp_path: pathlib.Path) -> None:
    net = net_of(
        data_layer(write_lmdb(tmp_path / "db", noise(5)))
        + 'layer { name: "r" type: "Power" bottom: "x" top: "y" } layer { name: "s" type: "Silence" bottom: "t" }'
    )
    net._native.forward(1, 3)
    assert list(passes(net, 1)) == [0, 1]  # no batch was taken before


def test_random_crops_and_mirrors_are_a_function_of_the_seed(tmp_path: pathlib.Path) -> None:
    images = noise(4, (3, 8, 9))
    source = write_lmdb(tmp_path / "db", images)
    text = data_layer(source, 4, "", "crop_size: 5 mirror: true mean_value: 10 scale: 0.5")
    got = passes(net_of(text, caffe_ext.TRAIN, seed=1), 6, "x")
    np.testing.assert_array_equal(got, passes(net_of(text, caffe_ext.TRAIN, seed=1), 6, "x"))
    assert (got != passes(net_of(text, caffe_ext.TRAIN, seed=2), 6, "x")).any()
    # Each row is a window of its image, flipped or not; all sorts of them occur.
    seen = set()
    for i, row in enumerate(got):
        image = (images[i % 4].astype("f4") - 10) * 0.5
        windows = {
            (y, x, flip): image[:, y : y + 5, x : x + 5][:, :, :: -1 if flip else 1]
            for y in range(4)
            for x in range(5)
            for flip in (False, True)
        }
        [place] = [place for place, window in windows.items() if np.array_equal(window, row)]
        seen.add(place)
    assert len(seen) > 12 and {place[2] for place in seen} == {False, True}


def test_augmented_batches(tmp_path: pathlib.Path) -> None:
    """A layer's own reading, raw or encoded, is what the transformations make of its records, mixup included."""
    images = noise(6, (3, 9, 8))
    encoded = [cv2.imencode(".png", image.transpose(1, 2, 0))[1].tobytes() for image in images]
    transform = "crop_size: 5 random_resized_crop { } color_jitter { hue: 0.3 }"
    seen = {}
    for name, records in (("raw", images), ("encoded", encoded)):
        source = write_lmdb(tmp_path / name, records)
        for mixup in ("", "mixup { alpha: 1 }"):
            net = net_of(data_layer(source, 3, transform=f"{transform} {mixup}"), caffe_ext.TRAIN)
            seen[name, mixup] = passes(net, 4, "x"), passes(net, 2)
            test = net_of(data_layer(source, 3, transform=f"{transform} {mixup}"), caffe_ext.TEST)
            np.testing.assert_array_equal(passes(test, 2, "x"), np.stack(images)[:, :, 2:7, 1:6])
    for mixup in ("", "mixup { alpha: 1 }"):
        for one, other in zip(seen["raw", mixup], seen["encoded", mixup], strict=True):
            np.testing.assert_array_equal(one, other)
    (plain, labels), (mixed, same) = seen["raw", ""], seen["raw", "mixup { alpha: 1 }"]
    np.testing.assert_array_equal(labels, same)
    assert not np.array_equal(plain[:6], plain[6:])  # another epoch
    # Each row of a batch of three is a mean of itself and one of the three.
    for start in range(0, 12, 3):
        for i in range(start, start + 3):
            ways = [np.stack([plain[i].ravel(), plain[j].ravel()], axis=1) for j in range(start, start + 3)]
            rest = [np.abs(way @ np.linalg.lstsq(way, mixed[i].ravel())[0] - mixed[i].ravel()).max() for way in ways]
            assert min(rest) < 1e-2


def test_raw_images_keep_their_channels(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    images = noise(2)
    net = net_of(data_layer(write_lmdb(tmp_path / "db", images), 2, "", "force_gray: true"))
    np.testing.assert_array_equal(passes(net, 2, "x"), np.stack([*images, *images]))
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == [
        "force_color and force_gray change encoded images only, as in Caffe"
    ]


def test_rand_skip(tmp_path: pathlib.Path) -> None:
    source = write_lmdb(tmp_path / "db", noise(7))
    firsts = set()
    for seed in range(12):
        order = passes(net_of(data_layer(source, 2, "rand_skip: 3"), seed=seed), 5)
        firsts.add(int(order[0]))
        np.testing.assert_array_equal(order, (order[0] + np.arange(10)) % 7)
    assert firsts == {0, 1, 2}


def test_image_data_shuffles_each_round(tmp_path: pathlib.Path) -> None:
    listed = write_list(tmp_path, [(4, 5)] * 6)
    text = layer("ImageData", f"image_data_param {{ {listed} batch_size: 4 shuffle: true }}")
    net = net_of(text)
    values = passes(net, 9).reshape(6, 6)  # six rounds of six images
    assert all(sorted(row) == list(range(6)) for row in values)
    assert len({tuple(row) for row in values}) > 3
    np.testing.assert_array_equal(values.ravel(), passes(net_of(text), 9))
    # The image belongs to the label.
    np.testing.assert_array_equal(
        net.blobs["x"].data, np.broadcast_to(values.ravel()[-4:, None, None, None], (4, 3, 4, 5))
    )


def test_images_of_several_sizes(tmp_path: pathlib.Path) -> None:
    listed = write_list(tmp_path, [(4, 5), (6, 7), (4, 5)])
    net = net_of(
        layer("ImageData", f"image_data_param {{ {listed} }}")
        + 'layer { name: "p" type: "Power" bottom: "x" top: "y" }'
    )
    shapes = []
    for _ in range(4):
        net.forward()
        shapes.append(net.blobs["y"].shape)
    assert shapes == [(1, 3, 4, 5), (1, 3, 6, 7), (1, 3, 4, 5), (1, 3, 4, 5)]
    cropped = net_of(
        layer("ImageData", f"image_data_param {{ {listed} batch_size: 3 }} transform_param {{ crop_size: 4 }}")
    )
    assert list(passes(cropped, 1)) == [0, 1, 2]
    mixed = net_of(layer("ImageData", f"image_data_param {{ {listed} batch_size: 3 }}"))
    with pytest.raises(LayerError, match=r"1 x\.png: it is 3 × 6 × 7, and the first of its batch 3 × 4 × 5: crop"):
        mixed.forward()


def write_hdf5(path: pathlib.Path, files: list[int], **shapes: tuple[int, ...]) -> pathlib.Path:
    """HDF5 files with so many rows each; the first value of each row counts rows over all files."""
    first = 0
    for i, rows in enumerate(files):
        with h5py.File(path / f"{i}.h5", "w") as file:
            for name, shape in (shapes or {"x": (2,), "t": ()}).items():
                values = np.zeros((rows, *shape))
                values.reshape(rows, int(np.prod(shape)))[:, :1] = np.arange(first, first + rows)[:, None]
                file[name] = values
        first += rows
    (path / "list").write_text("".join(f"{path}/{i}.h5\n" for i in range(len(files))))
    return path / "list"


def hdf5_layer(source: pathlib.Path, batch: int = 4, more: str = "") -> str:
    return layer("HDF5Data", f'hdf5_data_param {{ source: "{source}" batch_size: {batch} {more} }}')


@pytest.mark.parametrize("batch", [1, 4, 25])
def test_hdf5_data_goes_on_from_file_to_file(batch: int, tmp_path: pathlib.Path) -> None:
    net = net_of(hdf5_layer(write_hdf5(tmp_path, [3, 1, 6]), batch))
    np.testing.assert_array_equal(passes(net, 9), np.arange(9 * batch) % 10)


def test_hdf5_data_shuffles_files_and_rows(tmp_path: pathlib.Path) -> None:
    text = hdf5_layer(write_hdf5(tmp_path, [3, 4, 5]), 6, "shuffle: true")
    rounds = passes(net_of(text), 12).reshape(6, 12)
    file_of = np.repeat([0, 1, 2], [3, 4, 5])
    for row in rounds.astype(int):
        assert sorted(row) == list(range(12))
        assert (np.diff(file_of[row]) != 0).sum() == 2  # file by file
    assert len({tuple(row) for row in rounds}) == 6
    np.testing.assert_array_equal(rounds.ravel(), passes(net_of(text), 12))


def test_memory_data() -> None:
    text = layer("MemoryData", "memory_data_param { batch_size: 2 channels: 1 height: 2 width: 2 }")
    net = net_of(text)
    data = np.arange(16, dtype=np.float32).reshape(4, 1, 2, 2)
    net.set_input_arrays(data, np.arange(4))
    assert list(passes(net, 3)) == [0, 1, 2, 3, 0, 1]
    data[3] = 100  # not copied
    assert (passes(net, 1, "x")[1] == 100).all()
    for wrong, labels, says in [
        (data[:, 0], np.arange(4), r"data of shape \(4, 2, 2\) were given; it takes \(rows, 1, 2, 2\)"),
        (data[:, :, :1], np.arange(4), r"data of shape"),
        (data, np.arange(3), r"labels of shape \(3,\) were given for 4 rows"),
        (data[:3], np.arange(3), "3 rows were given; it takes a multiple of batch_size 2"),
        (data[:0], np.arange(0), "0 rows were given"),
    ]:
        with pytest.raises(LayerError, match=says):
            net.set_input_arrays(wrong, labels)
    with pytest.raises(EngineError, match="a MemoryData layer; this one has none"):
        net_of('layer { name: "i" type: "Input" top: "i" input_param { shape { dim: 1 } } }').set_input_arrays(
            data, data
        )


def test_hdf5_output_needs_rows_and_labels(tmp_path: pathlib.Path) -> None:
    text = """
    layer { name: "i" type: "Input" top: "x" top: "t" input_param { shape { dim: 2 dim: 3 } shape { dim: %d } } }
    layer { name: "o" type: "HDF5Output" bottom: "x" bottom: "t" hdf5_output_param { %s } }
    """
    with pytest.raises(LayerError, match="file_name is missing"):
        net_of(text % (2, ""))
    with pytest.raises(LayerError, match="as many labels as rows"):
        net_of(text % (3, 'file_name: "o"'))
    net = net_of(text % (2, f'file_name: "{tmp_path}/absent/o.h5"'))
    with pytest.raises(OutputError, match=r"cannot write .*absent"):
        net.forward()
    net = net_of(text % (2, f'file_name: "{tmp_path}/o.h5"'))
    net.forward()
    (tmp_path / "o.h5").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot write .*o\.h5"):
        net.forward()


# ---- windows ----

WINDOWS = """# 0
{image}
3
10
12
4
7 0.9 2 3 5 6
0 0.1 0 0 3 3
0 0.49 8 6 11 9
5 0.7 8 6 11 9
"""


def window_layer(path: pathlib.Path, fields: str = "", transform: str = "crop_size: 4") -> str:
    return layer(
        "WindowData",
        f'window_data_param {{ source: "{path}/w" root_folder: "{path}/" {fields} }} transform_param {{ {transform} }}',
    )


def write_windows(path: pathlib.Path, text: str = WINDOWS) -> np.ndarray:
    image = np.random.default_rng(3).integers(0, 256, (10, 12, 3), np.uint8)
    cv2.imwrite(str(path / "a.png"), image)
    (path / "w").write_text(text.format(image="a.png"))
    return image.transpose(2, 0, 1).astype(np.float32)


def test_windows(tmp_path: pathlib.Path) -> None:
    image = write_windows(tmp_path)
    transform = "crop_size: 4 mean_value: 1 mean_value: 2 mean_value: 3 scale: 0.5 mirror: true"
    net = net_of(
        window_layer(tmp_path, "batch_size: 8 fg_fraction: 0.25 cache_images: true", transform), caffe_ext.TRAIN
    )
    seen = set()
    for _ in range(12):
        net.forward()
        data, labels = net.blobs["x"].data, net.blobs["t"].data
        assert list(labels[:6]) == [0] * 6 and set(labels[6:]) <= {5, 7}  # six of the background, then two others
        for row, label in zip(data, labels, strict=True):
            pixels = row / 0.5 + np.array([1, 2, 3], np.float32)[:, None, None]
            [place] = [
                (label, y, x, flip)
                for y, x in ((3, 2), (0, 0), (6, 8))
                for flip in (False, True)
                if np.array_equal(image[:, y : y + 4, x : x + 4][:, :, :: -1 if flip else 1], pixels)
            ]
            seen.add(place)
    assert {place[:3] for place in seen} == {(7, 3, 2), (5, 6, 8), (0, 0, 0), (0, 6, 8)}
    assert {place[3] for place in seen} == {False, True}


def test_the_share_of_foreground_windows(tmp_path: pathlib.Path) -> None:
    write_windows(tmp_path)
    labels = passes(net_of(window_layer(tmp_path, "batch_size: 10 fg_fraction: 0.7")), 3).reshape(3, 10)
    assert (labels[:, :3] == 0).all() and (labels[:, 3:] > 0).all()


def test_windows_with_context(tmp_path: pathlib.Path) -> None:
    image = write_windows(tmp_path, "# 0 {image} 3 10 12 1 7 0.9 0 6 3 9")
    net = net_of(
        window_layer(tmp_path, "batch_size: 1 fg_fraction: 1 context_pad: 1", "crop_size: 6 mean_value: 9"),
        caffe_ext.TRAIN,
    )
    net.forward()
    got = net.blobs["x"].data[0]
    # The window's centre is (2, 8), half a side 2; with context 3. So it reaches from -1 to 5 and from 5 to 11, seven
    # pixels which become six. In the image are x from 0 to 5, 5 of 6 pixels, and y from 5 to 9, 4 of 6.
    assert (got[:, :, 0] == 0).all() and (got[:, 4:] == 0).all()
    part = np.ascontiguousarray(image[:, 5:, :6].transpose(1, 2, 0))
    small = cv2.resize(part, (5, 4), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)
    assert np.abs(got[:, :4, 1:] + 9 - small).max() <= 1  # OpenCV rounds twice where it resizes bytes


def test_square_windows(tmp_path: pathlib.Path) -> None:
    image = write_windows(tmp_path, "# 0 {image} 3 10 12 1 7 0.9 2 4 9 5")  # 8 wide, 2 high
    net = net_of(window_layer(tmp_path, 'batch_size: 1 fg_fraction: 1 crop_mode: "square"', "crop_size: 9"))
    net.forward()
    # Centre (6, 5), half a side 4: from 2 to 10 and from 1 to 9, nine pixels.
    np.testing.assert_array_equal(net.blobs["x"].data[0], image[:, 1:10, 2:11])


def test_windows_with_a_mean_image(tmp_path: pathlib.Path) -> None:
    image = write_windows(tmp_path)
    mean = np.random.default_rng(4).standard_normal((1, 3, 8, 8)).astype(np.float32)
    blob = caffe_pb2.BlobProto(num=1, channels=3, height=8, width=8, data=mean.ravel())
    (tmp_path / "m").write_bytes(blob.SerializeToString())
    fields = "batch_size: 1 fg_fraction: 1 fg_threshold: 0.8"
    net = net_of(window_layer(tmp_path, fields, f'crop_size: 4 mean_file: "{tmp_path}/m"'))
    net.forward()
    np.testing.assert_allclose(net.blobs["x"].data[0], image[:, 3:7, 2:6] - mean[0, :, 2:6, 2:6], rtol=1e-6, atol=1e-5)
    older = net_of(window_layer(tmp_path, f"{fields} crop_size: 4 scale: 2", ""))
    older.forward()
    np.testing.assert_array_equal(older.blobs["x"].data[0], 2 * image[:, 3:7, 2:6])


@pytest.mark.parametrize(
    ("windows", "fields", "says"),
    [
        ("# 0 {image} 3 10 12 1 7 0.9 2 3", "", "ends where a corner should stand"),
        ("# 0 {image} 3 10 12 1 7 x 2 3 4 5", "", "`x` stands where an overlap should; in the line"),
        ("# 0 {image} 3 10 12 1 7 0.9 2 3 1e99 5", "", "`1e99` stands where a corner should"),
        ("0 {image} 3 10 12 0", "", "`#` and an index begin each image"),
        ("# 0 {image} 3 10 12 1 0 0.9 2 3 4 5", "", "a foreground window of .* has class 0"),
        ("# 0 {image} 3 10 12 1 7 0.9 2 3 4 5", "", "has no background windows, and a batch needs 3"),
        ("# 0 {image} 3 10 12 1 7 0.2 2 3 4 5", "", "has no foreground windows, and a batch needs 1"),
        (WINDOWS, "context_pad: 2", "context_pad 2 on both sides leaves nothing of crop_size 4"),
        (WINDOWS, 'crop_mode: "x"', 'crop_mode is "warp" or "square", not "x"'),
        (WINDOWS, "fg_fraction: 1.5", "fg_fraction must lie between 0 and 1"),
        (" \n", "", "w is empty"),
    ],
)
def test_refused_windows(windows: str, fields: str, says: str, tmp_path: pathlib.Path) -> None:
    write_windows(tmp_path, windows)
    with pytest.raises(LayerError, match=says):
        net_of(window_layer(tmp_path, f"batch_size: 4 {fields}"))


@pytest.mark.parametrize("fields", ["", "context_pad: 1"])
def test_windows_outside_the_image(fields: str, tmp_path: pathlib.Path) -> None:
    write_windows(tmp_path, "# 0 {image} 3 10 12 1 7 0.9 20 30 24 35")
    net = net_of(window_layer(tmp_path, f"batch_size: 1 fg_fraction: 1 {fields}"))
    with pytest.raises(LayerError, match=r"window 20, 30, 24, 35 of .*a\.png lies outside the image, which is 10 × 12"):
        net.forward()


# ---- what goes wrong ----


def test_sources_that_cannot_be_opened(tmp_path: pathlib.Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    odd = tmp_path / "odd"
    odd.write_text("a.png 1\nb.png two\n")
    images = write_list(tmp_path, [(4, 5)])
    mean = f'mean_file: "{tmp_path}/absent"'
    small = write_lmdb(tmp_path / "small", noise(2))
    for text, says in [
        (
            layer("ImageData", f'image_data_param {{ source: "{tmp_path}/absent" }}'),
            "cannot read .*absent: No such file",
        ),
        (layer("ImageData", f'image_data_param {{ source: "{empty}" }}'), "empty is empty"),
        (layer("ImageData", f'image_data_param {{ source: "{odd}" }}'), "odd: `b.png two` is not `path label`"),
        (layer("ImageData", f"image_data_param {{ {images} rand_skip: 2 }}"), "rand_skip is 2, and .* lists 1 images"),
        (layer("ImageData", f'image_data_param {{ source: "{tmp_path}/list" }}'), "cannot read the image 0 x.png"),
        (hdf5_layer(tmp_path / "absent"), "cannot read .*absent"),
        (hdf5_layer(empty), "empty is empty"),
        (hdf5_layer(odd), "cannot read a.png: there is no such file"),
        (window_layer(tmp_path, "batch_size: 1"), "cannot read .*/w"),
        (data_layer(write_lmdb(tmp_path / "none", [])), "none holds no records"),
        (
            data_layer(small, 2, "", "crop_size: 5"),
            r"00000 of .*small: crop_size 5 is larger than the rows \(3 × 4 × 5",
        ),
        (data_layer(small, 2, "", mean), "cannot read the mean image .*absent"),
        (data_layer(small, 2, "", f"{mean} mean_value: 1"), "cannot read the mean image|both mean_value and a mean"),
        (data_layer(small, 2, "", "mean_value: 1 mean_value: 2"), "has 2 mean_value, but the rows"),
        (data_layer(small, 2, "", "force_color: true force_gray: true"), "exclude each other"),
        (data_layer(small, 2, "prefetch: 0"), "prefetch must be at least 1"),
    ]:
        with pytest.raises(LayerError, match=rf"layer `d` \(\w+\): (?s:.*){says}"):
            net_of(text)


@pytest.mark.parametrize(
    ("shapes", "rows", "says"),
    [
        ({"x": (2,)}, 3, r"0\.h5 has no dataset `t`; it has x"),
        ({"x": (2,), "t": ()}, 0, r"0\.h5: datasets need equally many rows, one at least; there are `x` 0 × 2, `t` 0"),
    ],
)
def test_hdf5_files_without_rows(shapes: dict[str, Any], rows: int, says: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(LayerError, match=says):
        net_of(hdf5_layer(write_hdf5(tmp_path, [rows], **shapes)))


def test_hdf5_files_that_do_not_fit(tmp_path: pathlib.Path) -> None:
    source = write_hdf5(tmp_path, [3, 3])
    with h5py.File(tmp_path / "1.h5", "w") as file:
        file["x"], file["t"] = np.zeros((3, 5)), np.zeros(3)
    net = net_of(hdf5_layer(source, 3))
    net.forward()
    with pytest.raises(LayerError, match=r"1\.h5: the rows of `x` are 5, those of .*0\.h5 2"):
        net.forward()
    with h5py.File(tmp_path / "0.h5", "a") as file:
        del file["t"]
        file["t"] = "text"
    with pytest.raises(LayerError, match=r"0\.h5: `t` is no dataset of numbers"):
        net_of(hdf5_layer(source))
    with h5py.File(tmp_path / "0.h5", "a") as file:
        del file["t"]
        file.create_dataset("t", (10**15,), "f4", chunks=(1000,))  # none of it is stored
    with pytest.raises(LayerError, match=r"0\.h5: `t` has 1,000,000,000,000,000 values, more than fit"):
        net_of(hdf5_layer(source))
    whole = (tmp_path / "1.h5").read_bytes()
    (tmp_path / "0.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LayerError, match=r"0\.h5 is no HDF5 file that can be read, or is damaged"):
        net_of(hdf5_layer(source))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda image: jpeg(image)[:30], "the image cannot be decoded"),
        (lambda image: jpeg(image[:, :3]), "it is 3 × 3 × 5, and the first of its batch 3 × 4 × 5"),
    ],
    ids=["damaged", "another size"],
)
def test_a_bad_record_in_the_middle(spoil: Callable[[np.ndarray], bytes], says: str, tmp_path: pathlib.Path) -> None:
    images = [jpeg(image) for image in noise(8)]
    images[5] = spoil(noise(1)[0])
    net = net_of(data_layer(write_lmdb(tmp_path / "db", images), 2))
    assert list(passes(net, 2)) == [0, 1, 2, 3]  # all batches before
    for _ in range(2):  # and it stays so
        with pytest.raises(LayerError, match=rf"layer `d` \(Data\): record 00005 of .*db: {says}"):
            net.forward()


def test_a_label_out_of_range(tmp_path: pathlib.Path) -> None:
    net = net_of(
        data_layer(write_lmdb(tmp_path / "db", noise(4)))
        + 'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 3 } }'
        + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" }'
    )
    net.forward()
    with pytest.raises(LayerError, match=r"layer `loss`.* label 3"):
        net.forward()


# ---- solvers ----

LEARNS = """
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
"""


def test_solvers_read_a_batch_before_each_pass(tmp_path: pathlib.Path) -> None:
    source = write_hdf5(tmp_path, [10])
    net = message(hdf5_layer(source, 2) + LEARNS)
    param = caffe_pb2.SolverParameter(
        net_param=net, base_lr=0, lr_policy="fixed", iter_size=2, test_iter=[3], test_interval=2, random_seed=1
    )
    solver = caffe_ext.Solver(param)
    seen: list[float] = []
    losses = solver.step(4, lambda k: seen.append(float(solver.net.blobs["t"].data[0])))
    # Weights are 0: the loss of a pass is half the mean square of its labels. Tests have a place of their own.
    labels = np.arange(16.0).reshape(4, 2, 2) % 10
    np.testing.assert_allclose(losses, (labels**2).sum(axis=2).mean(axis=1) / 4)
    assert seen[1:] == [0, 2, 4, 6, 8, 0, 2]  # what the pass before had
    # Two tests of three passes in these steps.
    assert float(solver.test_nets[0].blobs["t"].data[0]) == 0
    assert solver.test(0)["loss"] == pytest.approx((labels.ravel()[2:8] ** 2).mean() / 2)


# ---- threads ----


def threads_of(name: str) -> int:
    return [thread.name for thread in threading.enumerate()].count(f"data layer {name}")


def wait_for_no_thread_of(name: str) -> None:
    until = time.monotonic() + 20
    while threads_of(name) and time.monotonic() < until:
        time.sleep(0.005)
    assert not threads_of(name)


def test_threads_end_with_the_net(tmp_path: pathlib.Path) -> None:
    source = write_lmdb(tmp_path / "db", noise(4))
    net = net_of(data_layer(source).replace('name: "d"', 'name: "dropped"'))
    assert threads_of("dropped") == 0  # before the first pass there is nothing to do
    net.forward()
    assert threads_of("dropped") == 1
    gc.disable()  # without the collector's help
    try:
        del net
        wait_for_no_thread_of("dropped")
    finally:
        gc.enable()


def test_threads_end_after_an_error(tmp_path: pathlib.Path) -> None:
    source = write_lmdb(tmp_path / "db", [jpeg(noise(1)[0]), b"x"])
    net = net_of(data_layer(source, 1).replace('name: "d"', 'name: "fails"'))
    net.forward()
    with pytest.raises(LayerError):
        net.forward()
    wait_for_no_thread_of("fails")


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = caffe_ext.num_threads()
    caffe_ext.set_num_threads(3)
    yield
    caffe_ext.set_num_threads(before)


def decoders() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("decode")}


def wait_for_no_decoder() -> None:
    until = time.monotonic() + 20
    while decoders() and time.monotonic() < until:
        time.sleep(0.005)
    assert not decoders()


@pytest.mark.usefixtures("three_threads")
def test_images_are_decoded_in_threads_that_end_with_the_net(tmp_path: pathlib.Path) -> None:
    gc.collect()  # nets of tests before, which tracebacks hold
    wait_for_no_decoder()
    raw, encoded = noise(50, (3, 30, 40)), [jpeg(image) for image in noise(50, (3, 30, 40))]
    net = net_of(data_layer(write_lmdb(tmp_path / "raw", raw), 20))
    net.forward()
    assert not decoders()
    net = net_of(data_layer(write_lmdb(tmp_path / "db", encoded), 20))
    net.forward()
    assert "decode_0" in decoders() <= {"decode_0", "decode_1", "decode_2"}
    del net
    wait_for_no_decoder()


@pytest.mark.usefixtures("three_threads")
def test_what_is_decoded_does_not_depend_on_the_number_of_threads(tmp_path: pathlib.Path) -> None:
    source = write_lmdb(tmp_path / "db", [jpeg(image) for image in noise(37, (3, 30, 40))])
    text = data_layer(source, 20, "", "crop_size: 17 mirror: true")
    many = net_of(text, caffe_ext.TRAIN)
    images, labels = passes(many, 5, "x"), passes(net_of(text, caffe_ext.TRAIN), 5)
    caffe_ext.set_num_threads(1)
    np.testing.assert_array_equal(images, passes(net_of(text, caffe_ext.TRAIN), 5, "x"))
    np.testing.assert_array_equal(labels, np.arange(100) % 37)


@pytest.mark.usefixtures("three_threads")
def test_of_several_bad_images_the_first_is_named(tmp_path: pathlib.Path) -> None:
    images = [jpeg(image) for image in noise(40, (3, 30, 40))]
    # The later ones fail sooner.
    images[11] = jpeg(noise(1, (3, 300, 400))[0])
    images[12] = images[39] = b"x"
    source = write_lmdb(tmp_path / "db", images)
    for _ in range(5):
        with pytest.raises(LayerError, match=r"record 00011 of .*db: it is 3 × 300 × 400"):
            net_of(data_layer(source, 40)).forward()


def test_the_interpreter_exits(tmp_path: pathlib.Path) -> None:
    """With threads that wait, threads that work and databases that are open."""
    source = write_lmdb(tmp_path / "db", noise(4))
    images = write_lmdb(tmp_path / "images", [jpeg(image) for image in noise(4)])
    script = f"""
    from google.protobuf import text_format
    from sparknet_dsl import caffe_ext
    from sparknet_dsl.proto import caffe_pb2
    caffe_ext.set_num_threads(3)
    nets = [
        caffe_ext.Net(text_format.Parse(text, caffe_pb2.NetParameter()), 0)
        for text in (
            {data_layer(source)!r},
            {data_layer(source, 5000, "prefetch: 1000")!r},
            {data_layer(images, 500, "prefetch: 1000")!r},
        )
    ]
    for net in nets:
        net.forward()
    print("ready")
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")


def test_prefetching_is_bounded() -> None:
    made: list[int] = []

    def items() -> Any:
        for i in range(100):
            made.append(i)
            yield i

    ahead = Prefetcher(items(), 3, "test")
    assert next(ahead) == 0
    until = time.monotonic() + 20
    while len(made) < 4 and time.monotonic() < until:
        time.sleep(0.005)
    time.sleep(0.05)
    assert len(made) == 4
    assert list(ahead) == list(range(1, 100))


def test_errors_of_the_thread_come_in_their_turn() -> None:
    def items() -> Any:
        yield 1
        raise DataError("no more")

    ahead = Prefetcher(items(), 5, "test")
    assert next(ahead) == 1
    for _ in range(3):
        with pytest.raises(DataError, match="no more"):
            next(ahead)
