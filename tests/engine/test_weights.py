"""Weights between nets and files: Caffe's own legacy files, and ours."""

import json
import pathlib

import numpy as np
import pytest
from google.protobuf import text_format
from shared import shared

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import EngineError, OutputError, WeightsError
from sparknet_dsl.proto import caffe_pb2

FILES = ["weights_v0", "weights_v1", "weights_v1.upgraded", "weights_v2", "weights_v2_partial", "weights_saved"]

NET = text_format.Parse(
    """
    name: "n"
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
    layer { name: "conv" type: "Convolution" bottom: "x" top: "y"
            convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
    layer { name: "bn" type: "BatchNorm" bottom: "y" top: "y" }
    layer { name: "ip" type: "InnerProduct" bottom: "y" top: "z"
            inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
    layer { name: "a" type: "ReLU" bottom: "z" top: "a" }
    layer { name: "b" type: "TanH" bottom: "z" top: "b" }
    """,
    caffe_pb2.NetParameter(),
)


def changed(layer: int, **fields: object) -> caffe_pb2.NetParameter:
    net = caffe_pb2.NetParameter()
    net.CopyFrom(NET)
    net.layer[layer].MergeFrom(caffe_pb2.LayerParameter(**fields))  # type: ignore[arg-type]
    return net


@pytest.mark.parametrize("file", FILES)
def test_legacy_files(file: str) -> None:
    legacy = shared("golden/interop/legacy")
    message = text_format.Parse((legacy / "target_net.prototxt").read_text(), caffe_pb2.NetParameter())
    # Its PReLU has the slope 0.125 throughout: a ReLU with that slope, under another name, computes the same.
    [prelu] = [layer for layer in message.layer if layer.type == "PReLU"]
    prelu.type, prelu.name = "ReLU", "leaky"
    prelu.relu_param.negative_slope = 0.125
    net = caffe_ext.Net(message, caffe_ext.TEST)
    net.flat_data[:] = 0.125
    net.copy_from(legacy / f"{file}.caffemodel")
    loaded = {"ip"} if file == "weights_v2_partial" else {"conv", "ip"}
    with np.load(legacy / "weights_expected.npz") as want:
        for layer, blobs in net.params.items():
            for index, blob in enumerate(blobs):
                expected = want[f"param:{layer}:{index}"] if layer in loaded else np.float32(0.125)
                np.testing.assert_array_equal(blob.data, np.broadcast_to(expected, blob.shape))
        stem = "weights_v2" if file == "weights_saved" else file
        if f"out_ip:{stem}" not in want:
            stem = stem.removesuffix(".upgraded")
        out = net.forward(x=want["in:x"])["ip"]
        np.testing.assert_allclose(out, want[f"out_ip:{stem}"], rtol=1e-4, atol=1e-5)


def test_round_trip(tmp_path: pathlib.Path) -> None:
    first = caffe_ext.Net(NET, caffe_ext.TRAIN, seed=1)
    first.forward(x=np.random.default_rng(0).standard_normal((2, 3, 6, 6)))  # BatchNorm's statistics become something
    path = tmp_path / "n.caffemodel"
    first.save(path)
    for again in (
        caffe_ext.Net(NET, caffe_ext.TEST, weights=path),
        caffe_ext.Net(NET, path, caffe_ext.TEST),
        caffe_ext.Net(NET, str(path)),
    ):
        np.testing.assert_array_equal(again.flat_data, first.flat_data)
    # Caffe's own reading of the file: the layers with Splits, their settings and blobs.
    saved = caffe_pb2.NetParameter.FromString(path.read_bytes())
    assert [layer.name for layer in saved.layer] == first.layer_names
    assert saved.layer[1].convolution_param == NET.layer[1].convolution_param
    assert list(saved.layer[4].top) == first.top_names["z_ip_0_split"]
    assert saved.layer[5].bottom == ["z_ip_0_split_0"]
    assert [list(blob.shape.dim) for blob in saved.layer[1].blobs] == [[4, 3, 3, 3], [4]]


def test_to_proto_and_back() -> None:
    first = caffe_ext.Net(NET, caffe_ext.TRAIN, seed=1)
    message = first.to_proto()
    assert message == caffe_pb2.NetParameter.FromString(message.SerializeToString())
    np.testing.assert_array_equal(message.layer[1].blobs[0].data, first.params["conv"][0].data.ravel())
    again = caffe_ext.Net(message, caffe_ext.TRAIN, seed=2)
    assert again.layer_names == first.layer_names
    np.testing.assert_array_equal(again.flat_data, first.flat_data)
    assert again.to_proto() == message


def test_other_layers_stay_and_unknown_ones_are_ignored(tmp_path: pathlib.Path) -> None:
    first = caffe_ext.Net(NET, caffe_ext.TRAIN, seed=1)
    first.save(tmp_path / "n.caffemodel")
    other = caffe_ext.Net(changed(3, name="new"), caffe_ext.TRAIN, seed=2)
    before = other.params["new"][0].data.copy()
    other.copy_from(tmp_path / "n.caffemodel")
    np.testing.assert_array_equal(other.params["conv"][0].data, first.params["conv"][0].data)
    np.testing.assert_array_equal(other.params["new"][0].data, before)


@pytest.mark.parametrize(
    ("layer", "fields", "says"),
    [
        (3, {"inner_product_param": {"num_output": 6}}, r"layer `ip`, parameter 0: .*5 × 64.*6 × 64"),
        (3, {"inner_product_param": {"bias_term": False}}, r"layer `ip` has 2 parameters there and 1 in this net"),
        (4, {"name": "conv"}, r"layer `conv` has 2 parameters there and 0 in this net"),
    ],
)
def test_files_that_do_not_fit_change_nothing(
    tmp_path: pathlib.Path, layer: int, fields: dict[str, object], says: str
) -> None:
    path = tmp_path / "n.caffemodel"
    caffe_ext.Net(NET, caffe_ext.TRAIN, seed=1).save(path)
    other = caffe_ext.Net(changed(layer, **fields), caffe_ext.TRAIN, seed=2)
    before = other.flat_data.copy()
    with pytest.raises(WeightsError, match=says) as raised:
        other.copy_from(path)
    assert str(path) in str(raised.value)
    np.testing.assert_array_equal(other.flat_data, before)


def test_a_truncated_file_changes_nothing(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "n.caffemodel"
    net = caffe_ext.Net(NET, caffe_ext.TRAIN, seed=1)
    net.save(path)
    whole = path.read_bytes()
    before = net.flat_data.copy()
    for length in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:length])
        try:
            net.copy_from(path)
        except WeightsError as error:
            assert str(path) in str(error)
    np.testing.assert_array_equal(net.flat_data, before)


def test_files_that_cannot_be_written_or_read(tmp_path: pathlib.Path) -> None:
    net = caffe_ext.Net(NET, caffe_ext.TRAIN, seed=1)
    with pytest.raises(OutputError, match="cannot write"):
        net.save(tmp_path / "absent" / "n.caffemodel")
    with pytest.raises(OutputError, match="cannot write"):
        net.save_hdf5(tmp_path / "absent" / "n.caffemodel.h5")
    with pytest.raises(WeightsError, match="absent"):
        net.copy_from(tmp_path / "absent")
    with pytest.raises(EngineError, match=r"Net takes \(network_file, phase\)"):
        caffe_ext.Net(NET, caffe_ext.TRAIN, caffe_ext.TEST)
    assert list(tmp_path.iterdir()) == []


def test_mean_images(tmp_path: pathlib.Path) -> None:
    index = shared("golden/interop/index.json")
    for entry in json.loads(index.read_text())["means"]:
        mean = caffe_ext.read_mean(index.parent / entry["file"])
        want = np.load(index.parent / entry["expected"])
        want = want[want.files[0]] if hasattr(want, "files") else want
        np.testing.assert_array_equal(mean, want.reshape(mean.shape))
        assert mean.ndim == 3
    path = tmp_path / "m.binaryproto"
    for content in (b"", b"\x08", caffe_pb2.BlobProto(shape={"dim": [2]}, data=[1, 2]).SerializeToString()):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"m\.binaryproto"):
            caffe_ext.read_mean(path)
