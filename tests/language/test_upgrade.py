"""Nets and solvers of 2013 and 2014, brought up to date as Caffe's own tools do it."""

import json
import re
from typing import Any

import pytest
from google.protobuf import text_format
from shared import ROOT, shared

from sparknet_dsl import caffe_ext, load
from sparknet_dsl.errors import EngineError
from sparknet_dsl.proto import caffe_pb2, text
from sparknet_dsl.proto.upgrade import upgrade_net, upgrade_solver


def legacy(kind: str) -> list[dict[str, Any]]:
    index = ROOT / "golden/interop/index.json"
    return [case for case in json.loads(index.read_text())["legacy"] if case["kind"] == kind] if index.exists() else []


def upgraded(written: str) -> caffe_pb2.NetParameter:
    net = caffe_pb2.NetParameter()
    text.read(written, net)
    upgrade_net(net)
    return net


@pytest.mark.parametrize("case", legacy("net_text"), ids=lambda case: case["in"])
def test_nets(case: dict[str, Any]) -> None:
    folder = shared("golden/interop")
    want = text_format.Parse((folder / case["out"]).read_text(), caffe_pb2.NetParameter())
    net = upgraded((folder / case["in"]).read_text())
    assert net == want
    upgrade_net(net)
    assert net == want
    assert load(folder / case["in"]).net == want


@pytest.mark.parametrize("case", legacy("solver_text"), ids=lambda case: case["in"])
def test_solvers(case: dict[str, Any]) -> None:
    folder = shared("golden/interop")
    want = text_format.Parse((folder / case["out"]).read_text(), caffe_pb2.SolverParameter())
    solver = caffe_pb2.SolverParameter()
    text.read((folder / case["in"]).read_text(), solver)
    upgrade_solver(solver)
    assert solver == want
    assert load(folder / case["in"]).solver == want


def test_every_case_was_there() -> None:
    shared("golden/interop/index.json")
    assert len(legacy("net_text")) >= 3
    assert len(legacy("solver_text")) >= 3


@pytest.mark.parametrize(
    ("old", "name"),
    [
        ("RELU", "ReLU"),
        ("INNER_PRODUCT", "InnerProduct"),
        ("SOFTMAX_LOSS", "SoftmaxWithLoss"),
        ("SIGMOID_CROSS_ENTROPY_LOSS", "SigmoidCrossEntropyLoss"),
        ("IM2COL", "Im2col"),
        ("HDF5_DATA", "HDF5Data"),
        ("NONE", ""),
        ("ROI_POOLING", "ROIPooling"),  # a fork's
        ("UPSAMPLE", "Upsample"),
    ],
)
def test_names_of_2014(old: str, name: str) -> None:
    assert upgraded(f"layers {{ type: {old} }}").layer[0].type == name


def test_every_type_of_2014_is_one_that_caffe_has() -> None:
    old = [value.name for value in caffe_pb2.V1LayerParameter.LayerType.DESCRIPTOR.values]
    names = {upgraded(f"layers {{ type: {name} }}").layer[0].type for name in old}
    assert {"", "AbsVal", "BNLL", "Deconvolution", "DummyData", "MultinomialLogisticLoss"} <= names
    assert {"Convolution", "InnerProduct", "LRN", "Pooling", "TanH"} <= names & set(caffe_ext.layer_types())
    assert len(names) == len(old)


def test_fields_of_a_fork_in_2014() -> None:
    net = upgraded(
        'layers { name: "a" type: BN bn_param { slope_filler { value: 1 } } odd: 2 pooling_param { odder: 3 } }'
    )
    assert net.layer[0].bn_param.slope_filler.value == 1
    assert [(kept.path, kept.text) for kept in net.layer[0].unknown_field] == [
        ("", "odd: 2"),
        ("pooling_param", "odder: 3"),
    ]


def test_a_forks_field_in_2014_is_known_and_what_is_wrong_inside_is_placed() -> None:
    net = caffe_pb2.NetParameter()
    reading = text.read("layers { type: BN\n  bn_param { momentum: 0.5 } }", net)
    assert not reading.unknown
    reading = text.read("layers { type: BN\n  bn_param { momentom: 0.5 } }", net)
    assert [(found.start, found.owner, found.name) for found in reading.unknown] == [(31, "BNParameter", "momentom")]
    upgrade_net(net)
    assert [(kept.path, kept.text) for kept in net.layer[1].unknown_field] == [("bn_param", "momentom: 0.5")]
    with pytest.raises(text.TextError) as caught:
        text.read("layers { type: BN\n  bn_param { momentum: x } }", net)
    assert caught.value.start == 41


def test_padding_layers_override_the_convolutions_own() -> None:
    net = upgraded(
        """
        layers { layer { name: "d" type: "data" } top: "x" }
        layers { layer { name: "p" type: "padding" pad: 2 } bottom: "x" top: "y" }
        layers { layer { name: "a" type: "conv" pad: 1 kernelsize: 3 } bottom: "y" top: "a" }
        layers { layer { name: "b" type: "pool" kernelsize: 3 } bottom: "y" top: "b" }
        """
    )
    assert [layer.name for layer in net.layer] == ["d", "a", "b"]
    assert list(net.layer[1].convolution_param.pad) == [2]
    assert net.layer[2].pooling_param.pad == 2
    assert [layer.bottom[0] for layer in net.layer[1:]] == ["x", "x"]


def test_transform_fields_stay_in_todays_nets() -> None:
    net = upgraded('layer { name: "d" type: "Data" data_param { scale: 2 } }')
    assert net.layer[0].data_param.scale == 2
    assert not net.layer[0].HasField("transform_param")


def test_two_params_of_a_batch_norm_stay() -> None:
    net = upgraded('layer { type: "BatchNorm" param { lr_mult: 1 } param { lr_mult: 1 } }')
    assert [spec.lr_mult for spec in net.layer[0].param] == [1, 1]


def test_nets_inside_a_solver() -> None:
    solver = caffe_pb2.SolverParameter()
    text.read("net_param { layers { type: RELU } } test_net_param { layers { type: TANH } }", solver)
    upgrade_solver(solver)
    assert solver.net_param.layer[0].type == "ReLU"
    assert solver.test_net_param[0].layer[0].type == "TanH"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('layers { type: RELU } layer { type: "ReLU" }', "do not go together"),
        ('layers { layer { name: "a" type: "convv" } }', "no layer type `convv`"),
        ('layers { layer { name: "a" type: "relu" kernelsize: 3 } }', "relu has no `kernelsize`"),
        ('layers { layer { name: "p" type: "padding" } }', "one bottom and one top"),
        (
            'layers { layer { type: "padding" } bottom: "x" top: "y" } layers { layer { type: "relu" } bottom: "y" }',
            "only conv and pool",
        ),
        ('input: "x" input_dim: 1', "four numbers"),
        ('input: "x"', "1 inputs (x) but 0 shapes"),
    ],
)
def test_what_cannot_be_upgraded(written: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        upgraded(written)


def test_names_that_are_no_text() -> None:
    net = caffe_pb2.NetParameter.FromString(b"\x0a\x02\xff\xfe")
    with pytest.raises(ValueError, match=r"NetParameter.name is no text in UTF-8: b'\\xff\\xfe'"):
        upgrade_net(net)
    with pytest.raises(EngineError, match="no text in UTF-8"):
        caffe_ext.Net(net)
    solver = caffe_pb2.SolverParameter(net_param=net)
    with pytest.raises(ValueError, match="no text"):
        upgrade_solver(solver)
