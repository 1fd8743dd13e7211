"""What the golden cases leave open about Convolution, Pooling, InnerProduct, LRN, BatchNorm and Scale.

Rarer settings, compared with NumPy, and what each refuses, in words.
"""

import numpy as np
import pytest
from google.protobuf import text_format

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import LayerError
from sparknet_dsl.proto import caffe_pb2

RNG = np.random.default_rng(7)


def net_of(layer: str, *shapes: tuple[int, ...], phase: int = caffe_ext.TEST, force: bool = True) -> caffe_ext.Net:
    """A net of inputs x0, x1.. and one layer `l` that makes `y`, with random inputs and parameters."""
    text = f"force_backward: {str(force).lower()}\n"
    bottoms = ""
    for i, shape in enumerate(shapes):
        dims = " ".join(f"dim: {extent}" for extent in shape)
        text += f'layer {{ name: "x{i}" type: "Input" top: "x{i}" input_param {{ shape {{ {dims} }} }} }}\n'
        bottoms += f'bottom: "x{i}" '
    text += f'layer {{ name: "l" {bottoms} top: "y" {layer} }}'
    net = caffe_ext.Net(text_format.Parse(text, caffe_pb2.NetParameter()), phase, seed=3)
    for i in range(len(shapes)):
        blob = net.blobs[f"x{i}"]
        blob.data[...] = RNG.standard_normal(blob.shape)
    for blob in net.params.get("l", []):
        blob.data[...] = RNG.standard_normal(blob.shape)
    return net


def run(net: caffe_ext.Net) -> np.ndarray:
    net.forward()
    return np.array(net.blobs["y"].data)


def close(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_convolution_axis_counts_from_the_end() -> None:
    net = net_of('type: "Convolution" convolution_param { num_output: 5 kernel_size: 1 axis: -3 }', (2, 3, 4, 6, 7))
    weights, bias = (blob.data for blob in net.params["l"])
    assert weights.shape == (5, 4, 1, 1)
    close(run(net), np.einsum("oc,abchw->abohw", weights[:, :, 0, 0], net.blobs["x0"].data) + bias[:, None, None])


def test_convolution_without_spatial_axes() -> None:
    net = net_of('type: "Convolution" convolution_param { num_output: 5 }', (4, 3))
    weights, bias = (blob.data for blob in net.params["l"])
    close(run(net), net.blobs["x0"].data @ weights.T + bias)
    net.blobs["y"].diff[...] = 1
    net.clear_param_diffs()
    net.backward()
    close(net.blobs["x0"].diff, np.ones((4, 5)) @ weights)
    close(net.params["l"][0].diff, np.ones((5, 4)) @ net.blobs["x0"].data)
    close(net.params["l"][1].diff, np.full(5, 4.0))


def test_convolution_keeps_its_bottom_apart_per_group() -> None:
    net = net_of('type: "Convolution" convolution_param { num_output: 6 kernel_size: 1 group: 3 }', (2, 9, 4, 4))
    weights, bias = (blob.data for blob in net.params["l"])
    x = net.blobs["x0"].data.reshape(2, 3, 3, 4, 4)
    want = np.einsum("goc,ngchw->ngohw", weights.reshape(3, 2, 3), x).reshape(2, 6, 4, 4) + bias[:, None, None]
    close(run(net), want)


@pytest.mark.parametrize("transpose", [False, True])
def test_inner_product(transpose: bool) -> None:
    field = f"num_output: 5 axis: -2 transpose: {str(transpose).lower()}"
    net = net_of(f'type: "InnerProduct" inner_product_param {{ {field} }}', (2, 3, 4, 2))
    weights, bias = (np.array(blob.data) for blob in net.params["l"])
    matrix = weights.T if transpose else weights
    x = np.array(net.blobs["x0"].data).reshape(6, 8)
    close(run(net), (x @ matrix.T + bias).reshape(2, 3, 5))
    dy = RNG.standard_normal((2, 3, 5)).astype(np.float32)
    # Gradients of parameters add up until they are cleared.
    net.clear_param_diffs()
    for times in (1, 2):
        net.blobs["y"].diff[...] = dy
        net.backward()
        dw = dy.reshape(6, 5).T @ x
        close(net.params["l"][0].diff, times * (dw.T if transpose else dw))
        close(net.params["l"][1].diff, times * dy.reshape(6, 5).sum(0))
        close(net.blobs["x0"].diff, (dy.reshape(6, 5) @ matrix).reshape(2, 3, 4, 2))


# Weights that no cache holds take other ways through core/matrix.cpp, by the number of rows.
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs", "transpose"),
    [(1, 701, 803, False), (3, 701, 803, False), (3, 701, 803, True), (50, 2101, 4003, False), (50, 2101, 4003, True)],
)
def test_inner_product_with_large_weights(rows: int, inputs: int, outputs: int, transpose: bool) -> None:
    field = f"num_output: {outputs} transpose: {str(transpose).lower()}"
    net = net_of(f'type: "InnerProduct" inner_product_param {{ {field} }}', (rows, inputs))
    weights, bias = (blob.data for blob in net.params["l"])
    matrix, x = weights.T if transpose else weights, net.blobs["x0"].data
    np.testing.assert_allclose(run(net), x @ matrix.T + bias, rtol=1e-4, atol=1e-3)
    dy = net.blobs["y"].diff
    dy[...] = RNG.standard_normal(dy.shape)
    net.clear_param_diffs()
    for times in (1, 2):
        net.backward()
        dw = times * (dy.T @ x)
        np.testing.assert_allclose(net.params["l"][0].diff, dw.T if transpose else dw, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(net.blobs["x0"].diff, dy @ matrix, rtol=1e-4, atol=1e-3)


def test_average_of_an_empty_window_is_zero() -> None:
    net = net_of('type: "Pooling" pooling_param { pool: AVE kernel_size: 2 stride: 3 }', (1, 2, 4, 9))
    got = run(net)
    assert got.shape == (1, 2, 2, 4)
    assert (got[..., 3] == 0).all()
    x = net.blobs["x0"].data
    close(got[..., 0, 1], x[:, :, 0:2, 3:5].mean((2, 3)))
    close(got[..., 1, 2], x[:, :, 3:4, 6:8].mean((2, 3)))
    net.blobs["y"].diff[...] = 1
    net.backward()
    close(net.blobs["x0"].diff[0, 0, 0], [0.25, 0.25, 0, 0.25, 0.25, 0, 0.25, 0.25, 0])


def test_maximum_of_an_empty_window_gets_no_gradient() -> None:
    net = net_of('type: "Pooling" pooling_param { kernel_size: 2 stride: 3 }', (1, 1, 4, 9))
    assert (run(net)[..., 3] == -np.finfo(np.float32).max).all()
    net.blobs["y"].diff[...] = 1
    net.backward()
    assert net.blobs["x0"].diff.sum() == 6


def test_stochastic_pooling() -> None:
    layer = 'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }'
    net = net_of(layer, (1, 1, 200, 200), phase=caffe_ext.TRAIN)
    net.blobs["x0"].data[...] = np.tile([[1, 2], [0, 5]], (100, 100))
    got = run(net)
    assert set(np.unique(got)) == {1, 2, 5}
    # 10,000 draws: the standard deviation of each share is at most 0.005.
    for value in (1, 2, 5):
        assert abs((got == value).mean() - value / 8) < 0.025
    net.blobs["y"].diff[...] = 1
    net.backward()
    np.testing.assert_array_equal((net.blobs["x0"].diff * net.blobs["x0"].data).sum(), got.sum())
    assert net.blobs["x0"].diff.sum() == 10000

    net = net_of(layer, (2, 3, 4, 4))
    x = np.abs(net.blobs["x0"].data)
    x[0, 0, :2, :2] = 0
    net.blobs["x0"].data[...] = x
    windows = x.reshape(2, 3, 2, 2, 2, 2)
    sums = windows.sum((3, 5))
    close(run(net), (windows**2).sum((3, 5)) / np.where(sums == 0, 1, sums))


def test_kernel_larger_than_the_input_is_clipped_when_rounding_up() -> None:
    net = net_of('type: "Pooling" pooling_param { kernel_size: 2 stride: 2 }', (1, 2, 1, 1))
    np.testing.assert_array_equal(run(net), net.blobs["x0"].data)


@pytest.mark.parametrize("channels", [3, 16, 20])
def test_batch_norm_on_blocked_layouts(channels: int) -> None:
    # The convolution leaves its output in blocks of channels, the last one padded.
    text = f"""
    force_backward: true
    layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 4 dim: 16 dim: 5 dim: 5 }} }} }}
    layer {{ name: "c" type: "Convolution" bottom: "x" top: "c"
      convolution_param {{ num_output: {channels} kernel_size: 1
      weight_filler {{ type: "gaussian" std: 1 }} }} }}
    layer {{ name: "n" type: "BatchNorm" bottom: "c" top: "n" }}
    layer {{ name: "s" type: "Scale" bottom: "n" top: "n" scale_param {{ bias_term: true }} }}
    layer {{ name: "y" type: "Convolution" bottom: "n" top: "y" convolution_param {{ num_output: 16 kernel_size: 1
      weight_filler {{ type: "gaussian" std: 1 }} }} }}
    """
    net = caffe_ext.Net(text_format.Parse(text, caffe_pb2.NetParameter()), caffe_ext.TRAIN, seed=5)
    x = RNG.standard_normal((4, 16, 5, 5)).astype(np.float32)
    net.blobs["x"].data[...] = x
    factor, offset = RNG.standard_normal((2, channels)).astype(np.float32)
    net.params["s"][0].data[...] = factor
    net.params["s"][1].data[...] = offset
    net.forward()
    dy = RNG.standard_normal((4, 16, 5, 5)).astype(np.float32)
    net.blobs["y"].diff[...] = dy
    net.clear_param_diffs()
    net.backward()

    def axes(values: np.ndarray) -> np.ndarray:
        return values[:, None, None]

    c = np.einsum("oc,nchw->nohw", net.params["c"][0].data[:, :, 0, 0], x)
    deviation = np.sqrt(c.var((0, 2, 3)) + 1e-5)
    normal = (c - axes(c.mean((0, 2, 3)))) / axes(deviation)
    close(net.blobs["n"].data, normal * axes(factor) + axes(offset))
    ds = np.einsum("oc,nohw->nchw", net.params["y"][0].data[:, :, 0, 0], dy)
    close(net.params["s"][0].diff, (ds * normal).sum((0, 2, 3)))
    close(net.params["s"][1].diff, ds.sum((0, 2, 3)))
    dn = ds * axes(factor)
    dc = (dn - axes(dn.mean((0, 2, 3))) - normal * axes((dn * normal).mean((0, 2, 3)))) / axes(deviation)
    close(net.blobs["c"].diff, dc)
    close(net.blobs["x"].diff, np.einsum("oc,nohw->nchw", net.params["c"][0].data[:, :, 0, 0], dc))


@pytest.mark.parametrize("shape", [(8,), (6, 5), (4, 3, 7)])
def test_batch_norm_of_few_axes(shape: tuple[int, ...]) -> None:
    net = net_of('type: "BatchNorm"', shape, phase=caffe_ext.TRAIN)
    x = np.array(net.blobs["x0"].data)
    over = tuple(axis for axis in range(len(shape)) if axis != 1)
    want = (x - x.mean(over, keepdims=True)) / np.sqrt(x.var(over, keepdims=True) + 1e-5)
    close(run(net), want)


@pytest.mark.parametrize(
    ("fields", "factor_shape"),
    [("num_axes: 0", ()), ("axis: 0 num_axes: -1", (2, 3, 4)), ("axis: -2 num_axes: 1", (3,)), ("axis: 2", (4,))],
)
def test_scale_axes(fields: str, factor_shape: tuple[int, ...]) -> None:
    net = net_of(f'type: "Scale" scale_param {{ {fields} bias_term: true }}', (2, 3, 4))
    factor, bias = (np.array(blob.data) for blob in net.params["l"])
    assert factor.shape == bias.shape == factor_shape
    x = np.array(net.blobs["x0"].data)
    wide = (slice(None), None) if factor_shape == (3,) else (...,)
    close(run(net), x * factor[wide] + bias[wide])
    dy = RNG.standard_normal(x.shape).astype(np.float32)
    net.blobs["y"].diff[...] = dy
    net.clear_param_diffs()
    net.backward()
    over = {(): (0, 1, 2), (2, 3, 4): (), (3,): (0, 2), (4,): (0, 1)}[factor_shape]
    close(net.params["l"][0].diff, (dy * x).sum(over))
    close(net.params["l"][1].diff, dy.sum(over))
    close(net.blobs["x0"].diff, dy * factor[wide])


# (layer, the bottom's shape, part of the reason)
REFUSED = [
    (
        'type: "Convolution" convolution_param { num_output: 2 kernel_size: 7 pad: 1 }',
        (1, 1, 4, 5),
        "kernel 7 × 7 is larger than the padded input 6 × 7",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 dilation: 3 }',
        (1, 1, 6, 6),
        "kernel 3 × 3 (dilated 7 × 7) is larger",
    ),
    (
        'type: "Convolution" convolution_param { kernel_size: 3 }',
        (1, 1, 6, 6),
        "num_output must be at least 1",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 2 }',
        (1, 1, 6, 6),
        "kernel_size is missing",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 2 kernel_h: 2 }',
        (1, 1, 6, 6),
        "kernel_w is missing",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 2 kernel_size: 0 }',
        (1, 1, 6, 6),
        "kernel_size must be at least 1, not 0",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 2 kernel_size: 2 stride: 0 }',
        (1, 1, 6, 6),
        "stride must be at least 1",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 2 kernel_size: [2, 2, 2] }',
        (1, 1, 6, 6),
        "kernel_size has 3 values, the bottom 2 spatial axes",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 2 kernel_h: 2 kernel_w: 2 }',
        (1, 1, 6),
        "need a bottom with 2 spatial axes",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 2 kernel_size: 1 pad: 1 pad_h: 1 }',
        (1, 1, 6, 6),
        "pad and pad_h/pad_w exclude each other",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 1 group: 2 }',
        (1, 3, 6, 6),
        "group 2 must divide both the 3 channels",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 1 group: 0 }',
        (1, 3, 6, 6),
        "group 0",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 1 axis: 4 }',
        (1, 3, 6, 6),
        "axis 4 does not exist",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 1 }',
        (1, 3, 2, 2, 2, 2),
        "at most 3 spatial axes",
    ),
    (
        'type: "Pooling" pooling_param { pool: MAX }',
        (1, 1, 6, 6),
        "kernel_size is missing",
    ),
    (
        'type: "Pooling" pooling_param { kernel_h: 2 }',
        (1, 1, 6, 6),
        "kernel_w is missing",
    ),
    (
        'type: "Pooling" pooling_param { kernel_size: 2 kernel_h: 2 kernel_w: 2 }',
        (1, 1, 6, 6),
        "exclude each other",
    ),
    (
        'type: "Pooling" pooling_param { kernel_size: 2 stride: 0 }',
        (1, 1, 6, 6),
        "stride must be at least 1",
    ),
    (
        'type: "Pooling" pooling_param { kernel_size: 2 pad: 2 }',
        (1, 1, 6, 6),
        "pad 2 × 2 must be smaller than the kernel 2 × 2",
    ),
    (
        'type: "Pooling" pooling_param { kernel_size: 9 stride: 2 }',
        (1, 1, 6, 6),
        "kernel 9 × 9 is larger than the padded input 6 × 6",
    ),
    (
        'type: "Pooling" pooling_param { global_pooling: true stride: 2 }',
        (1, 1, 6, 6),
        "pad 0 and stride 1 only",
    ),
    (
        'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 3 pad: 1 }',
        (1, 1, 6, 6),
        "takes no padding",
    ),
    (
        'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 } top: "z"',
        (1, 1, 6, 6),
        "only MAX pooling has a second top",
    ),
    (
        'type: "Pooling" pooling_param { kernel_size: 3 }',
        (1, 6, 6),
        "must have 4 axes",
    ),
    (
        'type: "InnerProduct"',
        (2, 3),
        "num_output must be at least 1",
    ),
    (
        'type: "InnerProduct" inner_product_param { num_output: 1 axis: 2 }',
        (2, 3),
        "axis 2 does not exist",
    ),
    (
        'type: "LRN" lrn_param { local_size: 4 }',
        (1, 3, 6, 6),
        "local_size must be odd, not 4",
    ),
    (
        'type: "LRN"',
        (1, 3, 6),
        "must have 4 axes",
    ),
    (
        'type: "Scale" scale_param { axis: 2 num_axes: 3 }',
        (1, 3, 6),
        "reach beyond the bottom's 3 axes",
    ),
    (
        'type: "Scale" scale_param { num_axes: -2 }',
        (1, 3, 6),
        "num_axes must be -1",
    ),
]


@pytest.mark.parametrize(("layer", "shape", "reason"), REFUSED)
def test_refused(layer: str, shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(LayerError) as caught:
        net_of(layer, shape)
    assert reason in str(caught.value)
    assert caught.value.layer == "l"


def test_bottoms_that_do_not_fit() -> None:
    with pytest.raises(LayerError, match="factors of shape 4 do not fit the bottom 2 × 3 × 4 from axis 1 on"):
        net_of('type: "Scale"', (2, 3, 4), (4,))
    with pytest.raises(LayerError, match="all bottoms must have one shape: 2 × 3 × 5 is not 2 × 3 × 4"):
        net_of('type: "Convolution" top: "z" convolution_param { num_output: 1 kernel_size: 1 }', (2, 3, 4), (2, 3, 5))


@pytest.mark.parametrize(
    ("layer", "shape", "later", "reason"),
    [
        (
            'type: "Convolution" convolution_param { num_output: 1 kernel_size: 3 }',
            (2, 3, 4, 4),
            (2, 4, 4, 4),
            "the weights are for 3 channels",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 1 kernel_size: 3 }',
            (2, 3, 4, 4),
            (2, 3, 2, 4),
            "larger than the padded input 2 × 4",
        ),
        (
            'type: "InnerProduct" inner_product_param { num_output: 1 }',
            (2, 12),
            (2, 3, 5),
            "the weights are for 12 values a row",
        ),
        ('type: "BatchNorm"', (2, 3), (2, 4), "the statistics are of 3 channels"),
        ('type: "Scale"', (2, 3), (2, 4), "factors of shape 3 do not fit"),
    ],
)
def test_later_shapes_must_fit_the_parameters(
    layer: str, shape: tuple[int, ...], later: tuple[int, ...], reason: str
) -> None:
    net = net_of(layer, shape)
    net.forward()
    net.blobs["x0"].reshape(*later)
    with pytest.raises(LayerError) as caught:
        net.reshape()
    assert reason in str(caught.value)
    # The net is as good as before once the shape is.
    net.blobs["x0"].reshape(*shape)
    net.reshape()
    net.forward()


def test_multiply_adds() -> None:
    def count(layer: str, *shapes: tuple[int, ...]) -> int:
        text = (
            "".join(
                f'layer {{ name: "x{i}" type: "Input" top: "x{i}" input_param {{ shape {{ '
                + " ".join(f"dim: {extent}" for extent in shape)
                + " } } }\n"
                for i, shape in enumerate(shapes)
            )
            + f'layer {{ name: "l" bottom: "x0" top: "y" {layer} }}'
        )
        report = caffe_ext.check_net(text_format.Parse(text, caffe_pb2.NetParameter()), caffe_ext.TEST)
        assert not report.problems
        return report.layers[-1].multiply_adds

    conv = 'type: "Convolution" convolution_param { num_output: 6 kernel_size: 3 group: 2 }'
    assert count(conv, (2, 4, 5, 5)) == 2 * 6 * 3 * 3 * (2 * 3 * 3)
    assert count('type: "InnerProduct" inner_product_param { num_output: 6 }', (2, 4, 5)) == 2 * 20 * 6
