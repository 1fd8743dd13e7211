"""What the golden cases leave open about losses, Accuracy and the layers that join, split and reshape blobs."""

import numpy as np
import pytest
from google.protobuf import text_format

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import LayerError
from sparknet_dsl.proto import caffe_pb2


def message_of(layers: str, **inputs: tuple[int, ...]) -> caffe_pb2.NetParameter:
    net = caffe_pb2.NetParameter(force_backward=True)
    for name, shape in inputs.items():
        net.layer.add(name=name, type="Input", top=[name]).input_param.shape.add(dim=shape)
    text_format.Merge(layers, net)
    return net


def net_of(layers: str, **inputs: tuple[int, ...]) -> caffe_ext.Net:
    return caffe_ext.Net(message_of(layers, **inputs), caffe_ext.TRAIN, seed=1)


LOSS = 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" top: "y" %s }'
HITS = 'layer { name: "l" type: "Accuracy" bottom: "x" bottom: "t" top: "y" %s }'
JOIN = 'layer { name: "l" type: "Concat" bottom: "a" bottom: "b" bottom: "c" top: "y" %s }'
SUM = 'layer { name: "l" type: "Eltwise" bottom: "a" bottom: "b" top: "y" %s }'
FLAT = 'layer { name: "l" type: "Flatten" bottom: "x" top: "y" flatten_param { %s } }'
SHAPED = 'layer { name: "l" type: "Reshape" bottom: "x" top: "y" reshape_param { %s } }'


REFUSED = [
    (JOIN % "", {"a": (2, 3, 4), "b": (2, 5, 4), "c": (2, 1, 6)}, 2, "`a` 2 × 3 × 4, `b` 2 × 5 × 4, `c` 2 × 1 × 6"),
    (JOIN % "", {"a": (2, 3, 4), "b": (2, 5, 4), "c": (2, 1, 6)}, 2, "`c` has 6 along axis 2, `a` 4"),
    (JOIN % "", {"a": (9, 3, 4), "b": (2, 5, 4), "c": (2, 1, 4)}, 0, "`a` has 9 along axis 0, `b` 2"),
    (JOIN % "", {"a": (2, 3), "b": (2, 5, 4), "c": (2, 1)}, 1, "`b` has 3 axes, `a` 2"),
    (JOIN % "concat_param { axis: 3 }", {"a": (2, 3), "b": (2, 3), "c": (2, 3)}, None, "axis 3 does not exist"),
    (JOIN % "concat_param { concat_dim: 2 }", {"a": (2, 3), "b": (2, 3), "c": (2, 3)}, None, "concat_dim 2 does not"),
    (JOIN % "concat_param { axis: 1 concat_dim: 1 }", {"a": (2,), "b": (2,), "c": (2,)}, None, "axis or concat_dim"),
    (SUM % "", {"a": (2, 256, 3), "b": (2, 64, 3)}, 1, "`a` is 2 × 256 × 3 and `b` is 2 × 64 × 3"),
    (SUM % "eltwise_param { coeff: 1 }", {"a": (2,), "b": (2,)}, None, "each of the 2 bottoms, got 1"),
    (SUM % "eltwise_param { operation: PROD coeff: 1 coeff: 2 }", {"a": (2,), "b": (2,)}, None, "not PROD"),
    (LOSS % "", {"x": (4, 3), "t": (3,)}, 1, "`x` is 4 × 3 and `t` is 3"),
    (LOSS % "", {"x": (4, 3, 5, 6), "t": (4,)}, 1, "needs 120 labels, but `t` (4) has 4"),
    (LOSS % "softmax_param { axis: 2 }", {"x": (4, 3), "t": (4,)}, None, "axis 2 does not exist"),
    (HITS % "", {"x": (4, 3), "t": (5,)}, 1, "needs 4 labels, but `t` (5) has 5"),
    (HITS % "accuracy_param { top_k: 4 }", {"x": (4, 3), "t": (4,)}, None, "top_k 4 is more than the 3 classes"),
    (FLAT % "axis: 2 end_axis: 1", {"x": (2, 3, 4)}, None, "axis 2 comes after end_axis 1"),
    (FLAT % "axis: 3", {"x": (2, 3, 4)}, None, "axis 3 does not exist: the bottom has 3 axes (2 × 3 × 4)"),
    (FLAT % "end_axis: 3", {"x": (2, 3, 4)}, None, "end_axis 3 does not exist"),
    (SHAPED % "shape { dim: -1 dim: -1 }", {"x": (2, 3, 4)}, None, "2 extents -1"),
    (SHAPED % "shape { dim: -2 }", {"x": (2, 3, 4)}, None, "extent -2"),
    (SHAPED % "shape { dim: 5 dim: -1 }", {"x": (2, 3, 4)}, None, "24 elements of 2 × 3 × 4: the others give 5"),
    (SHAPED % "shape { dim: 5 dim: 5 }", {"x": (2, 3, 4)}, None, "has 24 elements, the shape asked for (5 × 5) 25"),
    (SHAPED % "shape { dim: 2 dim: 3 dim: 4 dim: 0 }", {"x": (2, 3, 4)}, None, "copies axis 3"),
    (SHAPED % "axis: 4 shape { dim: -1 }", {"x": (2, 3, 4)}, None, "axis 4 does not exist"),
    (SHAPED % "axis: 1 num_axes: 3 shape { dim: -1 }", {"x": (2, 3, 4)}, None, "num_axes 3 from axis 1 on"),
]


@pytest.mark.parametrize(("layers", "inputs", "bottom", "reason"), REFUSED, ids=[case[3] for case in REFUSED])
def test_refused(layers: str, inputs: dict[str, tuple[int, ...]], bottom: int | None, reason: str) -> None:
    """The constructor raises it, and the dry run reports the same with the bottom that is to blame."""
    with pytest.raises(LayerError) as error:
        net_of(layers, **inputs)
    assert reason in str(error.value)
    assert error.value.layer == "l"
    (problem,) = caffe_ext.check_net(message_of(layers, **inputs), caffe_ext.TRAIN).problems
    assert reason in problem.reason
    assert problem.bottom == bottom


@pytest.mark.parametrize("layer", [LOSS, HITS])
@pytest.mark.parametrize(
    ("label", "said"), [(3, "label 3 "), (-1, "label -1 "), (1e30, "label 1e+30 "), (np.nan, "label nan ")]
)
def test_label_out_of_range(layer: str, label: float, said: str) -> None:
    net = net_of(layer % "", x=(4, 3), t=(4,))
    net.blobs["t"].data[...] = [0, 1, label, 2]
    with pytest.raises(LayerError) as error:
        net.forward()
    assert said in str(error.value)
    assert "number 2 of the batch" in str(error.value)
    assert "3 classes 0 .. 2" in str(error.value)
    net.blobs["t"].data[2] = 0
    net.forward()
    assert np.isfinite(net.blobs["y"].data)


def test_labels_are_truncated() -> None:
    net = net_of(LOSS % "", x=(2, 3), t=(2,))
    net.blobs["x"].data[...] = np.random.default_rng(0).standard_normal((2, 3))
    net.blobs["t"].data[...] = [1, 2]
    whole = net.forward()["y"].copy()
    net.blobs["t"].data[...] = [1.9, 2.2]
    assert net.forward()["y"] == whole


def test_scores_that_are_not_finite_show_in_the_loss() -> None:
    net = net_of(LOSS % "", x=(3, 4), t=(3,))
    net.blobs["x"].data[1, 2] = np.nan
    net.forward()
    assert np.isnan(net.loss)


def test_scores_that_are_nan_are_no_hits() -> None:
    net = net_of(HITS % "", x=(3, 4), t=(3,))
    net.blobs["x"].data[...] = np.nan
    net.forward()
    assert net.blobs["y"].data == 0


def test_two_tops_are_refused() -> None:
    text = 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" top: "y" top: "z" }'
    with pytest.raises(LayerError):
        net_of(text, x=(2, 3), t=(2,))


def test_loss_follows_the_batch() -> None:
    net = net_of(LOSS % "", x=(4, 3), t=(4,))
    for batch in (2, 7):
        net.blobs["x"].reshape(batch, 3)
        net.blobs["t"].reshape(batch)
        net.reshape()
        scores = np.random.default_rng(batch).standard_normal((batch, 3))
        truth = np.arange(batch) % 3
        net.blobs["x"].data[...] = scores
        net.blobs["t"].data[...] = truth
        net.forward()
        want = np.mean(np.log(np.exp(scores).sum(1)) - scores[np.arange(batch), truth])
        assert net.loss == pytest.approx(want, rel=1e-5)
        net.backward()
        probability = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        np.testing.assert_allclose(net.blobs["x"].diff, (probability - np.eye(3)[truth]) / batch, atol=1e-6)


@pytest.mark.parametrize("layer", [FLAT % "", SHAPED % "shape { dim: 0 dim: -1 }"])
def test_top_shares_values_and_gradient(layer: str) -> None:
    in_place = 'layer { name: "r" type: "ReLU" bottom: "y" top: "y" }'
    net = net_of(layer + in_place, x=(2, 3, 4))
    for batch in (2, 5):
        net.blobs["x"].reshape(batch, 3, 4)
        net.reshape()
        values = np.random.default_rng(0).standard_normal((batch, 3, 4)).astype(np.float32)
        net.blobs["x"].data[...] = values
        net.forward()
        np.testing.assert_array_equal(net.blobs["y"].data, np.maximum(values, 0).reshape(batch, 12))
        np.testing.assert_array_equal(net.blobs["x"].data, np.maximum(values, 0))
        net.blobs["y"].diff[...] = 3
        net.backward()
        np.testing.assert_array_equal(net.blobs["x"].diff, np.where(values > 0, 3, 0))


def test_branches_without_gradient_count_as_zero() -> None:
    scores = """
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "a"
                inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
        layer { name: "l" type: "SoftmaxWithLoss" bottom: "a" bottom: "t" top: "y" }
    """
    hits = 'layer { name: "h" type: "Accuracy" bottom: "a" bottom: "t" top: "z" }'
    gradients = []
    for layers in (scores, scores + hits):
        message = message_of(layers, x=(2, 3), t=(2,))
        message.force_backward = False
        net = caffe_ext.Net(message, caffe_ext.TRAIN, seed=1)
        net.blobs["x"].data[...] = np.arange(6).reshape(2, 3)
        for _ in range(2):
            net.clear_param_diffs()
            net.forward()
            net.backward()
            gradients.append(net.params["ip"][0].diff.copy())
    assert np.any(gradients[0])
    for other in gradients[1:]:
        np.testing.assert_array_equal(gradients[0], other)


@pytest.mark.parametrize("operation", ["SUM", "MAX"])
def test_bottoms_of_sum_and_maximum_may_be_overwritten(operation: str) -> None:
    text = f"""
        layer {{ name: "p" type: "Scale" bottom: "x" top: "a" }}
        layer {{ name: "l" type: "Eltwise" bottom: "a" bottom: "z" top: "y"
                 eltwise_param {{ operation: {operation} }} }}
        layer {{ name: "f" type: "Flatten" bottom: "a" top: "f" }}
        layer {{ name: "r" type: "ReLU" bottom: "f" top: "f" }}
    """  # Flatten's top is the blob `a` itself
    net = net_of(text, x=(2, 3), z=(2, 3))
    x = np.array([[-1, -2, 3], [4, -5, 6]], np.float32)
    z = np.array([[-3, -1, 1], [7, -2, 8]], np.float32)
    net.blobs["x"].data[...] = x
    net.blobs["z"].data[...] = z
    net.params["p"][0].data[...] = 1
    net.forward()
    np.testing.assert_array_equal(net.blobs["f"].data, np.maximum(x, 0))
    np.testing.assert_array_equal(net.blobs["a"].data, np.maximum(x, 0))
    net.blobs["y"].diff[...] = 2
    net.backward()
    wins = x > z if operation == "MAX" else np.ones_like(x, bool)
    np.testing.assert_array_equal(net.blobs["x"].diff, np.where(wins, 2, 0))


def test_silence_clears_the_gradient() -> None:
    net = net_of('layer { name: "l" type: "Silence" bottom: "x" }', x=(2, 3))
    net.blobs["x"].diff[...] = 5
    net.forward()
    net.backward()
    np.testing.assert_array_equal(net.blobs["x"].diff, 0)
    assert not net.outputs
