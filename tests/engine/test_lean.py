"""memory="lean": values computed again in the backward pass, to the same bits."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import LayerError
from sparknet_dsl.proto import caffe_pb2

INPUT = """
layer { name: "in" type: "Input" top: "x" top: "t"
        input_param { shape { dim: 8 dim: 16 dim: 12 dim: 12 } shape { dim: 8 } } }
"""
# Layers with random numbers, statistics, workspaces and a shape of their own; in place and not.
BLOCK = """
layer {{ name: "conv{k}" type: "Convolution" bottom: "{below}" top: "conv{k}"
        convolution_param {{ num_output: 16 kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "bn{k}" type: "BatchNorm" bottom: "conv{k}" top: "conv{k}" }}
layer {{ name: "scale{k}" type: "Scale" bottom: "conv{k}" top: "conv{k}" }}
layer {{ name: "relu{k}" type: "ReLU" bottom: "conv{k}" top: "conv{k}" }}
layer {{ name: "norm{k}" type: "LRN" bottom: "conv{k}" top: "norm{k}" }}
layer {{ name: "pool{k}" type: "Pooling" bottom: "norm{k}" top: "pool{k}"
        pooling_param {{ kernel_size: 3 stride: 1 pad: 1 }} }}
layer {{ name: "sum{k}" type: "Eltwise" bottom: "pool{k}" bottom: "{below}" top: "sum{k}" }}
layer {{ name: "drop{k}" type: "Dropout" bottom: "sum{k}" top: "drop{k}" }}
"""
LOSS = """
layer {{ name: "ip{k}" type: "InnerProduct" bottom: "{below}" top: "ip{k}"
        inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss{k}" type: "SoftmaxWithLoss" bottom: "ip{k}" bottom: "t" top: "loss{k}" }}
"""


def chain(*between: str, blocks: int = 6) -> str:
    """Blocks one above the other, a loss half way and at the end; `between` reads `x` and makes `y`, if it is given."""
    text = INPUT + "".join(between)
    below = "y" if between else "x"
    for k in range(blocks):
        text += BLOCK.format(k=k, below=below)
        below = f"drop{k}"
        if k in (blocks // 2, blocks - 1):
            text += LOSS.format(k=k, below=below)
    return text


def net_of(text: str, **options: Any) -> caffe_ext.Net:
    net = caffe_ext.Net(text_format.Parse(text, caffe_pb2.NetParameter()), caffe_ext.TRAIN, seed=1, **options)
    feed(net)
    return net


def feed(net: caffe_ext.Net) -> None:
    random = np.random.default_rng(0)
    for name in net.inputs:
        shape = net.blobs[name].shape
        labels = len(shape) == 1
        net.blobs[name].data[...] = random.integers(0, 3, shape) if labels else random.standard_normal(shape)


def passes(net: caffe_ext.Net, number: int = 3) -> list[npt.NDArray[np.float32]]:
    """What `number` passes compute, and the parameters after them, running statistics among them."""
    found = []
    for _ in range(number):
        feed(net)  # a layer may have written over them
        net.clear_param_diffs()
        net.forward()
        found.append(np.float32(net.loss).reshape(1))
        net.backward()
        found.append(net.flat_diff.copy())
    return [*found, net.flat_data.copy()]


def assert_same_bits(text: str, **options: Any) -> None:
    for want, got in zip(passes(net_of(text, **options)), passes(net_of(text, memory="lean", **options)), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("fusion", [True, False])
def test_the_same_bits(fusion: bool) -> None:
    assert_same_bits(chain(), fusion=fusion)


IN_PLACE = """
layer {{ name: "{name}" type: "Power" bottom: "{blob}" top: "{top}" power_param {{ scale: 0.5 }} }}
"""
LSTM = """
layer { name: "flat" type: "Reshape" bottom: "x" top: "steps" reshape_param { shape { dim: 8 dim: 16 dim: 144 } } }
layer { name: "cont" type: "DummyData" top: "cont"
        dummy_data_param { shape { dim: 8 dim: 16 } data_filler { value: 1 } } }
layer { name: "lstm" type: "LSTM" bottom: "steps" bottom: "cont" top: "h"
        recurrent_param { num_output: 144 weight_filler { type: "xavier" } } }
layer { name: "back" type: "Reshape" bottom: "h" top: "y"
        reshape_param { shape { dim: 8 dim: 16 dim: 12 dim: 12 } } }
"""


@pytest.mark.parametrize(
    "between",
    [
        # Written over, so that it cannot be taken again.
        IN_PLACE.format(name="over", blob="x", top="x") + IN_PLACE.format(name="on", blob="x", top="y"),
        # Goes on with the state in which the pass before ended.
        LSTM,
    ],
    ids=["over an input", "recurrent"],
)
def test_what_cannot_be_computed_again_is_kept(between: str) -> None:
    assert_same_bits(chain(between))


def test_a_layer_in_python_runs_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "counting.py").write_text(
        "from sparknet_dsl import caffe_ext\n\n\n"
        "class Twice(caffe_ext.Layer):\n"
        "    passes = 0\n\n"
        "    def setup(self, bottom, top):\n        pass\n\n"
        "    def reshape(self, bottom, top):\n        top[0].reshape(*bottom[0].shape)\n\n"
        "    def forward(self, bottom, top):\n"
        "        Twice.passes += 1\n        top[0].data[...] = 2 * bottom[0].data\n\n"
        "    def backward(self, top, propagate_down, bottom):\n"
        "        bottom[0].diff[...] = 2 * top[0].diff\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    layer = """
layer { name: "py" type: "Python" bottom: "x" top: "y" python_param { module: "counting" layer: "Twice" } }
"""
    assert_same_bits(chain(layer))
    import counting  # type: ignore[import-not-found]

    assert counting.Twice.passes == 2 * 3


def test_less_is_held_between_the_passes() -> None:
    def held(memory: str) -> int:
        net = net_of(chain(blocks=9), memory=memory)
        passes(net, 1)
        before = caffe_ext.memory_used()
        net.forward()
        return caffe_ext.memory_used() - before

    assert held("lean") < 0.5 * held("reuse")


def test_passes_in_pieces() -> None:
    """Random numbers of a piece are those that it had the first time."""
    found = []
    for memory in ("all", "lean"):
        net = net_of(chain(), memory=memory)
        names = list(net.layer_dict)
        net.forward(end="sum2")
        net.forward(start="drop2")
        start = None
        for end in ("conv4", "bn3", "conv3", "pool1", "conv0"):
            net.backward(start=start, end=end)
            start = names[names.index(end) - 1]
        found.append(net.flat_diff.copy())
    np.testing.assert_array_equal(*found)


def test_backward_wants_a_forward_pass_before_it() -> None:
    net = net_of(chain(), memory="lean")
    passes(net, 1)
    with pytest.raises(LayerError, match="needs a forward pass before it"):
        net.backward()
    net.forward()
    net.backward()


def test_in_the_test_phase_it_is_reuse() -> None:
    message = text_format.Parse(chain(), caffe_pb2.NetParameter())
    results = []
    for memory in ("all", "lean"):
        net = caffe_ext.Net(message, caffe_ext.TEST, seed=1, memory=memory)  # type: ignore[arg-type]
        feed(net)
        results.append(net.forward()["loss5"])
    np.testing.assert_array_equal(*results)
