"""Layers that run as one, and memory that goes to who needs it: the same numbers, and what can be looked at after."""

from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import EngineError, LayerError
from sparknet_dsl.proto import caffe_pb2

# A residual block; in place but for the two convolutions and the sum.
BLOCK = """
layer {{ name: "in" type: "Input" top: "x" top: "t"
        input_param {{ shape {{ dim: 4 dim: {channels} dim: 6 dim: 6 }} shape {{ dim: 4 }} }} }}
layer {{ name: "c1" type: "Convolution" bottom: "x" top: "c1"
        convolution_param {{ num_output: {channels} kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "bn1" type: "BatchNorm" bottom: "c1" top: "c1" batch_norm_param {{ {statistics} }} }}
layer {{ name: "scale1" type: "Scale" bottom: "c1" top: "c1" scale_param {{ bias_term: true }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "c1" top: "c1" }}
layer {{ name: "c2" type: "Convolution" bottom: "c1" top: "c2"
        convolution_param {{ num_output: {channels} kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "bn2" type: "BatchNorm" bottom: "c2" top: "c2" batch_norm_param {{ {statistics} }} }}
layer {{ name: "scale2" type: "Scale" bottom: "c2" top: "c2" }}
layer {{ name: "sum" type: "Eltwise" bottom: "c1" bottom: "c2" top: "sum" }}
layer {{ name: "relu2" type: "ReLU" bottom: "sum" top: "sum" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "sum" top: "ip"
        inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "t" top: "loss" }}
"""


def net_of(channels: int = 16, statistics: str = "", **options: Any) -> caffe_ext.Net:
    """With every parameter at random, running statistics, too."""
    message = text_format.Parse(BLOCK.format(channels=channels, statistics=statistics), caffe_pb2.NetParameter())
    net = caffe_ext.Net(message, caffe_ext.TRAIN, seed=1, **options)
    random = np.random.default_rng(0)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = random.uniform(0.5, 1.5, blob.shape) * random.choice([-1, 1], blob.shape)
            if "bn" in blob.name:
                blob.data[...] = np.abs(blob.data)
    net.blobs["x"].data[...] = random.standard_normal(net.blobs["x"].shape)
    net.blobs["t"].data[...] = random.integers(0, 3, 4)
    return net


def gradients(net: caffe_ext.Net) -> dict[str, np.ndarray]:
    return {f"{name} {i}": blob.diff.copy() for name, blobs in net.params.items() for i, blob in enumerate(blobs)}


def passes(net: caffe_ext.Net) -> tuple[float, dict[str, np.ndarray]]:
    net.clear_param_diffs()
    net.forward()
    loss = net.loss
    net.backward()
    return loss, gradients(net)


# Blocked layouts with and without padding, and channels last.
@pytest.mark.parametrize("channels", [16, 13, 5])
@pytest.mark.parametrize("statistics", ["", "use_global_stats: true"])
def test_layers_that_run_as_one_compute_what_they_compute_alone(channels: int, statistics: str) -> None:
    nets = [net_of(channels, statistics, fusion=fusion) for fusion in (True, False)]
    assert any(forward for forward, _ in nets[0]._native.absorbed())
    assert not any(forward for forward, _ in nets[1]._native.absorbed())
    (loss, got), (want_loss, want) = map(passes, nets)
    assert loss == pytest.approx(want_loss, rel=1e-5)
    for key, gradient in want.items():
        np.testing.assert_allclose(
            got[key], gradient, rtol=1e-3, atol=1e-4 * max(1, np.abs(gradient).max()), err_msg=key
        )
    for blob in ("c1", "c2", "sum"):
        np.testing.assert_allclose(nets[0].blobs[blob].data, nets[1].blobs[blob].data, rtol=1e-4, atol=1e-5)
    for layer in ("bn1", "bn2"):
        for i in range(3):
            np.testing.assert_allclose(
                nets[0].params[layer][i].data, nets[1].params[layer][i].data, rtol=1e-5, atol=1e-6
            )


def test_a_pass_in_pieces_runs_each_layer_alone() -> None:
    whole, pieces = net_of(), net_of()
    whole.forward()
    pieces.forward(end="bn1")
    normalised = pieces.blobs["c1"].data.copy()
    assert abs(normalised.mean()) < 1e-5 and (normalised < 0).any()
    pieces.forward(start="scale1")
    np.testing.assert_allclose(pieces.blobs["loss"].data, whole.blobs["loss"].data, rtol=1e-5)
    whole.backward()
    pieces.backward()
    for key, gradient in gradients(whole).items():
        np.testing.assert_allclose(gradients(pieces)[key], gradient, rtol=1e-3, atol=1e-4, err_msg=key)


@pytest.mark.parametrize("piece", [{"start": "scale1"}, {"end": "scale1"}, {"start": "bn1"}])
def test_a_backward_pass_that_cuts_layers_apart_is_refused(piece: dict[str, str]) -> None:
    net = net_of()
    net.forward()
    with pytest.raises(LayerError, match=r"`bn1` to `relu1` have run forward as one.*fusion=False"):
        net.backward(**piece)
    alone = net_of(fusion=False)
    alone.forward()
    alone.backward(**piece)


def test_reused_memory_changes_no_number() -> None:
    kept, reused = net_of(memory="all"), net_of(memory="reuse")
    for _ in range(3):
        (want_loss, want), (loss, got) = passes(kept), passes(reused)
        assert loss == want_loss
        for key, gradient in want.items():
            np.testing.assert_array_equal(got[key], gradient, err_msg=key)


def test_values_that_were_dropped_cannot_be_taken_for_zeros() -> None:
    net = net_of(memory="reuse")
    watched = net.blobs["c1"].diff
    passes(net)
    assert np.abs(watched).max() > 0  # asked for before the pass
    with pytest.raises(EngineError, match=r'dropped.*memory="all"'):
        _ = net.blobs["c2"].diff
    assert net.blobs["loss"].data > 0
    net.forward()
    assert net.blobs["sum"].data.max() > 0  # the backward pass will read it
    with pytest.raises(EngineError, match="memory is all, reuse or lean, not some"):
        net_of(memory="some")


def test_reused_memory_is_less() -> None:
    def held(memory: str) -> int:
        before = caffe_ext.memory_used()
        net = net_of(64, memory=memory)
        passes(net)
        net.forward()
        return caffe_ext.memory_used() - before

    assert held("reuse") < 0.8 * held("all")


def test_relu_after_a_convolution_runs_with_it_in_inference() -> None:
    net = text_format.Parse(BLOCK.format(channels=13, statistics=""), caffe_pb2.NetParameter())
    del net.layer[2:4]  # so that the ReLU follows the convolution
    del net.layer[-1]
    nets = [caffe_ext.Net(net, caffe_ext.TEST, seed=1, fusion=fusion) for fusion in (True, False)]
    assert (1, 0) in nets[0]._native.absorbed()
    values = np.random.default_rng(0).standard_normal(nets[0].blobs["x"].shape)
    for each in nets:
        each.blobs["x"].data[...] = values
        each.forward()
    for blob in ("c1", "ip"):
        np.testing.assert_allclose(nets[0].blobs[blob].data, nets[1].blobs[blob].data, rtol=1e-5, atol=1e-6)
    assert (nets[0].blobs["c1"].data == 0).any()
