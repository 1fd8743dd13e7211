"""LSTM and RNN against the formulas, where the golden cases stop: states across passes, other shapes, refused nets."""

from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import LayerError
from sparknet_dsl.proto import caffe_pb2

STATES = {"LSTM": ["h", "c"], "RNN": ["h"]}


def net_of(
    type: str, *, exposed: bool = False, static: bool = False, fields: str = "num_output: 3", **shapes: Any
) -> Any:
    """A net with one layer `l` over `x` (4 steps, 2 streams, 5 values) and its indicators, parameters at random."""
    inputs: dict[str, tuple[int, ...]] = {"x": (4, 2, 5), "cont": (4, 2)}
    if static:
        inputs["z"] = (2, 6)
    tops = ["y"]
    if exposed:
        inputs |= {f"{state}0": (1, 2, 3) for state in STATES[type]}
        tops += [f"{state}T" for state in STATES[type]]
    inputs |= shapes
    net = caffe_pb2.NetParameter(force_backward=True)
    for name, shape in inputs.items():
        net.layer.add(name=name, type="Input", top=[name]).input_param.shape.add(dim=shape)
    layer = net.layer.add(name="l", type=type, bottom=list(inputs), top=tops)
    text_format.Parse(fields, layer.recurrent_param)
    layer.recurrent_param.expose_hidden = exposed
    made = caffe_ext.Net(net, caffe_ext.TRAIN)
    rng = np.random.default_rng(0)
    for blob in made.params["l"]:
        blob.data[...] = 0.5 * rng.standard_normal(blob.shape)
    for name in inputs:
        made.blobs[name].data[...] = rng.standard_normal(made.blobs[name].shape)
    made.blobs["cont"].data[...] = 1
    return made


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def expected(
    net: Any, type: str, states: list[np.ndarray], static: bool = False
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The first top, and the states after the last step."""
    values = [np.array(blob.data, np.float64) for blob in net.params["l"]]
    weights_x, bias = values[:2]
    weights_h = values[3 if static else 2]
    outputs = []
    h = states[0]
    c = states[-1]
    for x, cont in zip(net.blobs["x"].data, net.blobs["cont"].data[..., None], strict=True):
        a = x.reshape(len(x), -1) @ weights_x.T + bias + (cont * h) @ weights_h.T
        if static:
            a = a + net.blobs["z"].data @ values[2].T
        if type == "LSTM":
            i, f, o, g = np.split(a, 4, axis=1)
            c = cont * sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            outputs.append(h)
        else:
            h = np.tanh(a)
            outputs.append(np.tanh(h @ values[-2].T + values[-1]))
    return np.stack(outputs), [h, c][: len(states)]


def close(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def zeros(type: str, streams: int = 2) -> list[np.ndarray]:
    return [np.zeros((streams, 3)) for _ in STATES[type]]


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("type", STATES)
def test_the_state_is_carried_from_pass_to_pass(type: str, static: bool) -> None:
    net = net_of(type, static=static)
    states = zeros(type)
    for turn in range(3):
        if turn == 2:
            net.blobs["cont"].data[0, 1] = 0
        net.forward()
        want, states = expected(net, type, states, static)
        close(net.blobs["y"].data, want)
        net.backward()  # changes no state


@pytest.mark.parametrize("type", STATES)
def test_more_steps_keep_the_state_and_other_streams_begin_anew(type: str) -> None:
    net = net_of(type)
    net.forward()
    _, states = expected(net, type, zeros(type))
    for steps, streams in ((6, 2), (2, 2), (2, 3)):
        net.blobs["x"].reshape(steps, streams, 5)
        net.blobs["cont"].reshape(steps, streams)
        net.reshape()
        net.blobs["x"].data[...] = np.random.default_rng(steps).standard_normal((steps, streams, 5))
        net.blobs["cont"].data[...] = 1
        if streams == 3:
            states = zeros(type, 3)
        net.forward()
        want, states = expected(net, type, states)
        close(net.blobs["y"].data, want)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("type", STATES)
def test_exposed_states(type: str, static: bool) -> None:
    net = net_of(type, exposed=True, static=static)
    for _ in range(2):  # what it ended with last time plays no part
        states = [np.array(net.blobs[f"{state}0"].data[0]) for state in STATES[type]]
        net.forward()
        want, last = expected(net, type, states, static)
        close(net.blobs["y"].data, want)
        for state, values in zip(STATES[type], last, strict=True):
            close(net.blobs[f"{state}T"].data, values[None])
    # No gradient comes out of the last state or reaches the first.
    net.blobs["y"].diff[...] = 0
    net.blobs["hT"].diff[...] = 1
    net.clear_param_diffs()
    net.backward()
    assert not net.blobs["x"].diff.any() and not net.blobs["h0"].diff.any()
    net.blobs["y"].diff[...] = 1
    net.backward()
    assert net.blobs["x"].diff.any() and not net.blobs["h0"].diff.any()


@pytest.mark.parametrize("type", STATES)
def test_gradients_reach_back_to_the_beginning_of_a_stream(type: str) -> None:
    net = net_of(type)
    net.blobs["cont"].data[2, 0] = 0
    net.forward()
    net.blobs["y"].diff[...] = 0
    net.blobs["y"].diff[3] = 1
    net.clear_param_diffs()
    net.backward()
    reached = net.blobs["x"].diff.any(axis=2)
    np.testing.assert_array_equal(reached, [[False, True], [False, True], [True, True], [True, True]])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("type", STATES)
def test_more_than_fits_one_panel_and_one_group_of_steps(type: str, threads: int) -> None:
    before = caffe_ext.num_threads()
    caffe_ext.set_num_threads(threads)
    try:
        net = net_of(type, fields="num_output: 40", x=(5, 50, 71), cont=(5, 50))
        for blob in net.params["l"]:
            blob.data[...] *= 0.2
        net.blobs["cont"].data[3, ::2] = 0
        net.forward()
        states = [np.zeros((50, 40)) for _ in STATES[type]]
        close(net.blobs["y"].data, expected(net, type, states)[0])
        rng = np.random.default_rng(1)
        loss = rng.standard_normal((5, 50, 40))
        net.blobs["y"].diff[...] = loss
        net.clear_param_diffs()
        net.backward()
    finally:
        caffe_ext.set_num_threads(before)
    for blob in [net.blobs["x"], *net.params["l"]]:
        values, direction, step = np.array(blob.data), rng.standard_normal(blob.shape), 2e-3
        losses = []
        for sign in (1, -1):
            blob.data[...] = values + sign * step * direction
            losses.append(np.vdot(expected(net, type, states)[0], loss))
        blob.data[...] = values
        assert np.vdot(blob.diff, direction) == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=5e-3)


def test_threads_change_nothing() -> None:
    whole = net_of("LSTM")
    whole.forward()
    before = caffe_ext.num_threads()
    try:
        caffe_ext.set_num_threads(3)
        other = net_of("LSTM")
        other.forward()
    finally:
        caffe_ext.set_num_threads(before)
    np.testing.assert_allclose(whole.blobs["y"].data, other.blobs["y"].data, rtol=1e-5)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"fields": ""}, "num_output must be at least 1"),
    ({"x": (4, 2)}, "steps × streams × values, not 4 × 2"),
    ({"cont": (4, 3)}, "`cont` must be 4 × 2 for `x` (4 × 2 × 5), not 4 × 3"),
    ({"cont": (4, 2, 1)}, "`cont` must be 4 × 2"),
    ({"static": True, "z": (3, 6)}, "the static input `z` must have 6 values for each of the 2 streams; it is 3 × 6"),
    ({"static": True, "z": (2,)}, "the static input must be streams × values, not 2"),
    ({"exposed": True, "h0": (1, 2, 4)}, "the state `h0` must be 1 × 2 × 3"),
    ({"fields": "num_output: 3 weight_filler { type: 'gauss' }"}, 'unknown filler type "gauss"'),
]


@pytest.mark.parametrize(("given", "says"), REFUSED)
def test_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(LayerError) as caught:
        net_of("LSTM", **given)
    assert says in str(caught.value)


@pytest.mark.parametrize("type", STATES)
def test_numbers_of_bottoms_and_tops(type: str) -> None:
    shapes = " ".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}'
        for name, dims in {"x": "dim: 4 dim: 2 dim: 5", "cont": "dim: 4 dim: 2", "a": "dim: 2 dim: 3"}.items()
    )
    for wiring, says in (
        ('bottom: "x" bottom: "cont" bottom: "a" bottom: "a" top: "y"', "without expose_hidden it takes 2 bottoms"),
        ('bottom: "x" bottom: "cont" top: "y" top: "hT"', "without expose_hidden it makes 1 top; got 2"),
    ):
        layer = f'layer {{ name: "l" type: "{type}" {wiring} recurrent_param {{ num_output: 3 }} }}'
        with pytest.raises(LayerError, match=says):
            caffe_ext.Net(text_format.Parse(shapes + layer, caffe_pb2.NetParameter()), caffe_ext.TRAIN)


def test_no_gradient_for_the_indicators() -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" top: "c"
            input_param { shape { dim: 4 dim: 2 dim: 5 } shape { dim: 4 dim: 3 } } }
    layer { name: "cont" type: "InnerProduct" bottom: "c" top: "cont" inner_product_param { num_output: 2 } }
    layer { name: "l" type: "LSTM" bottom: "x" bottom: "cont" top: "y" loss_weight: 1
            recurrent_param { num_output: 3 } }
    """
    net = caffe_ext.Net(text_format.Parse(text, caffe_pb2.NetParameter()), caffe_ext.TRAIN)
    net.forward()
    with pytest.raises(LayerError, match="no gradient with respect to the continuation indicators `cont`"):
        net.backward()


def test_multiply_adds() -> None:
    for type, static, want in (
        ("LSTM", False, 4 * 2 * 12 * (5 + 3)),
        ("LSTM", True, 4 * 2 * 12 * (5 + 3) + 2 * 12 * 6),
        ("RNN", False, 4 * 2 * 3 * (5 + 3) + 4 * 2 * 3 * 3),
    ):
        inputs = [(4, 2, 5), (4, 2)] + ([(2, 6)] if static else [])
        net = caffe_pb2.NetParameter()
        for i, shape in enumerate(inputs):
            net.layer.add(name=f"x{i}", type="Input", top=[f"x{i}"]).input_param.shape.add(dim=shape)
        layer = net.layer.add(name="l", type=type, bottom=[f"x{i}" for i in range(len(inputs))], top=["y"])
        layer.recurrent_param.num_output = 3
        assert caffe_ext.check_net(net, caffe_ext.TRAIN).layers[-1].multiply_adds == want
