"""BatchNorm and Scale as other weights of the convolution before them, in inference."""

import pathlib
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from sparknet_dsl import caffe_ext
from sparknet_dsl.proto import caffe_pb2

NET = """
layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: {channels} dim: 9 dim: 9 }} }} }}
layer {{ name: "conv" type: "{type}" bottom: "x" top: "y"
        convolution_param {{ num_output: {outputs} kernel_size: {kernel} pad: 1 group: {group} bias_term: {bias}
                            weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "y" top: "y" batch_norm_param {{ eps: 0.01 }} }}
layer {{ name: "scale" type: "Scale" bottom: "y" top: "y" scale_param {{ bias_term: {shift} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "y" top: "y" }}
layer {{ name: "sum" type: "Reduction" bottom: "y" top: "sum" reduction_param {{ axis: 1 }} }}
"""
DEFAULTS = {"channels": 16, "outputs": 16, "kernel": 3, "group": 1, "bias": "true", "shift": "true"}
DEFAULTS["type"] = "Convolution"


def net_of(without: tuple[str, ...] = (), options: Any = None, **settings: Any) -> caffe_ext.Net:
    message = text_format.Parse(NET.format(**{**DEFAULTS, **settings}), caffe_pb2.NetParameter())
    layers = [layer for layer in message.layer if layer.name not in without]
    del message.layer[:]
    message.layer.extend(layers)
    net = caffe_ext.Net(message, caffe_ext.TEST, seed=1, **(options or {}))
    randomise(net, 0)
    net.blobs["x"].data[...] = np.random.default_rng(9).standard_normal(net.blobs["x"].shape)
    return net


def randomise(net: caffe_ext.Net, seed: int) -> None:
    random = np.random.default_rng(seed)
    for blobs in net.params.values():
        for blob in blobs:
            values = random.uniform(0.5, 1.5, blob.shape)
            # Statistics are sums, of variances among them; the others have both signs.
            blob.data[...] = values if "bn" in blob.name else values * random.choice([-1, 1], blob.shape)


def absorbed(net: caffe_ext.Net) -> int:
    names = list(net.layer_dict)
    return int(net._native.absorbed()[names.index("conv")][0])


def assert_alike(folded: caffe_ext.Net, alone: caffe_ext.Net, blob: str = "y") -> None:
    for net in (folded, alone):
        net.forward()
    want = alone.blobs[blob].data
    np.testing.assert_allclose(folded.blobs[blob].data, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bias": "false"},
        {"shift": "false"},
        {"kernel": 1},  # not Winograd's
        {"channels": 6, "outputs": 10, "bias": "false"},
        {"group": 4},
        {"group": 16},
        {"type": "DepthwiseConvolution", "group": 16},
        {"without": ("scale",)},
        {"without": ("bn",)},
        {"without": ("relu",)},
        {"without": ("bn", "scale")},
    ],
    ids=str,
)
def test_folded_is_alone(settings: dict[str, Any]) -> None:
    folded, alone = net_of(**settings), net_of(options={"fusion": False}, **settings)
    assert absorbed(folded) == 3 - len(settings.get("without", ()))
    assert absorbed(alone) == 0
    assert_alike(folded, alone)


@pytest.mark.parametrize(("layer", "index"), [("conv", 0), ("conv", 1), ("bn", 0), ("bn", 1), ("bn", 2), ("scale", 0)])
def test_a_changed_parameter_counts(layer: str, index: int) -> None:
    nets = net_of(), net_of(options={"fusion": False})
    assert_alike(*nets)
    before = nets[0].blobs["y"].data.copy()
    for net in nets:
        net.params[layer][index].data[...] *= 2
    assert_alike(*nets)
    assert np.abs(nets[0].blobs["y"].data - before).max() > 1e-3
    # A view that somebody holds may change at any time.
    views = [net.params[layer][index].data for net in nets]
    for factor in (3, 5):
        for view in views:
            view *= factor
        assert_alike(*nets)


def test_stored_parameters_stay_what_they_are(tmp_path: pathlib.Path) -> None:
    net, other = net_of(), net_of()
    want = {name: [blob.data.copy() for blob in blobs] for name, blobs in net.params.items()}
    net.forward()
    net.save(tmp_path / "w.caffemodel")
    for name, blobs in net.params.items():
        for blob, values in zip(blobs, want[name], strict=True):
            np.testing.assert_array_equal(blob.data, values)
    randomise(other, 5)
    other.forward()
    other.copy_from(tmp_path / "w.caffemodel")
    assert_alike(other, net)


def test_statistics_without_weight_are_zero() -> None:
    nets = net_of(), net_of(options={"fusion": False})
    for net in nets:
        net.params["bn"][2].data[...] = 0
    assert_alike(*nets)


def test_another_batch_and_a_pass_in_pieces() -> None:
    folded, alone = net_of(), net_of(options={"fusion": False})
    assert_alike(folded, alone)
    for net in (folded, alone):
        net.blobs["x"].reshape(3, 16, 9, 9)
        net.reshape()
        net.blobs["x"].data[...] = 0.5
    assert_alike(folded, alone)
    folded.forward(end="bn")
    folded.forward(start="scale")
    np.testing.assert_allclose(folded.blobs["y"].data, alone.blobs["y"].data, rtol=1e-4, atol=1e-5)
    assert_alike(folded, alone)


def test_in_bfloat16_and_with_memory_reused() -> None:
    assert_alike(net_of(options={"memory": "reuse"}), net_of(options={"fusion": False}), "sum")
    if "avx512" not in caffe_ext.isa():
        pytest.skip("needs a CPU with AVX-512")
    options = {"precision": "bf16"}
    folded, alone = net_of(options=options), net_of(options={**options, "fusion": False})
    for net in (folded, alone):
        net.forward()
    want = alone.blobs["y"].data
    np.testing.assert_allclose(folded.blobs["y"].data, want, atol=0.02 * np.abs(want).max())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("eps: 0.01", "eps: 0.01 use_global_stats: false"),  # the batch's own statistics
        ("bias_term: {shift} }} }}", "bias_term: {shift} axis: 2 }} }}"),  # a factor for each row
    ],
)
def test_what_is_no_convolution_is_not_folded(old: str, new: str) -> None:
    assert old in NET
    text = NET.replace(old, new).format(**DEFAULTS)
    net = caffe_ext.Net(text_format.Parse(text, caffe_pb2.NetParameter()), caffe_ext.TEST, seed=1)
    assert absorbed(net) == (0 if "global" in new else 1)


def test_training_folds_nothing() -> None:
    message = text_format.Parse(NET.format(**DEFAULTS), caffe_pb2.NetParameter())
    assert absorbed(caffe_ext.Net(message, caffe_ext.TRAIN, seed=1)) == 0
    message.force_backward = True
    assert absorbed(caffe_ext.Net(message, caffe_ext.TEST, seed=1)) == 0
