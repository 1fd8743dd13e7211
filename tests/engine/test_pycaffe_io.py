"""Images into nets and back, classification and detection, as pycaffe does it."""

import os
import stat
import sys
import types

import cv2
import numpy as np
import pytest
from google.protobuf import text_format
from shared import shared

from sparknet_dsl import caffe_ext as caffe
from sparknet_dsl.errors import DataError, EngineError, OutputError
from sparknet_dsl.proto import caffe_pb2

RNG = np.random.default_rng(0)


def pixels(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


# ---- files ----


def test_images_as_caffe_decoded_them() -> None:
    """What convert_imageset made of the same files: planes of BGR bytes. Decoders of JPEG differ by up to 2."""
    folder = shared("golden/interop")
    want = np.load(folder / "cifar_raw_lmdb.expected.npz")["data"]
    compared = 0
    for line, planes in zip((folder / "cifar_raw_lmdb.list.txt").read_text().splitlines(), want, strict=True):
        path = folder / "images" / line.split()[0].replace("/", "_")
        if path.exists():
            got = caffe.io.load_image(path)[:, :, ::-1].transpose(2, 0, 1) * 255
            assert np.abs(got - planes).max() <= 2.01
            compared += 1
    assert compared >= 5


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (3, np.uint8), (4, np.uint8), (3, np.uint16)])
def test_kinds_of_images(channels: int, dtype: type, tmp_path) -> None:
    stored = pixels(5, 7, channels, dtype=dtype)  # BGR
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), stored)
    rgb = np.repeat(stored, 3, 2) if channels == 1 else stored[:, :, 2::-1]
    want = rgb / np.float32(np.iinfo(dtype).max)
    got = caffe.io.load_image(str(path))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-6)
    gray = caffe.io.load_image(path, color=False)
    np.testing.assert_allclose(gray[:, :, 0], want @ [0.2125, 0.7154, 0.0721], rtol=1e-5)


def test_files_that_are_no_images(tmp_path) -> None:
    for name, content in [("text.png", b"no image"), ("empty.jpg", b"")]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} is no image"):
            caffe.io.load_image(tmp_path / name)
    with pytest.raises(DataError, match=r"cannot read the image .*absent.png: No such file"):
        caffe.io.load_image(tmp_path / "absent.png")


# ---- sizes ----


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("dims", [(20, 31), (7, 5), (9, 11)])
def test_resize_is_opencvs_bilinear(channels: int, dims: tuple[int, int]) -> None:
    image = RNG.standard_normal((9, 11, channels)).astype(np.float32)
    got = caffe.io.resize_image(image, dims)
    want = cv2.resize(image, dims[::-1], interpolation=cv2.INTER_LINEAR).reshape(got.shape)
    assert got.dtype == np.float32 and got.shape == (*dims, channels)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_resize_orders() -> None:
    image = RNG.standard_normal((4, 4, 2))
    nearest = caffe.io.resize_image(image, (8, 8), interp_order=0)
    np.testing.assert_allclose(nearest, image.astype(np.float32).repeat(2, 0).repeat(2, 1))
    ramp = np.tile(np.arange(12.0)[:, None, None], (1, 12, 1))
    cubic = caffe.io.resize_image(ramp, (24, 24), interp_order=3)
    np.testing.assert_allclose(cubic[8:16, 5, 0], np.arange(8, 16) / 2 - 0.25, atol=1e-2)
    for wrong in (np.zeros((4, 4)), np.zeros((0, 4, 3))):
        with pytest.raises(EngineError, match="cannot be resized to 2 × 2"):
            caffe.io.resize_image(wrong, (2, 2))


def test_oversample() -> None:
    images = [pixels(6, 7, 2), pixels(6, 7, 2)]
    crops = caffe.io.oversample(images, (3, 4))
    assert crops.shape == (20, 3, 4, 2)
    for image, ten in zip(images, crops.reshape(2, 10, 3, 4, 2), strict=True):
        places = [(0, 0), (0, 3), (3, 0), (3, 3), (1, 1)]
        for (y, x), crop, mirrored in zip(places, ten[:5], ten[5:], strict=True):
            np.testing.assert_array_equal(crop, image[y : y + 3, x : x + 4])
            np.testing.assert_array_equal(mirrored, crop[:, ::-1])
    with pytest.raises(EngineError, match="no crops of 7 × 4"):
        caffe.io.oversample(images, (7, 4))


# ---- Transformer ----


def transformer(**shapes: tuple[int, ...]) -> caffe.io.Transformer:
    return caffe.io.Transformer(shapes or {"data": (10, 3, 4, 5)})


def test_preprocess_and_back() -> None:
    steps = transformer()
    image = RNG.random((4, 5, 3)).astype(np.float32)
    before = image.copy()
    np.testing.assert_array_equal(steps.preprocess("data", image), image)
    steps.set_transpose("data", (2, 0, 1))
    steps.set_channel_swap("data", (2, 1, 0))
    steps.set_raw_scale("data", 255)
    steps.set_mean("data", np.array([104, 117, 123]))
    steps.set_input_scale("data", 0.5)
    got = steps.preprocess("data", image)
    want = (image[:, :, ::-1].transpose(2, 0, 1) * 255 - [[[104]], [[117]], [[123]]]) * 0.5
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(image, before)
    for back in (steps.deprocess("data", got), steps.deprocess("data", got[None])):
        np.testing.assert_allclose(back, image, atol=1e-5)
    assert steps.preprocess("data", RNG.random((8, 9, 3))).shape == (3, 4, 5)


def test_gray_there_and_back() -> None:
    steps = transformer(data=(1, 1, 4, 5))
    steps.set_transpose("data", (2, 0, 1))
    steps.set_mean("data", np.full((4, 5), 0.5))
    image = RNG.random((4, 5, 1)).astype(np.float32)
    row = steps.preprocess("data", image)
    np.testing.assert_allclose(row[0], image[:, :, 0] - 0.5)
    np.testing.assert_allclose(steps.deprocess("data", row[None]), image, atol=1e-6)


def test_mean_images() -> None:
    steps = transformer()
    mean = RNG.random((3, 4, 5))
    steps.set_mean("data", mean)
    np.testing.assert_allclose(steps.mean["data"], mean.astype(np.float32))
    steps.set_mean("data", np.stack([np.full((8, 8), value) for value in (1, 2, 3)]))
    np.testing.assert_allclose(steps.mean["data"], np.broadcast_to([[[1]], [[2]], [[3]]], (3, 4, 5)))


def test_settings_that_do_not_fit() -> None:
    steps = transformer()
    for call, says in [
        (lambda: steps.set_transpose("data", (0, 1)), r"transpose of input `data` must order 0 to 2; got \(0, 1\)"),
        (lambda: steps.set_channel_swap("data", (0, 1, 1)), "channel swap of input `data` must order 0 to 2"),
        (lambda: steps.set_mean("data", np.zeros(4)), r"a mean of shape \(4,\) does not fit input `data`"),
        (lambda: steps.set_mean("data", np.zeros((4, 4, 5))), "does not fit"),
        (lambda: steps.set_mean("data", np.zeros((1, 3, 4, 5))), "does not fit"),
        (lambda: steps.set_raw_scale("dta", 255), "`dta` is not one of the net's inputs: data"),
        (lambda: steps.preprocess("dta", np.zeros((4, 5, 3))), "`dta` is not"),
    ]:
        with pytest.raises(EngineError, match=says):
            call()


# ---- messages ----


def test_blobprotos() -> None:
    folder = shared("golden/interop")
    for name in ("mean", "mean_rect"):
        blob = caffe_pb2.BlobProto.FromString((folder / f"{name}.binaryproto").read_bytes())
        expected = np.load(folder / f"{name}.binaryproto.expected.npz")
        want = expected[expected.files[0]]
        np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob).reshape(want.shape), want)
    array = RNG.standard_normal((2, 3)).astype(np.float32)
    blob = caffe.io.array_to_blobproto(array, 2 * array)
    assert list(blob.shape.dim) == [2, 3]
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob), array)
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob, return_diff=True), 2 * array)
    legacy = caffe_pb2.BlobProto(num=1, channels=2, height=1, width=2, data=range(4))
    assert caffe.io.blobproto_to_array(legacy).shape == (1, 2, 1, 2)
    legacy.width = 3
    with pytest.raises(EngineError, match="4 values, which do not fit"):
        caffe.io.blobproto_to_array(legacy)
    arrays = [array, array[0]]
    again = caffe.io.blobprotovector_str_to_arraylist(caffe.io.arraylist_to_blobprotovector_str(arrays))
    for got, want in zip(again, arrays, strict=True):
        np.testing.assert_array_equal(got, want)


def test_datums() -> None:
    for image in (pixels(3, 4, 5), RNG.standard_normal((2, 3, 4)).astype(np.float32)):
        datum = caffe.io.array_to_datum(image, 7)
        assert (datum.channels, datum.height, datum.width, datum.label) == (*image.shape, 7)
        assert bool(datum.data) == (image.dtype == np.uint8)
        got = caffe.io.datum_to_array(datum)
        assert got.dtype == image.dtype
        np.testing.assert_array_equal(got, image)
    assert not caffe.io.array_to_datum(pixels(1, 1, 1)).HasField("label")
    with pytest.raises(EngineError, match=r"channels × height × width; the array's shape is \(3,\)"):
        caffe.io.array_to_datum(np.zeros(3))
    with pytest.raises(EngineError, match="encoded"):
        caffe.io.datum_to_array(caffe_pb2.Datum(encoded=True, data=b"jpeg"))
    with pytest.raises(EngineError, match="2 values"):
        caffe.io.datum_to_array(caffe_pb2.Datum(channels=1, height=1, width=3, data=b"12"))


# ---- Classifier, Detector ----

NET = """
name: "means"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { pool: AVE global_pooling: true } }
layer { name: "flat" type: "Flatten" bottom: "pool" top: "mean" }
"""


@pytest.fixture
def model(tmp_path) -> str:
    (tmp_path / "means.prototxt").write_text(NET)
    return str(tmp_path / "means.prototxt")


def test_classifier(model: str) -> None:
    net = caffe.Classifier(
        model,
        None,
        image_dims=(12, 14),
        mean=np.array([1.0, 2.0, 3.0]),
        input_scale=0.5,
        raw_scale=255,
        channel_swap=(2, 1, 0),
    )
    images = [RNG.random((12, 14, 3)).astype(np.float32) for _ in range(3)]
    center = net.predict(images, oversample=False)
    want = [(image[2:10, 3:11].mean((0, 1))[::-1] * 255 - [1, 2, 3]) * 0.5 for image in images]
    np.testing.assert_allclose(center, want, rtol=1e-4)
    crops = caffe.io.oversample(images, (8, 8)).reshape(3, 10, 8, 8, 3)
    want = (crops.mean((1, 2, 3))[:, ::-1] * 255 - [1, 2, 3]) * 0.5
    np.testing.assert_allclose(net.predict(images), want, rtol=1e-4)
    assert net.predict([RNG.random((30, 20, 3))]).shape == (1, 3)


@pytest.fixture
def photo(tmp_path) -> tuple[str, np.ndarray]:
    image = pixels(20, 30, 3)
    cv2.imwrite(str(tmp_path / "photo.png"), image)
    return str(tmp_path / "photo.png"), image[:, :, ::-1] / 255


def test_detector(model: str, photo, monkeypatch: pytest.MonkeyPatch) -> None:
    path, image = photo
    net = caffe.Detector(model, None, channel_swap=(2, 1, 0))
    windows = [(2, 3, 10, 11), (0, 0, 20, 30), (4, 4, 12, 12), (1, 1, 9, 9), (5, 5, 13, 13)]
    found = net.detect_windows([(path, windows[:3]), (path, windows[3:])])
    assert [each["window"] for each in found] == windows and {each["filename"] for each in found} == {path}
    for (top, left, bottom, right), each in zip(windows, found, strict=True):
        if (bottom - top, right - left) == (8, 8):  # not resized
            want = image[top:bottom, left:right].mean((0, 1))[::-1]
            np.testing.assert_allclose(each["prediction"], want, rtol=1e-5)
    with pytest.raises(EngineError, match=r"window \(5, 5, 5, 9\) holds no pixel"):
        net.detect_windows([(path, [(5, 5, 5, 9)])])
    assert net.detect_windows([]) == []
    with pytest.raises(EngineError, match="call detect_windows"):
        net.detect_selective_search([path])
    search = types.SimpleNamespace(get_windows=lambda names: [windows[:1] for _ in names])
    monkeypatch.setitem(sys.modules, "selective_search_ijcv_with_python", search)
    [one] = net.detect_selective_search([path])
    np.testing.assert_array_equal(one["prediction"], found[0]["prediction"])


def test_context_around_windows(model: str) -> None:
    net = caffe.Detector(model, None, mean=np.array([0.25, 0.5, 0.75]), channel_swap=(2, 1, 0), context_pad=2)
    image = np.ones((20, 30, 3), np.float32)
    # A window of 4 × 4 takes half the input: the whole shows 8 × 8, of which the upper rows lie outside.
    crop = net.crop(image, (0, 10, 3, 13))
    assert crop.shape == (8, 8, 3)
    outside = (crop == [0.75, 0.5, 0.25]).all(2)  # the mean, in the picture's order of channels
    inside = (crop == 1).all(2)
    assert (outside | inside).all() and inside[3:].all() and outside[:2].all()
    assert (net.crop(image, (8, 10, 11, 13)) == 1).all()
    with pytest.raises(EngineError, match="context_pad 4 does not fit"):
        net.configure_crop(4)


# ---- draw ----


def test_drawing(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = text_format.Parse(
        NET
        + 'layer { name: "r\\"" type: "ReLU" bottom: "mean" top: "mean" include { phase: TRAIN } }'
        + 'layer { name: "c" type: "Convolution" bottom: "data" top: "c" '
        + "convolution_param { num_output: 1 kernel_size: 3 pad: 1 } }",
        caffe_pb2.NetParameter(),
    )
    caffe.draw.draw_net_to_file(net, tmp_path / "net.dot", "TB")
    lines = (tmp_path / "net.dot").read_text().splitlines()
    assert lines[0] == 'digraph "means" {' and '  rankdir="TB";' in lines
    assert "  blob0 -> layer1;" in lines and "  layer3 -> blob2 [dir=both];" in lines
    assert any('label="r\\" (ReLU)"' in line for line in lines)
    assert any('label="c (Convolution)\\nkernel 3\\npad 1"' in line for line in lines)
    assert "ReLU" not in caffe.draw.dot(net, phase=caffe.TEST) and "ReLU" in caffe.draw.dot(net, phase=caffe.TRAIN)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="install it"):
        caffe.draw.draw_net_to_file(net, tmp_path / "net.png")
    program = tmp_path / "dot"
    program.write_text('#!/bin/sh\n[ "$1" = -Tpng ] || { echo "no such format" >&2; exit 1; }\necho picture\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")
    caffe.draw.draw_net_to_file(net, tmp_path / "net.png")
    assert (tmp_path / "net.png").read_bytes() == b"picture\n"
    with pytest.raises(EngineError, match="as xyz: no such format"):
        caffe.draw.draw_net_to_file(net, tmp_path / "net.xyz")
    with pytest.raises(OutputError):
        caffe.draw.draw_net_to_file(net, tmp_path / "absent" / "net.dot")
