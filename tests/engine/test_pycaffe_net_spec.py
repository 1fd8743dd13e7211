"""Nets written in Python with NetSpec."""

# ruff: noqa: C408 - settings are written as users of pycaffe write them

import pytest
from google.protobuf import text_format
from shared import shared

from sparknet_dsl.caffe_ext import NetSpec, layer_types, to_proto
from sparknet_dsl.caffe_ext import layers as L  # noqa: N812
from sparknet_dsl.caffe_ext import params as P  # noqa: N812
from sparknet_dsl.errors import EngineError
from sparknet_dsl.proto import caffe_pb2

LEARNED = {
    "param": [dict(lr_mult=1), dict(lr_mult=2)],
    "weight_filler": dict(type="xavier"),
    "bias_filler": dict(type="constant"),
}


def test_lenet_is_the_published_one() -> None:
    n = NetSpec()
    n.data, n.label = L.Data(
        name="mnist",
        ntop=2,
        include=dict(phase=caffe_pb2.TRAIN),
        transform_param=dict(scale=0.00390625),
        source="examples/mnist/mnist_train_lmdb",
        batch_size=64,
        backend=P.Data.LMDB,
    )
    n.test = L.Data(
        name="mnist",
        ntop=0,
        top=["data", "label"],
        include=[dict(phase=caffe_pb2.TEST)],
        transform_param=dict(scale=0.00390625),
        data_param=dict(source="examples/mnist/mnist_test_lmdb", batch_size=100, backend=P.Data.LMDB),
    )
    n.conv1 = L.Convolution(n.data, num_output=20, kernel_size=5, stride=1, **LEARNED)
    n.pool1 = L.Pooling(n.conv1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.conv2 = L.Convolution(n.pool1, num_output=50, kernel_size=[5], stride=1, **LEARNED)
    n.pool2 = L.Pooling(n.conv2, pool="MAX", kernel_size=2, stride=2)
    n.ip1 = L.InnerProduct(n.pool2, num_output=500, **LEARNED)
    n.relu1 = L.ReLU(n.ip1, in_place=True)
    n.ip2 = L.InnerProduct(n.relu1, num_output=10, **LEARNED)
    n.accuracy = L.Accuracy(n.ip2, n.label, include=dict(phase=caffe_pb2.TEST))
    n.loss = L.SoftmaxWithLoss(n.ip2, n.label)
    made = n.to_proto()
    made.name = "LeNet"
    published = shared("corpus/prototxt/BVLC+caffe/examples_mnist_lenet_train_test.prototxt").read_text()
    assert made == text_format.Parse(published, caffe_pb2.NetParameter())


def test_automatic_names_are_pycaffes() -> None:
    data, label = L.DummyData(shape=[dict(dim=[2, 3]), dict(dim=[2])], ntop=2)
    first = L.InnerProduct(data, num_output=4)
    again = L.ReLU(first, in_place=True)
    second = L.InnerProduct(again, num_output=3)
    net = to_proto(L.SoftmaxWithLoss(second, label), L.Silence(first, ntop=0))
    assert [(layer.name, list(layer.bottom), list(layer.top)) for layer in net.layer] == [
        ("DummyData1", [], ["DummyData1", "DummyData2"]),
        ("InnerProduct1", ["DummyData1"], ["InnerProduct1"]),
        ("ReLU1", ["InnerProduct1"], ["InnerProduct1"]),
        ("InnerProduct2", ["InnerProduct1"], ["InnerProduct2"]),
        ("SoftmaxWithLoss1", ["InnerProduct2", "DummyData2"], ["SoftmaxWithLoss1"]),
        ("Silence1", ["InnerProduct1"], []),
    ]
    assert second.to_proto().layer[-1].name == "InnerProduct2"


def test_names_that_were_assigned() -> None:
    n = NetSpec()
    n["conv/3x3"] = L.Convolution(L.Input(shape=dict(dim=[1, 2, 5, 5])), num_output=1, kernel_size=3)
    n.silence = L.Silence(n["conv/3x3"], ntop=0)
    n.gone = L.ReLU(n["conv/3x3"])
    del n.gone
    n.update("conv/3x3", dict(num_output=7))
    net = n.to_proto()
    assert [(layer.name, list(layer.top)) for layer in net.layer] == [
        ("Input1", ["Input1"]),
        ("conv/3x3", ["conv/3x3"]),
        ("silence", []),
    ]
    assert net.layer[1].convolution_param.num_output == 7
    with pytest.raises(AttributeError, match="no top `gone`; it has conv/3x3, silence"):
        _ = n.gone


@pytest.mark.parametrize(
    ("kind", "settings", "want"),
    [
        ("Deconvolution", dict(num_output=2), "convolution_param { num_output: 2 }"),
        ("Deconvolution", dict(convolution_param=dict(num_output=2)), "convolution_param { num_output: 2 }"),
        ("EuclideanLoss", dict(loss_weight=3), "loss_weight: 3"),
        ("SoftmaxWithLoss", dict(ignore_label=4), "loss_param { ignore_label: 4 }"),
        ("Python", dict(module="m", layer="C"), 'python_param { module: "m" layer: "C" }'),
        ("ReLU", dict(propagate_down=[True, False]), "propagate_down: true propagate_down: false"),
        ("Reshape", dict(shape=dict(dim=[0, -1])), "reshape_param { shape { dim: 0 dim: -1 } }"),
        ("PReLU", dict(filler=caffe_pb2.FillerParameter(value=2)), "prelu_param { filler { value: 2 } }"),
        ("BatchNorm", dict(batch_norm_param={}), "batch_norm_param { }"),
        # A type that the engine does not have.
        ("HDF5Output", dict(file_name="f"), 'hdf5_output_param { file_name: "f" }'),
    ],
)
def test_where_fields_go(kind: str, settings: dict, want: str) -> None:
    layer = to_proto(getattr(L, kind)(**settings)).layer[0]
    wanted = caffe_pb2.LayerParameter(name=f"{kind}1", type=kind, top=[f"{kind}1"])
    assert layer == text_format.Merge(want, wanted)


def test_every_field_of_every_type_is_reached() -> None:
    """The registry and the messages are the only list."""
    for kind in layer_types().values():
        for message in kind.messages:
            for field in caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name[message].message_type.fields:
                if field.message_type is not None or field.name.endswith("param"):
                    continue
                value = "MAX" if field.enum_type is not None else "1" if field.type == field.TYPE_STRING else 1
                if field.enum_type is not None:
                    value = field.enum_type.values[0].name
                layer = to_proto(getattr(L, kind.name)(**{field.name: value})).layer[0]
                assert layer.ListFields()[-1][0].name in (*kind.messages, field.name), (kind.name, field.name)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (dict(kernal_size=3), "layer `Convolution1`: Convolution has no field `kernal_size`"),
        (dict(kernel_size="three"), r"layer `Convolution1` \(Convolution\): `kernel_size` cannot be 'three'"),
        (dict(weight_filler=3), "`weight_filler` cannot be 3: a dictionary of its fields is needed"),
        (dict(weight_filler=dict(kind="xavier")), "FillerParameter has no field `kind`"),
        (dict(engine="GPU"), "`engine` cannot be 'GPU'"),
        (dict(num_output=-1), "`num_output` cannot be -1"),
    ],
)
def test_fields_and_values_that_there_are_not(settings: dict, says: str) -> None:
    with pytest.raises(EngineError, match=says):
        to_proto(L.Convolution(**settings))


def test_what_is_no_top() -> None:
    with pytest.raises(TypeError, match="ReLU: input 0 is a str"):
        L.ReLU("data")
    with pytest.raises(TypeError, match="`x` is to be the top of a layer, not a int"):
        NetSpec().x = 3
    with pytest.raises(AttributeError, match="PoolingParameter has no value MEAN; it has MAX, AVE, STOCHASTIC"):
        _ = P.Pooling.MEAN
    with pytest.raises(AttributeError, match="Caffe has no PollingParameter"):
        _ = P.Polling


def test_deep_nets() -> None:
    top = L.Input(shape=dict(dim=[1]))
    for _ in range(3000):
        top = L.Power(top)
    assert [layer.name for layer in to_proto(top).layer][-1] == "Power3000"
