"""Nets of one layer, for the tests of layer types."""

from collections.abc import Sequence

import numpy as np
import pytest
from google.protobuf import text_format

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import LayerError
from sparknet_dsl.proto import caffe_pb2

RNG = np.random.default_rng(11)


def net_of(
    layer: str, *shapes: tuple[int, ...], phase: int = caffe_ext.TRAIN, force: bool = False, tops: str = 'top: "y"'
) -> caffe_ext.Net:
    """A net of inputs x0, x1.. with random values and one layer `l`."""
    net = caffe_ext.Net(message_of(layer, *shapes, force=force, tops=tops), phase, seed=3)
    for i in range(len(shapes)):
        net.blobs[f"x{i}"].data[...] = RNG.standard_normal(shapes[i])
    return net


def message_of(
    layer: str, *shapes: tuple[int, ...], force: bool = False, tops: str = 'top: "y"'
) -> caffe_pb2.NetParameter:
    net = caffe_pb2.NetParameter(force_backward=force)
    for i, shape in enumerate(shapes):
        net.layer.add(name=f"x{i}", type="Input", top=[f"x{i}"]).input_param.shape.add(dim=shape)
    bottoms = " ".join(f'bottom: "x{i}"' for i in range(len(shapes)))
    text_format.Merge(f'layer {{ name: "l" {bottoms} {tops} {layer} }}', net)
    return net


def run(net: caffe_ext.Net, *inputs: np.ndarray) -> np.ndarray:
    for i, values in enumerate(inputs):
        net.blobs[f"x{i}"].data[...] = values
    net.forward()
    return np.array(net.blobs["y"].data)


def check_refused(layer: str, shapes: Sequence[tuple[int, ...]], reason: str) -> None:
    """Building such a net fails for that reason, and the dry run finds it."""
    with pytest.raises(LayerError) as error:
        net_of(layer, *shapes)
    assert reason in str(error.value)
    assert error.value.layer == "l"
    (problem,) = caffe_ext.check_net(message_of(layer, *shapes), caffe_ext.TRAIN).problems
    assert reason in problem.reason


def close(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
