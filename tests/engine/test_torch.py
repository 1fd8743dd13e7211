"""Random nets, from the same message, in the engine and in PyTorch: loss and every gradient agree.

PyTorch computes in double precision, the engine in single. Both get the same float32 values; what rounding may cost is
TOLERANCE times the largest value of an array, or 1. PyTorch is not among the tests' requirements: pip install
torch==2.13.0. SPARKNET_TORCH_NETS=5000 compares as many nets.
"""

import os
from typing import Any

import numpy as np
import pytest
from bench_modules import bench_module
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparknet_dsl import caffe_ext
from sparknet_dsl.proto import caffe_pb2

torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch==2.13.0")

NETS = int(os.environ.get("SPARKNET_TORCH_NETS", "40"))
TOLERANCE = 2e-4
FILLER = "weight_filler { type: 'gaussian' std: 0.4 } bias_filler { type: 'gaussian' std: 0.2 }"
Shape = tuple[int, ...]


class Builder:
    """A net that grows by one layer at a time; the engine's dry run gives the shapes."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.net = caffe_pb2.NetParameter(force_backward=True)
        self.shapes: dict[str, Shape] = {}
        self.unread: set[str] = set()
        self.classes: dict[str, int] = {}  # of the inputs that are labels

    def choose(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def input(self, shape: Shape, name: str, classes: int = 0) -> str:
        # Before all others: the order of the inputs is PyTorch's order of arguments.
        layer = caffe_pb2.LayerParameter(name=name, type="Input", top=[name])
        layer.input_param.shape.add(dim=shape)
        self.net.layer.insert(sum(each.type == "Input" for each in self.net.layer), layer)
        self.shapes[name] = shape
        if classes:
            self.classes[name] = classes
        return name

    def add(self, type: str, bottoms: list[str], fields: str = "", tops: int = 1) -> list[str]:
        name = f"l{len(self.net.layer)}"
        layer = self.net.layer.add(name=name, type=type, bottom=bottoms)
        layer.top.extend([name] if tops == 1 else [f"{name}_{i}" for i in range(tops)])
        text_format.Merge(fields, layer)
        report = caffe_ext.check_net(self.net, caffe_ext.TRAIN)
        assert not report.problems, report.problems
        for top in layer.top:
            shape = report.blobs[top]
            assert shape is not None
            self.shapes[top] = shape
        self.unread -= set(bottoms)
        self.unread |= set(layer.top)
        return list(layer.top)

    def any_blob(self) -> str:
        return str(self.draw(st.sampled_from(sorted(self.shapes.keys() - self.classes.keys()))))


def windows(build: Builder, shape: Shape, most: int = 3) -> str:
    """kernel, stride and pad that fit into the smallest plane; PyTorch wants pads of at most half a kernel."""
    least = min(shape[2:])
    kernel = build.draw(st.integers(1, min(most, least)))
    stride, pad = build.draw(st.integers(1, kernel)), build.draw(st.integers(0, kernel // 2))
    return f"kernel_size: {kernel} stride: {stride} pad: {pad}"


def convolution(build: Builder, x: str) -> None:
    shape = build.shapes[x]
    group = build.choose(*(g for g in (1, 2, shape[1]) if shape[1] % g == 0))
    outputs = group * build.draw(st.integers(1, 3))
    kernel = build.draw(st.integers(1, min(3, *shape[2:])))
    dilation = build.draw(st.integers(1, 2)) if kernel == 1 or (kernel - 1) * 2 + 1 <= min(shape[2:]) else 1
    stride, pad = build.draw(st.integers(1, 3)), build.draw(st.integers(0, 2))
    bias = build.choose("", "bias_term: false")
    type = build.choose("Convolution", "Deconvolution")
    if type == "Deconvolution" and any((e - 1) * stride + (kernel - 1) * dilation + 1 <= 2 * pad for e in shape[2:]):
        pad = 0
    build.add(
        type,
        [x],
        f"convolution_param {{ num_output: {outputs} group: {group} kernel_size: {kernel} stride: {stride} pad: {pad} "
        f"dilation: {dilation} {bias} {FILLER} }}",
    )


def pooling(build: Builder, x: str) -> None:
    if build.draw(st.integers(0, 4)) == 0:
        build.add("Pooling", [x], f"pooling_param {{ pool: {build.choose('MAX', 'AVE')} global_pooling: true }}")
        return
    how, rounding = build.choose("MAX", "AVE"), build.choose("CEIL", "FLOOR")
    build.add(
        "Pooling", [x], f"pooling_param {{ pool: {how} {windows(build, build.shapes[x])} round_mode: {rounding} }}"
    )


def normalisation(build: Builder, x: str) -> None:
    across = f"lrn_param {{ local_size: {build.choose(3, 5)} alpha: 0.5 beta: 0.75 k: {build.choose(1, 2)} }}"
    within = f"lrn_param {{ local_size: {build.choose(3, 5)} alpha: 0.5 norm_region: WITHIN_CHANNEL }}"
    build.add("LRN", [x], build.choose(across, within))


def statistics(build: Builder, x: str) -> None:
    shape = build.shapes[x]
    values = int(np.prod(shape)) // (shape[1] if len(shape) > 1 else 1)
    # Of two values the variance may come out as nothing but rounding.
    if values < 6:
        return
    build.add("BatchNorm", [x], f"batch_norm_param {{ eps: 0.1 use_global_stats: {build.choose('true', 'false')} }}")


def mvn(build: Builder, x: str) -> None:
    maker = next(layer.type for layer in build.net.layer if x in layer.top)
    # Of values that are all but equal, a softmax's, only rounding is left.
    if maker in ("Input", "Convolution") and int(np.prod(build.shapes[x][2:])) >= 6:
        build.add("MVN", [x], f"mvn_param {{ normalize_variance: {build.choose('true', 'false')} }}")


def scaling(build: Builder, x: str) -> None:
    axes = len(build.shapes[x])
    axis = build.draw(st.integers(0, axes - 1))
    span = build.draw(st.integers(1, axes - axis))
    bias = build.choose("bias_term: true bias_filler { type: 'gaussian' }", "")
    if build.choose(True, False):
        build.add("Scale", [x], f"scale_param {{ axis: {axis} num_axes: {span} {bias} filler {{ type: 'gaussian' }} }}")
    else:
        build.add("Bias", [x], f"bias_param {{ axis: {axis} num_axes: {span} filler {{ type: 'gaussian' }} }}")


def elementwise(build: Builder, x: str) -> None:
    fields = {
        "ReLU": build.choose("", "relu_param { negative_slope: 0.25 }"),
        "PReLU": build.choose("", "prelu_param { channel_shared: true }"),
        "ELU": build.choose("", "elu_param { alpha: 0.5 }"),
        "Swish": build.choose("", "swish_param { beta: 1.5 }"),
        "Power": "power_param { power: 2 scale: 0.5 shift: 1 }",
    }
    type = build.choose("ReLU", "PReLU", "ELU", "Sigmoid", "TanH", "BNLL", "AbsVal", "Swish", "Power")
    if type != "PReLU" or len(build.shapes[x]) > 1:
        build.add(type, [x], fields.get(type, ""))


def joining(build: Builder, x: str) -> None:
    shape = build.shapes[x]
    alike = sorted(name for name, other in build.shapes.items() if other == shape and name not in build.classes)
    bottoms = [x, *build.draw(st.lists(st.sampled_from(alike), min_size=1, max_size=2))]
    kind = build.choose("SUM", "COEFF", "PROD", "MAX", "CONCAT")
    if kind == "CONCAT":
        build.add("Concat", bottoms, f"concat_param {{ axis: {build.draw(st.integers(0, len(shape) - 1))} }}")
    elif kind == "COEFF":
        coefficients = " ".join(f"coeff: {build.choose(1, -0.5, 2)}" for _ in bottoms)
        build.add("Eltwise", bottoms, f"eltwise_param {{ {coefficients} }}")
    elif kind != "MAX" or len(set(bottoms)) == len(bottoms):  # of equal values each engine takes another one
        build.add("Eltwise", bottoms, f"eltwise_param {{ operation: {kind} }}")


def cutting(build: Builder, x: str) -> None:
    shape = build.shapes[x]
    axes = [axis for axis, extent in enumerate(shape) if extent > 1]
    if axes:
        axis = build.draw(st.sampled_from(axes))
        point = build.draw(st.integers(1, shape[axis] - 1))
        build.add("Slice", [x], f"slice_param {{ axis: {axis} slice_point: {point} }}", tops=2)


def shaping(build: Builder, x: str) -> None:
    axis = build.draw(st.integers(0, len(build.shapes[x]) - 1))
    options = {
        "Flatten": f"flatten_param {{ axis: {axis} }}",
        "Tile": f"tile_param {{ axis: {axis} tiles: 2 }}",
        "Softmax": f"softmax_param {{ axis: {axis} }}",
        "Reduction": f"reduction_param {{ axis: {max(axis, 1)} operation: {build.choose('SUM', 'SUMSQ', 'MEAN')} }}",
    }
    type = build.choose(*options)
    if type != "Reduction" or len(build.shapes[x]) > 1:
        build.add(type, [x], options[type])


def product(build: Builder, x: str) -> None:
    if len(build.shapes[x]) < 2:
        return
    axis = build.draw(st.integers(1, len(build.shapes[x]) - 1))
    build.add(
        "InnerProduct",
        [x],
        f"inner_product_param {{ num_output: {build.draw(st.integers(1, 20))} axis: {axis} "
        f"transpose: {build.choose('true', 'false')} {build.choose('', 'bias_term: false')} {FILLER} }}",
    )


def loss(build: Builder, x: str) -> None:
    shape = build.shapes[x]
    weight = f"loss_weight: {build.choose(1, 0.5, -2)}"
    kind = build.choose("SoftmaxWithLoss", "EuclideanLoss", "SigmoidCrossEntropyLoss", "HingeLoss")
    classes = int(np.prod(shape[1:]))
    if kind == "SoftmaxWithLoss" and len(shape) > 1:
        axis = build.draw(st.integers(1, len(shape) - 1))
        label = build.input((*shape[:axis], *shape[axis + 1 :]), f"label{len(build.net.layer)}", shape[axis])
        ignore = build.choose("", "ignore_label: 0")
        mode = build.choose("FULL", "VALID", "BATCH_SIZE", "NONE")
        rule = f"softmax_param {{ axis: {axis} }} loss_param {{ normalization: {mode} {ignore} }}"
        build.add(kind, [x, label], f"{weight} {rule}")
    elif kind == "HingeLoss" and len(shape) > 1:
        label = build.input(shape[:1], f"label{len(build.net.layer)}", classes)
        build.add(kind, [x, label], f"{weight} hinge_loss_param {{ norm: {build.choose('L1', 'L2')} }}")
    elif kind == "SigmoidCrossEntropyLoss":
        build.add(kind, [x, build.input(shape, f"label{len(build.net.layer)}", 2)], weight)
    else:
        build.add("EuclideanLoss", [x, build.input(shape, f"target{len(build.net.layer)}")], weight)


PLANES = [convolution, convolution, pooling, normalisation, mvn]
ANY = [elementwise, elementwise, scaling, statistics, joining, cutting, shaping, product]


@st.composite
def nets(draw: st.DrawFn) -> Builder:
    build = Builder(draw)
    channels = draw(st.sampled_from([1, 2, 4, 6, 16]))
    build.input((draw(st.integers(1, 3)), channels, draw(st.integers(4, 8)), draw(st.integers(4, 8))), "x")
    for _ in range(draw(st.integers(1, 6))):
        x = build.any_blob()
        shape = build.shapes[x]
        if int(np.prod(shape)) > 4000:
            continue
        steps = [*ANY, *PLANES] if len(shape) == 4 else ANY
        draw(st.sampled_from(steps))(build, x)
    for name in sorted(build.unread) or ["x"]:
        loss(build, name)
    return build


@st.composite
def volumes(draw: st.DrawFn) -> Builder:
    """Convolutions along one axis and along three."""
    build = Builder(draw)
    axes = draw(st.sampled_from([1, 3]))
    build.input((2, 4, *draw(st.lists(st.integers(3, 5), min_size=axes, max_size=axes))), "x")
    for _ in range(draw(st.integers(1, 3))):
        draw(st.sampled_from([convolution, convolution, elementwise, scaling]))(build, build.any_blob())
    for name in sorted(build.unread) or ["x"]:
        loss(build, name)
    return build


@st.composite
def sequences(draw: st.DrawFn) -> Builder:
    build = Builder(draw)
    steps, streams = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    x = build.input((steps, streams, draw(st.integers(1, 4))), "x")
    cont = build.input((steps, streams), "cont", 2)
    for _ in range(draw(st.integers(1, 2))):
        type = draw(st.sampled_from(["LSTM", "RNN"]))
        [x] = build.add(
            type,
            [x, cont],
            f"recurrent_param {{ num_output: {draw(st.integers(1, 5))} {FILLER} }} propagate_down: true "
            "propagate_down: false",
        )
    loss(build, x)
    return build


def compare(build: Builder, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ours = caffe_ext.Net(build.net, caffe_ext.TRAIN, seed=seed)
    params: dict[str, list[Any]] = {}
    for name, blobs in ours.params.items():
        for i, blob in enumerate(blobs):
            if ours.layers[ours.layer_names.index(name)].type == "BatchNorm":  # statistics: sums, and their weight
                blob.data[...] = [3.0] if i == 2 else rng.uniform(1, 3, blob.shape)
            params.setdefault(name, []).append(torch.tensor(blob.data.astype(np.float64)))
    inputs = []
    for name in ours.inputs:
        shape, classes = build.shapes[name], build.classes.get(name, 0)
        values = rng.integers(0, classes, shape) if classes else rng.standard_normal(shape)
        ours.blobs[name].data[...] = values
        inputs.append(torch.tensor(ours.blobs[name].data.astype(np.float64), requires_grad=not classes))
    theirs = bench_module("torch_net").TorchNet(build.net, params)
    with np.errstate(all="ignore"):
        ours.forward()
        ours.backward()
    total = theirs(*inputs)
    total.backward()

    assert_close(np.float64(ours.loss), total.detach().numpy(), "loss", build)
    for name, value in zip(ours.inputs, inputs, strict=True):
        if name not in build.classes:
            assert_close(ours.blobs[name].diff, value.grad.numpy(), f"gradient of {name}", build)
    weights = iter(theirs.weights)
    for layer in build.net.layer:
        for i, blob in enumerate(ours.params.get(layer.name, [])):
            weight = next(weights)
            if layer.type != "BatchNorm" and weight.grad is not None:
                assert_close(blob.diff, weight.grad.numpy(), f"gradient of {layer.name}, parameter {i}", build)


def assert_close(got: np.ndarray, want: np.ndarray, what: str, build: Builder) -> None:
    assert got.shape == want.shape, what
    bound = TOLERANCE * max(1.0, float(np.abs(want).max(initial=0.0)))
    worst = float(np.abs(got - want).max(initial=0.0))
    assert worst <= bound, f"{what}: off by {worst:g}, more than {bound:g}, in\n{build.net}"


def many(nets: int) -> Any:
    return settings(max_examples=max(nets, 1), suppress_health_check=list(HealthCheck))


@many(NETS)
@given(build=nets(), seed=st.integers(0, 1000))
def test_nets(build: Builder, seed: int) -> None:
    compare(build, seed)


@many(NETS // 4)
@given(build=volumes(), seed=st.integers(0, 1000))
def test_convolutions_of_one_and_three_axes(build: Builder, seed: int) -> None:
    compare(build, seed)


@many(NETS // 4)
@given(build=sequences(), seed=st.integers(0, 1000))
def test_sequences(build: Builder, seed: int) -> None:
    compare(build, seed)
