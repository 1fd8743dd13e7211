"""Layers without bottoms: data layers that name no source and so are fed, DummyData, which fills itself, Parameter."""

import pathlib

import numpy as np
import pytest
from google.protobuf import text_format

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import EngineError, LayerError
from sparknet_dsl.proto import caffe_pb2


def message(layers: str) -> caffe_pb2.NetParameter:
    return text_format.Parse(layers, caffe_pb2.NetParameter())


def net_of(layers: str, phase: int = caffe_ext.TRAIN) -> caffe_ext.Net:
    return caffe_ext.Net(message(layers), phase, seed=1)


def source(type: str, fields: str, tops: str = 'top: "x" top: "t"') -> str:
    return f'layer {{ name: "d" type: "{type}" {tops} {fields} }}'


KNOWN = [
    (source("MemoryData", "memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 }"), (2, 3, 4, 5)),
    (source("ImageData", "image_data_param { batch_size: 2 new_height: 4 new_width: 5 }"), (2, 3, 4, 5)),
    (
        source("ImageData", "image_data_param { batch_size: 2 is_color: false } transform_param { crop_size: 6 }"),
        (2, 1, 6, 6),
    ),
    (source("WindowData", "window_data_param { batch_size: 2 } transform_param { crop_size: 6 }"), (2, 3, 6, 6)),
    (source("WindowData", "window_data_param { batch_size: 2 crop_size: 7 }"), (2, 3, 7, 7)),
]


@pytest.mark.parametrize(("layer", "shape"), KNOWN)
def test_shapes_and_feeding(layer: str, shape: tuple[int, ...]) -> None:
    net = net_of(layer + ' layer { name: "r" type: "ReLU" bottom: "x" top: "y" }')
    with pytest.raises(LayerError, match="nobody has fed its top `x`: name a source, or write the batch into the blob"):
        net.forward()
    assert list(net.inputs) == ["x", "t"]
    assert tuple(net.blobs["x"].shape) == shape and tuple(net.blobs["t"].shape) == (2,)
    net.blobs["x"].data[...] = -1
    with pytest.raises(LayerError, match="its top `t`"):
        net.forward()
    net.blobs["t"].data[...] = 1
    net.forward()
    net.forward()  # the same batch again
    assert not net.blobs["y"].data.any()


@pytest.mark.parametrize(
    ("layer", "known"),
    [
        (source("Data", "data_param { batch_size: 2 %s }"), {"t": (2,)}),
        (source("HDF5Data", "hdf5_data_param { batch_size: 2 %s }"), {}),
        (source("ImageData", "image_data_param { batch_size: 2 %s }"), {"t": (2,)}),
    ],
)
def test_unknown_shapes(layer: str, known: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(LayerError, match="the shape of its top `x` is not known"):
        net_of(layer % "")
    # The dry run opens no files: that one is not there.
    layer %= 'source: "absent"'
    report = caffe_ext.check_net(message(layer), caffe_ext.TRAIN)
    assert not report.problems
    assert report.layers[0].top_shapes == [None, known.get("t")]
    told = caffe_ext.check_net(message(layer), caffe_ext.TRAIN, shapes={"x": (2, 8), "t": (2,)})
    assert told.layers[0].top_shapes == [(2, 8), (2,)]


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (source("Data", 'data_param { source: "l" }'), "batch_size must be at least 1"),
        (source("HDF5Data", "hdf5_data_param { }"), "batch_size must be at least 1"),
        (source("HDF5Data", "hdf5_data_param { batch_size: 1 } transform_param { scale: 2 }"), "drop transform_param"),
        (source("MemoryData", "memory_data_param { batch_size: 1 channels: 1 height: 1 }"), "width must be at least 1"),
        (source("ImageData", "image_data_param { new_height: 3 }"), "new_height and new_width go together"),
        (source("WindowData", "window_data_param { batch_size: 1 }"), "crop_size must be at least 1"),
        (source("MemoryData", "", 'top: "x"'), "makes 2 tops, got 1"),
    ],
)
def test_refused_sources(layer: str, says: str) -> None:
    with pytest.raises(LayerError, match=says):
        net_of(layer)


DUMMY = source("DummyData", "dummy_data_param { %s }")


def test_dummy_data() -> None:
    net = net_of(
        DUMMY % 'shape { dim: 2 dim: 3 } data_filler { value: 2.5 } data_filler { type: "uniform" min: 1 max: 2 }'
    )
    assert list(net.inputs) == []
    # Constants are there before the first pass, and stay what somebody writes over them.
    np.testing.assert_array_equal(net.blobs["x"].data, np.full((2, 3), 2.5))
    net.forward()
    first = np.array(net.blobs["t"].data)
    assert ((first >= 1) & (first <= 2)).all() and len(np.unique(first)) == 6
    net.blobs["x"].data[...] = 7
    net.forward()
    assert (net.blobs["x"].data == 7).all()
    assert (net.blobs["t"].data != first).all()
    net.set_seed(1)
    net.forward()
    np.testing.assert_array_equal(net.blobs["t"].data, first)


def test_dummy_data_of_older_files() -> None:
    net = net_of(DUMMY % "num: 2 num: 3 channels: 4 height: 1 height: 5 width: 6")
    assert tuple(net.blobs["x"].shape) == (2, 4, 1, 6) and tuple(net.blobs["t"].shape) == (3, 4, 5, 6)
    net.forward()
    assert not net.blobs["x"].data.any()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("", "shape must be given once, or once for each of the 2 tops; it is given 0 times"),
        ("num: 1", "channels must be given once"),
        ("num: 1 channels: 1 height: 1 width: 1 shape { dim: 1 }", "exclude each other"),
        ("shape { dim: 1 } data_filler { } data_filler { } data_filler { }", "data_filler must be given once"),
        ('shape { dim: 1 } data_filler { type: "no" }', 'unknown filler type "no"'),
    ],
)
def test_refused_dummy_data(fields: str, says: str) -> None:
    with pytest.raises(LayerError, match=says):
        net_of(DUMMY % fields)


PARAMETER = 'layer { name: "%s" type: "Parameter" top: "%s" param { name: "%s" } parameter_param { %s } }'
SHAPE = "shape { dim: 2 dim: 3 }"
INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'


def test_a_parameter_is_its_top() -> None:
    net = net_of(
        INPUT
        + PARAMETER % ("w", "w", "", SHAPE)
        + 'layer { name: "e" type: "EuclideanLoss" bottom: "x" bottom: "w" top: "loss" }'
    )
    assert not net.params["w"][0].data.any()
    net.params["w"][0].data[...] = 2
    net.blobs["x"].data[...] = 1
    net.forward()
    assert (net.blobs["w"].data == 2).all()
    net.backward()
    np.testing.assert_allclose(net.flat_diff, np.full(6, 0.5))
    np.testing.assert_allclose(net.blobs["w"].diff, np.full((2, 3), 0.5))
    net.clear_param_diffs()
    assert not net.blobs["w"].diff.any()


def test_a_parameter_is_learned() -> None:
    param = caffe_pb2.SolverParameter(base_lr=0.5, lr_policy="fixed", max_iter=60)
    net = message(
        INPUT
        + PARAMETER % ("w", "w", "", SHAPE)
        + 'layer { name: "e" type: "EuclideanLoss" bottom: "x" bottom: "w" top: "loss" }'
    )
    solver = caffe_ext.Solver(param, net)
    target = np.arange(6, dtype=np.float32).reshape(2, 3)
    solver.net.blobs["x"].data[...] = target
    solver.step(60)
    np.testing.assert_allclose(solver.net.params["w"][0].data, target, atol=1e-4)


def test_parameters_that_are_shared() -> None:
    net = net_of(
        PARAMETER % ("a", "a", "both", SHAPE)
        + PARAMETER % ("b", "b", "both", SHAPE)
        + 'layer { name: "e" type: "Eltwise" bottom: "a" bottom: "b" top: "y" }'
    )
    net.flat_data[...] = np.arange(6)
    net.forward()
    np.testing.assert_array_equal(net.blobs["y"].data, 2 * np.arange(6).reshape(2, 3))


def test_a_parameter_needs_a_shape() -> None:
    with pytest.raises(LayerError, match="the shape is missing"):
        net_of('layer { name: "w" type: "Parameter" top: "w" }')


# ---- the matrix of InfogainLoss, which the engine does read ----

INFOGAIN = """
layer { name: "x" type: "Input" top: "x" top: "t" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
layer { name: "l" type: "InfogainLoss" bottom: "x" bottom: "t" top: "y" infogain_loss_param { %s } %s }
"""


@pytest.mark.parametrize("kind", ["data", "double_data"])
def test_matrix_files(kind: str, tmp_path: pathlib.Path) -> None:
    values = [float(i + 1) for i in range(9)]
    blob = caffe_pb2.BlobProto(num=1, channels=1, height=3, width=3, **{kind: values})
    (tmp_path / "H").write_bytes(blob.SerializeToString())
    net = net_of(INFOGAIN % (f'source: "{tmp_path}/H"', ""))
    net.blobs["t"].data[...] = [0, 2]
    net.forward()
    # Equal scores: every class has probability 1/3.
    assert net.loss == pytest.approx(np.log(3) * (1 + 2 + 3 + 7 + 8 + 9) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot read"),
        (b"", "no .binaryproto with values"),
        (b"\x2a\x24\x00", "is cut short"),
        (b"\x2b", "is no .binaryproto"),
        (b"\x2a\x03abc", "is no .binaryproto"),
        (b"\xff" * 12, "is no .binaryproto"),
        (caffe_pb2.BlobProto(data=[1, 2, 3, 4]).SerializeToString(), "must be 3 × 3 for 3 classes; it has 4 values"),
    ],
)
def test_matrix_files_that_are_none(content: bytes | None, says: str, tmp_path: pathlib.Path) -> None:
    if content is not None:
        (tmp_path / "H").write_bytes(content)
    with pytest.raises(LayerError, match=says):
        net_of(INFOGAIN % (f'source: "{tmp_path}/H"', ""))


@pytest.mark.parametrize(
    ("fields", "more", "says"),
    [
        ("", "", "the matrix is missing"),
        ("", "loss_param { normalize: true }", "write `normalization`"),
        ("", 'bottom: "x"', "must be 3 × 3 for 3 classes; it has 6 values"),
    ],
)
def test_refused_infogain(fields: str, more: str, says: str) -> None:
    with pytest.raises(LayerError, match=says):
        net_of(INFOGAIN % (fields, more))


def test_no_gradient_for_the_matrix() -> None:
    text = """
    force_backward: true
    layer { name: "x" type: "Input" top: "x" top: "t" top: "H"
            input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } shape { dim: 3 dim: 3 } } }
    layer { name: "l" type: "InfogainLoss" bottom: "x" bottom: "t" bottom: "H" top: "y" }
    """
    net = net_of(text)
    net.forward()
    with pytest.raises(EngineError, match="no gradient with respect to the matrix `H`"):
        net.backward()
