"""Multiplying in bfloat16: what float32 gives on operands that were rounded to it; nothing else is rounded.

The product of two bfloat16 numbers is a float32, so rounded operands in a float32 net give what the bf16 net must give
but for the order of its sums.
"""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from google.protobuf import text_format
from one_layer import RNG, message_of

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import EngineError
from sparknet_dsl.proto import caffe_pb2

FILLERS = 'weight_filler { type: "gaussian" std: 0.3 } bias_filler { type: "gaussian" }'
# Shape of the bottom, settings.
WINDOWS = {
    "image": ((2, 3, 23, 19), "num_output: 10 kernel_size: 7 stride: 2 pad: 3"),
    "blocks": ((2, 32, 9, 9), "num_output: 48 kernel_size: 3 pad: 1"),
    "odd-channels": ((3, 17, 8, 8), "num_output: 9 kernel_size: 1 stride: 2"),
    "groups": ((2, 12, 9, 9), "num_output: 24 kernel_size: 3 group: 4"),
    "dilation": ((2, 5, 13, 11), "num_output: 6 kernel_size: 3 dilation: 2 bias_term: false"),
    "no-space": ((4, 6), "num_output: 5 kernel_size: 1"),
    "1d": ((2, 7, 9), "num_output: 5 kernel_size: 3"),
    "3d": ((2, 5, 4, 5, 6), "num_output: 5 kernel_size: 3 pad: 1"),
    "axis": ((2, 3, 4, 9, 9), "axis: 2 num_output: 9 kernel_size: 3"),
    # One for whose bottom's gradient oneDNN has nothing in bfloat16 but its reference loops.
    "reference": ((1, 9, 12, 36), "num_output: 15 kernel_h: 5 kernel_w: 25 pad_h: 10 pad_w: 4"),
}

needs_bf16 = pytest.mark.skipif(not caffe_ext.isa().startswith("avx512"), reason="bf16 takes a CPU with AVX-512")
needs_amx = pytest.mark.skipif("amx" not in caffe_ext.isa(), reason="looks at what oneDNN has for AMX")


def rounded(values: np.ndarray) -> np.ndarray:
    """The nearest bfloat16 numbers, ties to even, as float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


def layer(kind: str, fields: str) -> str:
    return f'type: "{kind}" convolution_param {{ {fields} {FILLERS} }}'


def computed(message: caffe_pb2.NetParameter, precision: caffe_ext.Precision, *values: np.ndarray) -> list[np.ndarray]:
    """Output, gradients of bottom, weights and bias, from the bottom, the output's gradient and the parameters."""
    net = caffe_ext.Net(message, caffe_ext.TRAIN, precision=precision)
    bottom, gradient, *params = values
    net.blobs["x0"].data[...] = bottom
    for blob, value in zip(net.params["l"], params, strict=True):
        blob.data[...] = value
    net.forward()
    net.backward(y=gradient)
    found = [net.blobs["y"].data, net.blobs["x0"].diff, *(blob.diff for blob in net.params["l"])]
    return [np.array(each) for each in found]


def operands(message: caffe_pb2.NetParameter) -> list[np.ndarray]:
    net = caffe_ext.Net(message)
    shapes = [net.blobs["x0"].shape, net.blobs["y"].shape, *(blob.shape for blob in net.params["l"])]
    return [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]


def near(got: np.ndarray, want: np.ndarray) -> bool:
    return bool(np.abs(got - want).max() <= 2e-6 * max(1.0, np.abs(want).max()) * np.sqrt(want.size))


@needs_bf16
@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize("window", [name for name in WINDOWS if name != "reference"])
def test_operands_are_rounded_and_nothing_else(kind: str, window: str) -> None:
    shape, fields = WINDOWS[window]
    if window in ("no-space", "1d"):
        fields += " axis: 1"
    message = message_of(layer(kind, fields), shape, force=True)
    bottom, gradient, weights, *bias = operands(message)
    got = computed(message, "bf16", bottom, gradient, weights, *bias)
    want = computed(message, "float32", rounded(bottom), rounded(gradient), rounded(weights), *bias)
    full = computed(message, "float32", bottom, gradient, weights, *bias)
    if kind == "Deconvolution" and bias:
        want[3] = full[3]  # summed up by itself
    for name, ours, theirs, exact in zip(("top", "bottom", "weights", "bias"), got, want, full, strict=False):
        assert near(ours, theirs), name
        assert name == "bias" or not near(ours, exact), name


@needs_bf16
@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
def test_depthwise_ones_stay_in_float32(kind: str) -> None:
    message = message_of(layer(kind, "num_output: 12 group: 12 kernel_size: 3 pad: 1"), (2, 12, 9, 9), force=True)
    values = operands(message)
    for ours, theirs in zip(computed(message, "bf16", *values), computed(message, "float32", *values), strict=True):
        assert near(ours, theirs)


def inner_product(shape: tuple[int, ...], fields: str) -> caffe_pb2.NetParameter:
    return message_of(f'type: "InnerProduct" inner_product_param {{ {fields} {FILLERS} }}', shape, force=True)


@needs_bf16
@pytest.mark.parametrize(
    ("shape", "fields"),
    [
        ((32, 1024), "num_output: 512"),
        ((33, 7, 75), "num_output: 1001 bias_term: false"),
        ((4, 10, 1024), "num_output: 512 axis: 2"),
    ],
)
def test_large_inner_products_round_their_operands(shape: tuple[int, ...], fields: str) -> None:
    message = inner_product(shape, fields)
    bottom, gradient, weights, *bias = operands(message)
    got = computed(message, "bf16", bottom, gradient, weights, *bias)
    want = computed(message, "float32", rounded(bottom), rounded(gradient), rounded(weights), *bias)
    full = computed(message, "float32", bottom, gradient, weights, *bias)
    want[3:] = full[3:]  # the bias's gradient is a sum of values that were not rounded
    for name, ours, theirs, exact in zip(("top", "bottom", "weights", "bias"), got, want, full, strict=False):
        assert near(ours, theirs), name
        assert name == "bias" or not near(ours, exact), name


@needs_bf16
@pytest.mark.parametrize(
    ("shape", "fields"),
    [
        ((32, 1024), "num_output: 511"),
        ((31, 1024), "num_output: 512"),
        ((32, 1024), "num_output: 512 transpose: true"),
    ],
)
def test_inner_products_that_gain_nothing_stay_in_float32(shape: tuple[int, ...], fields: str) -> None:
    message = inner_product(shape, fields)
    values = operands(message)
    for ours, theirs in zip(computed(message, "bf16", *values), computed(message, "float32", *values), strict=True):
        assert np.array_equal(ours, theirs)


@needs_bf16
def test_inner_products_add_up_gradients_and_follow_their_weights() -> None:
    net = caffe_ext.Net(inner_product((32, 1024), "num_output: 512"), caffe_ext.TRAIN, precision="bf16")
    weights, _ = net.params["l"]
    net.blobs["x0"].data[...] = RNG.standard_normal((32, 1024))
    first = net.forward()["y"].copy()
    gradient = RNG.standard_normal(first.shape)
    net.backward(y=gradient)
    once = weights.diff.copy()
    net.backward(y=gradient)
    np.testing.assert_allclose(weights.diff, 2 * once, rtol=1e-5, atol=1e-4)
    weights.data[...] *= 2  # a power of two, so that the rounded values double
    bias = net.params["l"][1].data
    np.testing.assert_allclose(net.forward()["y"] - bias, 2 * (first - bias), rtol=1e-4, atol=1e-3)


@needs_bf16
def test_a_single_row_is_multiplied_in_bfloat16_where_nothing_is_trained() -> None:
    message = inner_product((1, 1024), "num_output: 512")
    net, exact = (caffe_ext.Net(message, caffe_ext.TEST, precision=each) for each in ("bf16", "float32"))
    x, weights, bias = (RNG.standard_normal(shape).astype(np.float32) for shape in ((1, 1024), (512, 1024), (512,)))
    for each, values in ((net, (weights, bias)), (exact, (rounded(weights), bias))):
        for blob, value in zip(each.params["l"], values, strict=True):
            blob.data[...] = value
    assert near(net.forward(x0=x)["y"], exact.forward(x0=rounded(x))["y"])


@needs_bf16
def test_a_bottom_that_changed_is_rounded_anew() -> None:
    message = message_of(layer("Convolution", "num_output: 5 kernel_size: 3"), (2, 4, 6, 6))
    net = caffe_ext.Net(message, precision="bf16")
    first = net.forward(x0=RNG.standard_normal((2, 4, 6, 6)))["y"].copy()
    second = net.forward(x0=RNG.standard_normal((2, 4, 6, 6)))["y"].copy()
    again = caffe_ext.Net(message, precision="bf16")
    for mine, other in zip(again.params["l"], net.params["l"], strict=True):
        mine.data[...] = other.data
    assert not np.array_equal(first, second)
    assert np.array_equal(again.forward(x0=net.blobs["x0"].data)["y"], second)


SMALL = """
layer { name: "data" type: "Input" top: "data" top: "label" input_param {
  shape { dim: 16 dim: 1 dim: 8 dim: 8 } shape { dim: 16 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
  convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "ip" type: "InnerProduct" bottom: "conv2" top: "ip"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def small() -> caffe_pb2.NetParameter:
    return text_format.Parse(SMALL, caffe_pb2.NetParameter())


@needs_bf16
def test_a_net_learns() -> None:
    """Which quarter of a noisy image is bright; the weights keep bits that bfloat16 does not have."""
    param = caffe_pb2.SolverParameter(base_lr=0.1, lr_policy="fixed", momentum=0.9, random_seed=1)
    solver = caffe_ext.Solver(param, small(), precision="bf16")

    def feed(_: int) -> None:
        labels = RNG.integers(0, 4, 16)
        images = RNG.standard_normal((16, 1, 8, 8)) * 0.3
        for image, label in zip(images, labels, strict=True):
            image[0, label // 2 * 4 :, label % 2 * 4 :][:4, :4] += 1
        solver.net.blobs["data"].data[...] = images
        solver.net.blobs["label"].data[...] = labels

    losses = solver.step(60, feed)
    assert np.mean(losses[-5:]) < 0.05 < 1 < losses[0]
    weights = solver.net.params["conv2"][0].data
    assert not np.array_equal(weights, rounded(weights))


@needs_bf16
def test_values_stay_channels_last_between_layers() -> None:
    net = caffe_ext.Net(small(), caffe_ext.TRAIN, precision="bf16")
    net._native.forward(0, len(net.layers))
    layouts = dict(zip(net.blob_names, net._native.layouts(), strict=True))
    assert {layouts[name] for name in ("conv1", "pool1", "conv2")} == {"nhwc"}


@needs_amx
@pytest.mark.parametrize("window", ["blocks", "groups", "reference"])
def test_no_reference_loops(window: str) -> None:
    """What oneDNN says it ran: kernels for AMX, or ordinary ones in float32."""
    shape, fields = WINDOWS[window]
    message = message_of(layer("Convolution", fields), shape, force=True)
    code = (
        "from sparknet_dsl import caffe_ext; from sparknet_dsl.proto import caffe_pb2\n"
        f"message = caffe_pb2.NetParameter.FromString({message.SerializeToString()!r})\n"
        "net = caffe_ext.Net(message, caffe_ext.TRAIN, precision='bf16')\n"
        "net.forward(); net.backward()"
    )
    environment = {**os.environ, "ONEDNN_VERBOSE": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    ran = [line.split(",") for line in done.stdout.splitlines() if ",exec,cpu,convolution," in line]
    assert [each[5] for each in ran] == ["forward_training", "backward_weights", "backward_data"]
    assert not any(each[4].startswith("ref") for each in ran)
    in_bf16 = ["_bf16:" in each[6] for each in ran]
    assert in_bf16 == ([True, True, False] if window == "reference" else [True] * 3)
    assert window == "reference" or all("amx" in each[4] for each in ran)


# ---- refusals ----


def test_another_word_is_refused() -> None:
    with pytest.raises(EngineError, match=r"^precision is float32 or bf16, not fp16$"):
        caffe_ext.Net(small(), precision="fp16")  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="precision is float32 or bf16"):
        caffe_ext.SGDSolver(caffe_pb2.SolverParameter(), small(), precision="half")  # type: ignore[arg-type]


def test_a_cpu_without_avx512_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(SMALL)
    code = "from sparknet_dsl.cli_local import time_command; time_command()"
    command = [sys.executable, "-P", "-c", code, str(path), "--iterations", "1", "--precision"]
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([*command, "bf16"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: precision bf16 takes a CPU with AVX-512, and oneDNN uses avx2 here")
    assert "Traceback" not in done.stderr
    done = subprocess.run([*command, "float32"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "float32)" in done.stdout
