"""Layer types of Caffe's forks against NumPy written from the papers' definitions; what they refuse stands at the end.

Those of detectors have files of their own.
"""

import numpy as np
import pytest
from google.protobuf import text_format
from one_layer import RNG, check_refused, close, net_of, run

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import EngineError, LayerError
from sparknet_dsl.proto import caffe_pb2

# ---- normalisation ----


def by_channel(values: np.ndarray, axes: int) -> np.ndarray:
    return values.reshape(1, -1, *[1] * (axes - 2))


@pytest.mark.parametrize("shape", [(4, 3, 2, 5), (6, 3)])
def test_bn_of_pspnet(shape: tuple[int, ...]) -> None:
    layer = 'type: "BN" bn_param { slope_filler { value: 2 } bias_filler { value: 0.5 } momentum: 0.9 eps: 0.01 }'
    net = net_of(layer, shape)
    x = net.blobs["x0"].data.copy()
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    mean, variance = x.mean(axis=axes), x.var(axis=axes)
    want = 2 * (x - by_channel(mean, x.ndim)) / np.sqrt(by_channel(variance, x.ndim) + 0.01) + 0.5
    close(run(net), want)
    assert [blob.data.shape for blob in net.params["l"]] == [(1, 3)] * 4
    close(net.params["l"][2].data[0], 0.1 * mean)
    close(net.params["l"][3].data[0], 0.1 * variance)
    run(net)
    close(net.params["l"][3].data[0], 0.19 * variance)


@pytest.mark.parametrize(("phase", "frozen"), [(caffe_ext.TEST, "false"), (caffe_ext.TRAIN, "true")])
def test_bn_of_pspnet_with_stored_statistics(phase: int, frozen: str) -> None:
    net = net_of(f'type: "BN" bn_param {{ frozen: {frozen} }}', (2, 3, 4, 4), phase=phase)
    # Without fillers the slope is 1; a frozen layer begins with variance 1.
    assert [float(blob.data[0, 0]) for blob in net.params["l"]] == [1, 0, 0, 1 if frozen == "true" else 0]
    slope, bias, mean, variance = (RNG.uniform(0.5, 2, (1, 3)).astype(np.float32) for _ in range(4))
    for blob, values in zip(net.params["l"], (slope, bias, mean, variance), strict=True):
        blob.data[...] = values
    x = net.blobs["x0"].data.copy()
    factor, shift = slope / np.sqrt(variance + 1e-5), bias - mean * slope / np.sqrt(variance + 1e-5)
    close(run(net), x * by_channel(factor, 4) + by_channel(shift, 4))
    close(net.params["l"][2].data, mean)


@pytest.mark.parametrize("moving", ["true", "false"])
def test_bn_of_the_first_files_of_pspnet(moving: str) -> None:
    fields = f"scale_filler {{ value: 2 }} shift_filler {{ value: 1 }} moving_average: {moving} decay: 0.05"
    learning = net_of(f'type: "BN" bn_param {{ {fields} }}', (4, 3, 2, 5))
    x = learning.blobs["x0"].data.copy()
    mean, variance = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    by_batch = 2 * (x - by_channel(mean, 4)) / np.sqrt(by_channel(variance, 4)) + 1
    close(run(learning), by_batch)
    assert [blob.data.shape for blob in learning.params["l"]] == [(1, 3, 1, 1)] * 4
    close(learning.params["l"][2].data.ravel(), 0.05 * mean)
    close(learning.params["l"][3].data.ravel(), 0.05 * variance)
    stored = net_of(f'type: "BN" bn_param {{ {fields} }}', (4, 3, 2, 5), phase=caffe_ext.TEST)
    stored.params["l"][2].data[...] = 0.5
    stored.params["l"][3].data[...] = 4
    close(run(stored, x), x - 0.5 + 1 if moving == "true" else by_batch)
    assert stored.params["l"][3].data[0, 0, 0, 0] == 4


@pytest.mark.parametrize("phase", [caffe_ext.TRAIN, caffe_ext.TEST])
def test_bn_of_segnet(phase: int) -> None:
    fillers = "scale_filler { value: 3 } shift_filler { value: 0.001 }"
    net = net_of(f'type: "BN" bn_param {{ {fillers} }}', (4, 2, 3, 3), phase=phase)
    x = net.blobs["x0"].data.copy()
    scaled = (x - x.mean(axis=(0, 2, 3), keepdims=True)) / x.std(axis=(0, 2, 3), keepdims=True)
    close(run(net), 3 * scaled + 0.001)
    assert [blob.data.shape for blob in net.params["l"]] == [(1, 2, 1, 1)] * 2
    fixed = net_of(f'type: "BN" bn_param {{ {fillers} bn_mode: INFERENCE }}', (4, 2, 3, 3), phase=phase)
    close(run(fixed, x), 3 * x + 0.001)


# ---- sizes ----


def test_upsample_puts_back_what_pooling_took() -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 6 } } }
    layer { name: "pool" type: "Pooling" bottom: "x" top: "most" top: "where"
            pooling_param { kernel_size: 2 stride: 2 } }
    layer { name: "l" type: "Upsample" bottom: "most" bottom: "where" top: "y" upsample_param { pad_out_h: true } }
    """
    net = caffe_ext.Net(text_format.Parse(text, caffe_pb2.NetParameter()), caffe_ext.TEST)
    x = RNG.standard_normal((2, 3, 5, 6)).astype(np.float32)
    net.blobs["x"].data[...] = x
    net.forward()
    padded = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=-np.inf)
    most = padded.reshape(2, 3, 3, 2, 3, 2).max(axis=(3, 5))
    want = np.where(x == np.repeat(np.repeat(most, 2, axis=2), 2, axis=3)[:, :, :5], x, 0)
    np.testing.assert_array_equal(net.blobs["y"].data, want)


@pytest.mark.parametrize(
    ("fields", "shape"),
    [("", (6, 8)), ("scale: 3", (9, 12)), ("scale_h: 2 scale_w: 4", (6, 16)), ("upsample_h: 7 upsample_w: 5", (7, 5))],
)
def test_sizes_of_upsample(fields: str, shape: tuple[int, int]) -> None:
    net = net_of(f'type: "Upsample" upsample_param {{ {fields} }}', (1, 2, 3, 4), (1, 2, 3, 4))
    assert net.blobs["y"].shape == (1, 2, *shape)


def test_upsample_repeats_without_places() -> None:
    net = net_of('type: "Upsample" upsample_param { scale_h: 3 scale_w: 2 }', (2, 3, 4, 5))
    x = net.blobs["x0"].data.copy()
    np.testing.assert_array_equal(run(net), x.repeat(3, axis=2).repeat(2, axis=3))


@pytest.mark.parametrize("place", [-1, 36, np.nan])
def test_upsample_refuses_places_outside(place: float) -> None:
    net = net_of('type: "Upsample"', (1, 1, 3, 3), (1, 1, 3, 3))
    with pytest.raises(LayerError, match="is not in the top"):
        run(net, np.zeros((1, 1, 3, 3)), np.full((1, 1, 3, 3), place))


def interpolate(x: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Linearly along one axis, ends on ends."""
    at = np.linspace(0, x.shape[axis] - 1, size) if size > 1 else np.zeros(1)
    low = np.minimum(at.astype(int), x.shape[axis] - 1)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    shape = [1] * x.ndim
    shape[axis] = size
    share = (at - low).reshape(shape)
    return (1 - share) * x.take(low, axis) + share * x.take(high, axis)


@pytest.mark.parametrize(
    ("fields", "cut", "size"),
    [
        ("height: 9 width: 4", (0, 0), (9, 4)),
        ("height: 1 width: 1", (0, 0), (1, 1)),
        ("zoom_factor: 3", (0, 0), (13, 16)),
        ("shrink_factor: 2", (0, 0), (3, 3)),
        ("shrink_factor: 2 zoom_factor: 2", (0, 0), (5, 5)),
        ("zoom_factor: 2 height: 99 width: 99", (0, 0), (9, 11)),
        ("zoom_factor: 2 pad_beg: -1 pad_end: -2", (1, 2), (3, 5)),
    ],
)
def test_interp(fields: str, cut: tuple[int, int], size: tuple[int, int]) -> None:
    net = net_of(f'type: "Interp" interp_param {{ {fields} }}', (2, 3, 5, 6))
    x = net.blobs["x0"].data.copy()
    part = x[:, :, cut[0] : 5 - cut[1], cut[0] : 6 - cut[1]]
    close(run(net), interpolate(interpolate(part, 2, size[0]), 3, size[1]))


# ---- channels and elements ----


def test_depthwise_convolutions_are_grouped_ones() -> None:
    fields = "kernel_size: 3 pad: 1 stride: 2 dilation: 2"
    plain = net_of(f'type: "Convolution" convolution_param {{ num_output: 4 group: 4 {fields} }}', (2, 4, 7, 8))
    x = plain.blobs["x0"].data.copy()
    for blob in plain.params["l"]:
        blob.data[...] = RNG.standard_normal(blob.shape)
    want = run(plain)
    for layer in (
        f'type: "ConvolutionDepthwise" convolution_param {{ {fields} }}',
        f'type: "ConvolutionDepthwise" convolution_param {{ num_output: 4 {fields} }}',
        f'type: "DepthwiseConvolution" convolution_param {{ num_output: 4 group: 4 {fields} }}',
    ):
        net = net_of(layer, (2, 4, 7, 8))
        for mine, theirs in zip(net.params["l"], plain.params["l"], strict=True):
            mine.data[...] = theirs.data
        close(run(net, x), want)


def test_shuffle_channel() -> None:
    net = net_of('type: "ShuffleChannel" shuffle_channel_param { group: 3 }', (2, 12, 3))
    x = net.blobs["x0"].data.copy()
    np.testing.assert_array_equal(run(net), x.reshape(2, 3, 4, 3).swapaxes(1, 2).reshape(2, 12, 3))


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1, 1)])
def test_axpy(shape: tuple[int, ...]) -> None:
    net = net_of('type: "Axpy"', shape, (2, 3, 4, 5), (2, 3, 4, 5))
    a, x, y = (net.blobs[f"x{i}"].data.copy() for i in range(3))
    close(run(net), a.reshape(2, 3, 1, 1) * x + y)


def test_relu6() -> None:
    values = np.array([-1, 0, 2, 6, 7, np.inf, -np.inf])
    np.testing.assert_array_equal(run(net_of('type: "ReLU6"', (7,)), values), [0, 0, 2, 6, 6, 6, 0])


def test_selu_keeps_mean_and_variance() -> None:
    net = net_of('type: "SeLu"', (20000,))
    x = net.blobs["x0"].data.astype(np.float64)
    y = run(net)
    close(y, 1.050700987 * np.where(x > 0, x, 1.67326324 * np.expm1(x)))
    # The fixed point of the paper, for which the two constants are chosen.
    assert (abs(y.mean()), abs(y.var() - 1)) < (0.03, 0.05)


def test_selu_dropout() -> None:
    net = net_of('type: "SeLuDropout" selu_dropout_param { dropout_ratio: 0.3 }', (40000,))
    x = net.blobs["x0"].data.copy()
    y = run(net)
    values, counts = np.unique(y, return_counts=True)
    dropped = values[counts.argmax()]
    assert counts.max() / y.size == pytest.approx(0.3, abs=0.02)
    assert abs(y.mean()) < 0.03
    assert y.var() == pytest.approx(1, abs=0.05)
    slope, shift = np.polyfit(x[y != dropped], y[y != dropped], 1)
    close(np.array(dropped), slope * -1.75809934 + shift)
    np.testing.assert_array_equal(run(net_of('type: "SeLuDropout"', (9,), phase=caffe_ext.TEST), x[:9]), x[:9])


@pytest.mark.parametrize(("phase", "factor"), [(caffe_ext.TRAIN, 1.0), (caffe_ext.TEST, 0.75)])
def test_dropout_that_scales_in_test(phase: int, factor: float) -> None:
    layer = 'type: "Dropout" dropout_param { dropout_ratio: 0.25 scale_train: false }'
    y = run(net_of(layer, (4000,), phase=phase), np.ones(4000))
    np.testing.assert_array_equal(np.unique(y), [0, factor] if phase == caffe_ext.TRAIN else [factor])
    assert y.mean() == pytest.approx(0.75, abs=0.03)


# ---- what is refused ----

MAP = (2, 4, 6, 6)
BN = 'type: "BN" bn_param { %s }'
UP = 'type: "Upsample" upsample_param { %s }'
INTERP = 'type: "Interp" interp_param { %s }'
DEPTHWISE = 'type: "ConvolutionDepthwise" convolution_param { %s }'
REFUSED: list[tuple[str, list[tuple[int, ...]], str]] = [
    (BN % "", [MAP], "the fields do not tell which BN this is"),
    (BN % "momentum: 0.9 bn_mode: LEARN", [MAP], "the fields contradict each other about which BN this is"),
    (BN % "decay: 0.1 bn_mode: LEARN", [MAP], "the fields contradict each other about which BN this is: "),
    (BN % "decay: -1", [MAP], "decay must be from 0 to 1"),
    (BN % "frozen: true eps: -1", [MAP], "eps must not be below 0"),
    (BN % "momentum: 1.5", [MAP], "momentum must be from 0 to 1"),
    (BN % "frozen: true", [(4,)], "must have a channel axis"),
    (UP % "upsample_h: 9", [MAP, MAP], "upsample_w is missing"),
    (UP % "scale: 2 scale_h: 2 scale_w: 2", [MAP, MAP], "exclude each other"),
    (UP % "scale: 3 pad_out_w: true", [MAP, MAP], "go with scale 2 only"),
    (UP % "upsample_h: 9 upsample_w: 9", [MAP], "upsample_h goes with a second bottom"),
    (UP % "scale: 4000000000", [MAP], "more than 2^31 - 1 elements"),
    (UP % "", [MAP, (2, 4, 6, 5)], "must have the shape of `x0`"),
    (INTERP % "", [MAP], "the size is missing"),
    (INTERP % "zoom_factor: 0", [MAP], "zoom_factor must be at least 1"),
    (INTERP % "zoom_factor: 2 pad_beg: 1", [MAP], "pad_beg must not be above 0"),
    (INTERP % "zoom_factor: 2 pad_beg: -3 pad_end: -3", [MAP], "cut away 6 of 6"),
    (INTERP % "zoom_factor: 2000000000", [MAP], "more than 2^31 - 1 elements"),
    (INTERP % "height: 0 width: 2", [MAP], "height and width must be at least 1"),
    (DEPTHWISE % "kernel_size: 3 num_output: 8", [MAP], "num_output must be the number of channels of the bottom, 4"),
    (DEPTHWISE % "num_output: 4", [MAP], "kernel_size is missing"),
    ('type: "DepthwiseConvolution" convolution_param { num_output: 4 kernel_size: 1 }', [MAP], "group must be the"),
    ('type: "ShuffleChannel" shuffle_channel_param { group: 3 }', [MAP], "group 3 must divide the 4 channels"),
    ('type: "Axpy"', [(2, 3), MAP, MAP], "must have one number for each channel of `x1`"),
    ('type: "Axpy"', [(2, 4), MAP, (2, 4, 6, 1)], "must have the shape of `x1`"),
    ('type: "ReLU6" relu6_param { threshold: -1 }', [MAP], "threshold must be above 0"),
    ('type: "SeLu" selu_param { alpha: 0 }', [MAP], "alpha must be above 0"),
    ('type: "SeLuDropout" selu_dropout_param { dropout_ratio: 1 }', [MAP], "dropout_ratio must be at least 0 and"),
]


@pytest.mark.parametrize(("layer", "shapes", "reason"), REFUSED, ids=[case[2] for case in REFUSED])
def test_refused(layer: str, shapes: list[tuple[int, ...]], reason: str) -> None:
    check_refused(layer, shapes, reason)


def test_extensions_that_a_type_does_not_heed_are_refused() -> None:
    text = 'type: "ReLU" dropout_param { scale_train: false }'
    with pytest.raises(EngineError, match=r"layer `l` \(ReLU\): the engine does not know `scale_train`"):
        net_of(text, (2,))
