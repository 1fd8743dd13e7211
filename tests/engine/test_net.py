"""How a net is put together: rules, splits, sharing, what runs backward; and the dry run, which finds it all out."""

import itertools
import json
import resource
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from shared import shared, shared_names

from sparknet_dsl import caffe_ext
from sparknet_dsl.caffe_ext import TEST, TRAIN, check_net
from sparknet_dsl.errors import EngineError, LayerError
from sparknet_dsl.proto import caffe_pb2
from sparknet_dsl.proto.upgrade import upgrade_net

INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n'


def message(text: str) -> caffe_pb2.NetParameter:
    net = text_format.Parse(text, caffe_pb2.NetParameter())
    upgrade_net(net)
    return net


def build(text: str, phase: int = TRAIN, **settings: Any) -> caffe_ext.Net:
    return caffe_ext.Net(message(text), phase, **{"seed": 1, **settings})


def dense(name: str, bottom: str, top: str, extra: str = "", outputs: int = 3, bias: bool = True) -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" {extra} inner_product_param '
        f'{{ num_output: {outputs} bias_term: {str(bias).lower()} weight_filler {{ type: "gaussian" }} }} }}\n'
    )


def loss(bottom: str, extra: str = "loss_weight: 1", name: str = "sum") -> str:
    """Any layer becomes an objective by its weight."""
    return f'layer {{ name: "{name}" type: "Power" bottom: "{bottom}" top: "{name}" {extra} }}\n'


# ---- which layers are in ----


@pytest.mark.parametrize(
    ("rule", "state", "inside"),
    [
        ("", {}, True),
        ("include { phase: TRAIN }", {}, True),
        ("include { phase: TEST }", {}, False),
        ("include { phase: TEST } include { phase: TRAIN }", {}, True),
        ("exclude { phase: TRAIN }", {}, False),
        ("exclude { phase: TEST }", {}, True),
        ("include { }", {}, True),
        ("exclude { }", {}, False),
        ("include { min_level: 2 }", {"level": 1}, False),
        ("include { min_level: 2 }", {"level": 2}, True),
        ("include { max_level: 2 }", {"level": 3}, False),
        ("include { min_level: 1 max_level: 2 }", {"level": 2}, True),
        ('include { stage: "a" stage: "b" }', {"stages": ["a"]}, False),
        ('include { stage: "a" stage: "b" }', {"stages": ["b", "a", "c"]}, True),
        ('include { stage: "a" not_stage: "b" }', {"stages": ["a", "b"]}, False),
        ('exclude { not_stage: "a" }', {"stages": []}, False),
        ('include { phase: TRAIN min_level: 1 stage: "a" }', {"level": 1, "stages": ["a"]}, True),
        ('include { phase: TEST min_level: 1 stage: "a" }', {"level": 1, "stages": ["a"]}, False),
    ],
)
def test_rules(rule: str, state: dict[str, Any], inside: bool) -> None:
    net = build(INPUT + f'layer {{ name: "r" type: "ReLU" bottom: "x" top: "y" {rule} }}', **state)
    assert ("r" in net.layer_names) == inside


def test_arguments_override_the_files_state_but_stages_add_up() -> None:
    text = INPUT + 'state { phase: TEST level: 5 stage: "a" }'
    for i, rule in enumerate(["phase: TRAIN", "max_level: 0", 'stage: "a" stage: "b"']):
        text += f'layer {{ name: "r{i}" type: "ReLU" bottom: "x" top: "y{i}" include {{ {rule} }} }}\n'
    net = build(text, stages=["b"])
    assert [layer.name for layer in net.layers if layer.type == "ReLU"] == ["r0", "r1", "r2"]


# ---- splits ----


def test_split_names_are_caffes() -> None:
    net = build(INPUT + dense("a", "x", "y") + loss("y", name="u") + loss("y", name="v"))
    assert net.layer_names == ["x", "a", "y_a_0_split", "u", "v"]
    assert net.blob_names == ["x", "y", "y_a_0_split_0", "y_a_0_split_1", "u", "v"]
    assert net.bottom_names["v"] == ["y_a_0_split_1"]
    assert net.outputs == ["u", "v"]


def test_a_blob_with_a_weight_and_a_reader_is_split_and_counts_once() -> None:
    net = build(INPUT + dense("a", "x", "y", "loss_weight: 3") + loss("y", "", name="r"))
    assert net.layer_names == ["x", "a", "y_a_0_split", "r"]
    assert net.blob_loss_weights["y_a_0_split_0"] == 3 and net.blob_loss_weights["y"] == 0
    assert net.bottom_names["r"] == ["y_a_0_split_1"]
    net.blobs["x"].data[...] = np.arange(6).reshape(2, 3)
    net.forward()
    assert net.loss == pytest.approx(3 * net.blobs["y"].data.sum(), rel=1e-5)


def test_layer_in_place_on_a_blob_that_others_read() -> None:
    shared_blob = dense("a", "x", "y") + loss("y", name="early")
    with pytest.raises(LayerError, match=r"layer `r` \(ReLU\): cannot work in place on `y`, which another layer reads"):
        build(INPUT + shared_blob + 'layer { name: "r" type: "ReLU" bottom: "y" top: "y" }')


# ---- weights of the objective ----


def test_loss_weights() -> None:
    net = build(INPUT + loss("x", "loss_weight: -2", name="u"))
    net.forward(x=np.arange(6.0).reshape(2, 3))
    assert net.loss == -30
    net.blobs["u"].diff[...] = 1  # the weight stands there, as in Caffe
    net.forward()
    assert net.loss == 15


def test_a_weight_survives_a_new_shape() -> None:
    net = build(INPUT + loss("x", "loss_weight: 2", name="u"))
    net.blobs["x"].reshape(4, 5)
    net.forward(x=np.ones((4, 5)))
    assert net.loss == 40


def test_a_loss_needs_no_named_top() -> None:
    net = build(
        INPUT
        + 'layer { name: "l" type: "Input" top: "l" input_param { shape { dim: 2 } } }'
        + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "l" }'
    )
    assert net.forward(x=np.zeros((2, 3)), l=[0, 1]) == {}
    assert net.loss == pytest.approx(np.log(3))


# ---- what runs backward ----


def test_without_objective_nothing_runs_backward() -> None:
    net = build(INPUT + dense("a", "x", "y"))
    net.blobs["y"].diff[...] = 1
    net.forward(x=np.ones((2, 3)))
    net.backward()
    assert not net.flat_diff.any()


def test_force_backward_reaches_inputs_and_frozen_parameters() -> None:
    text = INPUT + dense("a", "x", "y", "param { lr_mult: 0 } param { lr_mult: 0 }") + loss("y")
    for forced in (False, True):
        net = build(text + ("force_backward: true" if forced else ""))
        net.forward(x=np.ones((2, 3)))
        gradients = net.backward()
        assert bool(gradients["x"].any()) == forced
        assert bool(net.params["a"][0].diff.any()) == forced


def test_propagate_down_false_stops_gradients() -> None:
    for stop in (False, True):
        extra = "propagate_down: false" if stop else ""
        net = build(INPUT + dense("a", "x", "y") + dense("b", "y", "z", extra) + loss("z"))
        net.forward(x=np.ones((2, 3)))
        net.backward()
        assert net.params["b"][0].diff.any()
        assert bool(net.params["a"][0].diff.any()) != stop


def test_parameter_gradients_add_up_until_cleared() -> None:
    net = build(INPUT + dense("a", "x", "y") + loss("y"))
    net.forward(x=np.ones((2, 3)))
    net.backward()
    once = net.flat_diff.copy()
    net.backward()
    np.testing.assert_array_equal(net.flat_diff, 2 * once)
    net.clear_param_diffs()
    assert not net.flat_diff.any()


# ---- sharing ----


def pair(first: str, second: str, outputs: int = 3) -> str:
    return (
        INPUT
        + dense("a", "x", "y", f'param {{ name: "w" {first} }}', outputs, bias=False)
        + dense("b", "y", "z", f'param {{ name: "w" {second} }}', bias=False)
        + loss("z")
    )


def test_shared_parameters_are_one() -> None:
    net = build(pair("", ""))
    a, b = net.params["a"][0], net.params["b"][0]
    np.testing.assert_array_equal(a.data, b.data)
    b.data[...] = 2
    assert (a.data == 2).all() and net.flat_data.size == 9
    net.forward(x=np.ones((2, 3)))
    net.backward()
    np.testing.assert_array_equal(a.diff, b.diff)
    # x -> 2*3 = 6 -> 36: each layer adds its part.
    np.testing.assert_allclose(a.diff, np.full((3, 3), 2 * 6 + 2 * 6))


def test_permissive_sharing_wants_equal_counts_only() -> None:
    net = build(pair("", "share_mode: PERMISSIVE", outputs=4))
    assert net.params["a"][0].shape == (4, 3) and net.params["b"][0].shape == (3, 4)
    np.testing.assert_array_equal(net.params["a"][0].data.ravel(), net.params["b"][0].data.ravel())
    with pytest.raises(
        LayerError, match=r"layer `b`.*shares parameter `w` with layer `a`.* 3 × 4 here and 4 × 3 there"
    ):
        build(pair("", "", outputs=4))
    with pytest.raises(LayerError, match=r"shares parameter `w`.* 3 × 5 here and 5 × 3 there"):
        build(pair("", "", outputs=5))


@pytest.mark.parametrize(
    ("first", "second", "want"),
    [
        ("", "", (1, 1)),
        ("lr_mult: 2", "", (2, 1)),
        ("lr_mult: 2", "lr_mult: 2", (2, 1)),
        ("", "lr_mult: 3 decay_mult: 0", (3, 0)),  # whoever says it first
        ("lr_mult: 2", "lr_mult: 3", "lr_mult is 3 here and 2 there"),
        ("decay_mult: 0", "decay_mult: 1", "decay_mult is 1 here and 0 there"),
        ("lr_mult: 2", "lr_mult: 1", "lr_mult is 1 here and 2 there"),
    ],
)
def test_multipliers_of_shared_parameters(first: str, second: str, want: tuple[float, float] | str) -> None:
    if isinstance(want, str):
        with pytest.raises(LayerError, match=want):
            build(pair(first, second))
        return
    [(owner, index, shape, *multipliers)] = build(pair(first, second))._native.learnable()
    assert (owner, index, shape) == ("a", 0, (3, 3))
    assert tuple(multipliers) == want


def test_statistics_are_not_learned_but_lie_in_the_flat_arrays() -> None:
    image = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }'
    net = build(image + 'layer { name: "bn" type: "BatchNorm" bottom: "x" top: "y" }' + loss("y"))
    assert [entry[3:] for entry in net._native.learnable()] == [(0, 0)] * 3
    assert net.flat_data.size == 3 + 3 + 1


# ---- seeds ----


def test_parameters_are_a_function_of_the_seed_and_the_layers_name() -> None:
    text = INPUT + dense("a", "x", "y") + dense("b", "y", "z")
    one, same, other = build(text, seed=7), build(text, seed=7), build(text, seed=8)
    np.testing.assert_array_equal(one.flat_data, same.flat_data)
    assert (one.params["a"][0].data != other.params["a"][0].data).all()
    assert (one.params["a"][0].data != one.params["b"][0].data).all()
    longer = build(INPUT + dense("first", "x", "w") + dense("a", "w", "y") + dense("b", "y", "z"), seed=7)
    np.testing.assert_array_equal(one.params["b"][0].data, longer.params["b"][0].data)
    assert (build(text, seed=None).flat_data != build(text, seed=None).flat_data).any()


def test_random_layers_follow_set_seed() -> None:
    net = build(INPUT + 'layer { name: "d" type: "Dropout" bottom: "x" top: "y" }')
    x = np.ones((2, 3))

    def passes(seed: int) -> list[np.ndarray]:
        net.set_seed(seed)
        return [net.forward(x=x)["y"].copy() for _ in range(20)]

    first = passes(3)
    assert any((a != b).any() for a, b in itertools.pairwise(first))
    np.testing.assert_array_equal(first, passes(3))
    assert (np.array(first) != passes(2**63 - 1)).any()
    with pytest.raises(EngineError, match="a seed lies between"):
        net.set_seed(-1)


# ---- the dry run ----


def test_report() -> None:
    report = check_net(
        message(INPUT + dense("a", "x", "y", outputs=5) + loss("y", name="u") + loss("y", name="v")), TRAIN
    )
    assert report.problems == []
    assert (report.inputs, report.outputs) == (["x"], ["u", "v"])
    assert report.blobs == dict.fromkeys(report.blobs, (2, 5)) | {"x": (2, 3)}
    by_name = {layer.name: layer for layer in report.layers}
    assert by_name["a"].index == 1 and by_name["y_a_0_split"].index == -1
    assert by_name["y_a_0_split"].type == "Split" and by_name["v"].bottoms == ["y_a_0_split_1"]
    assert by_name["a"].param_shapes == [(5, 3), (5,)]
    assert by_name["a"].top_shapes == [(2, 5)]
    assert by_name["a"].multiply_adds == 2 * 3 * 5


def public_nets() -> list[str]:
    path = "corpus/test_phase_shapes.json"
    return list(json.loads(shared(path).read_text())) if shared_names("corpus", "test_phase_shapes.json") else []


@pytest.mark.parametrize("name", public_nets())
def test_shapes_of_public_nets(name: str) -> None:
    """What Caffe 1.0 builds of nets as their authors published them."""
    want = json.loads(shared("corpus/test_phase_shapes.json").read_text())[name]
    report = check_net(message(shared(f"corpus/prototxt/{name}").read_text()), TEST)
    assert report.problems == []
    assert {blob: list(shape) for blob, shape in report.blobs.items() if shape is not None} == want["blobs"]
    params = {
        layer.name: [list(shape) for shape in layer.param_shapes] for layer in report.layers if layer.param_shapes
    }
    assert params == want["params"]


@pytest.mark.parametrize(
    ("layer", "kind", "reason", "bottom"),
    [
        ('type: "Relu" bottom: "x" top: "y"', "type", "there is no layer type `Relu`; did you mean `ReLU`?", None),
        ('type: "Convolutoin" bottom: "x" top: "y"', "type", "did you mean `Convolution`?", None),
        ('bottom: "x" top: "y"', "type", "has no type", None),
        ('type: "ReLU" bottom: "xx" top: "y"', "blob", "no layer above it makes its bottom `xx`; did you mean `x`?", 0),
        ('type: "Eltwise" bottom: "x" bottom: "far" top: "y"', "blob", "no layer above it makes its bottom `far`", 1),
        ('type: "Concat" bottom: "x" top: "x"', "tops", "cannot write over its bottom", None),
        ('type: "Power" top: "x" bottom: "x"', None, "", None),
        ('type: "Input" top: "x" input_param { shape { dim: 1 } }', "duplicate", "its top `x` exists already", None),
        ('type: "ReLU" bottom: "x" top: "y" top: "w"', "tops", "a ReLU layer makes 1 top, got 2", None),
        ('type: "ReLU" top: "y"', "bottoms", "a ReLU layer takes 1 bottom, got 0", None),
        ('type: "ReLU" bottom: "x" bottom: "x" top: "y"', "bottoms", "a ReLU layer takes 1 bottom, got 2", None),
        (
            'type: "SoftmaxWithLoss" bottom: "x" top: "y"',
            "bottoms",
            "a SoftmaxWithLoss layer takes 2 bottoms (scores, labels), got 1",
            None,
        ),
        (
            'type: "ReLU" bottom: "x" top: "y" propagate_down: true propagate_down: false',
            "field",
            "1 times, not 2",
            None,
        ),
        ('type: "ReLU" bottom: "x" top: "y" loss_weight: 1 loss_weight: 2', "field", "1 times, not 2", None),
        ('type: "ReLU" bottom: "x" top: "y" param { lr_mult: 1 }', "param", "`param` is given 1 times", None),
        ('type: "ReLU" bottom: "x" top: "y" include { } exclude { }', "field", "both include and exclude", None),
        ('type: "InnerProduct" bottom: "x" top: "y"', "field", "num_output", None),
        (
            'type: "InnerProduct" bottom: "x" top: "y" '
            'inner_product_param { num_output: 2 weight_filler { type: "xavir" } }',
            "field",
            "unknown filler type",
            None,
        ),
        (
            'type: "Input" top: "y" input_param { shape { dim: 99999 dim: 99999 } }',
            "memory",
            "more than 2^31 - 1",
            None,
        ),
        ('type: "Input" top: "y" input_param { shape { dim: -1 } }', "shape", "negative extent", None),
    ],
)
def test_problems(layer: str, kind: str | None, reason: str, bottom: int | None) -> None:
    text = INPUT + f'layer {{ name: "bad" {layer} }}\nlayer {{ name: "after" type: "ReLU" bottom: "y" top: "z" }}'
    if 'top: "y"' not in layer:
        text = INPUT + f'layer {{ name: "bad" {layer} }}'
    report = check_net(message(text), TRAIN)
    if kind is None:
        assert report.problems == []
        return
    [problem] = report.problems  # and none of `after`, whose bottom is unknown
    assert (problem.index, problem.layer, problem.kind, problem.bottom) == (1, "bad", kind, bottom)
    assert reason in problem.reason
    if "after" in text and "include { } exclude" not in layer:
        assert report.blobs["y"] is None and report.blobs["z"] is None
    with pytest.raises(LayerError) as raised:
        build(text)
    assert raised.value.layer == "bad" and reason in raised.value.reason


def test_every_problem_is_found() -> None:
    text = (
        INPUT
        + dense("a", "nope", "y")
        + 'layer { name: "b" type: "Nope" bottom: "y" top: "z" }'
        + dense("c", "x", "w", "param { } param { } param { }")
        + dense("d", "w", "v")
        + dense("e", "x", "u")
    )
    report = check_net(message(text), TRAIN)
    assert [(problem.layer, problem.kind) for problem in report.problems] == [
        ("a", "blob"),
        ("b", "type"),
        ("c", "param"),
    ]
    assert report.blobs["v"] is None and report.blobs["u"] == (2, 3)


def test_supplied_shapes() -> None:
    net = message(
        'layer { name: "d" type: "Data" top: "x" top: "l" data_param { source: "db" } }' + dense("a", "x", "y")
    )
    report = check_net(net, TRAIN)
    assert report.problems == [] and set(report.blobs.values()) == {None}
    report = check_net(net, TRAIN, shapes={"x": (4, 3), "l": [4]})
    assert report.blobs == {"x": (4, 3), "l": (4,), "y": (4, 3)} and report.inputs == ["x", "l"]
    with pytest.raises(LayerError, match=r"layer `d` \(Data\): batch_size must be at least 1"):
        caffe_ext.Net(net, TRAIN)


def test_the_dry_run_allocates_nothing() -> None:
    layers = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 500 dim: 4000 dim: 1000 } } }\n'
    for i in range(15):
        layers += f'layer {{ name: "c{i}" type: "InnerProduct" bottom: "{f"y{i - 1}" if i else "x"}" top: "y{i}" '
        layers += "inner_product_param { num_output: 1000 axis: 2 } }\n"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = check_net(message(layers), TRAIN)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert report.problems == []
    assert sum(4 * int(np.prod(shape)) for shape in report.blobs.values() if shape is not None) > 100 * 2**30
    assert after - before < 64 * 1024  # KiB


def test_parameters_that_no_machine_holds_are_refused() -> None:
    text = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 40000 } } }\n'
    for i in range(2000):
        text += dense(f"d{i}", f"y{i - 1}" if i else "x", f"y{i}", outputs=40000)
    with pytest.raises(EngineError, match=r"the engine may use .* take a smaller batch"):
        build(text)


# ---- calls ----


def test_inputs_by_name() -> None:
    net = build(INPUT + loss("x", name="u"))
    with pytest.raises(EngineError, match="the inputs are x; got y"):
        net.forward(y=1)
    with pytest.raises(EngineError, match=r"input x has shape \(3, 2\); the net wants \(2, 3\)"):
        net.forward(x=np.ones((3, 2)))
    with pytest.raises(EngineError, match="`x` is no output; the outputs are u"):
        net.backward(x=1)
    assert net.forward(x=np.ones((2, 3)))["u"].sum() == 6  # still usable


def test_reshape_reaches_all_layers() -> None:
    net = build(INPUT + dense("a", "x", "y") + 'layer { name: "r" type: "ReLU" bottom: "y" top: "z" }')
    net.blobs["x"].reshape(7, 3)
    net.reshape()
    assert net.blobs["z"].shape == (7, 3)
    net.blobs["x"].reshape(1, 3)  # forward sees it without reshape()
    assert net.forward(x=np.ones((1, 3)))["z"].shape == (1, 3)
    net.blobs["x"].reshape(1, 4)
    with pytest.raises(LayerError, match="layer `a`"):
        net.forward()
    net.blobs["x"].reshape(2, 3)
    assert net.forward(x=np.ones((2, 3)))["z"].shape == (2, 3)


def test_sources() -> None:
    net = build(INPUT + 'layer { name: "d" type: "RDDData" top: "r" top: "s" input_param { shape { dim: 1 } } }')
    assert net.inputs == ["x", "r", "s"] and net.blobs["s"].shape == (1,)
    assert not net.forward()["r"].any()  # zeros until somebody writes
    with pytest.raises(LayerError, match="input_param has 2 shapes for 3 tops"):
        build('layer { name: "d" type: "Input" top: "a" top: "b" top: "c" input_param { shape { } shape { } } }')


@pytest.mark.parametrize(
    ("source", "says"),
    [("/nowhere/net.prototxt", "cannot read /nowhere/net.prototxt: No such file"), (7, "a path or a NetParameter")],
)
def test_sources_that_are_none(source: Any, says: str) -> None:
    with pytest.raises(EngineError, match=says):
        caffe_ext.Net(source, TEST)


def test_text_that_does_not_parse(tmp_path: Any) -> None:
    path = tmp_path / "bad.prototxt"
    path.write_text("layer { name: x }")
    with pytest.raises(EngineError, match=r"bad.prototxt:1:15: `name` wants a string in quotes, not `x`"):
        caffe_ext.Net(path, TEST)


def test_phase_that_is_none() -> None:
    with pytest.raises(EngineError, match="the phase is TRAIN"):
        build(INPUT, phase=2)


def test_registry() -> None:
    types = caffe_ext.layer_types()
    assert list(types) == caffe_ext.layer_type_list() == sorted(types)
    assert types["SoftmaxWithLoss"].loss and types["SoftmaxWithLoss"].bottom_names == ("scores", "labels")
    fields = {field.name for field in caffe_pb2.LayerParameter.DESCRIPTOR.fields}
    for layer_type in types.values():
        assert layer_type.summary and set(layer_type.messages) <= fields
        owners = [caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name[name].message_type for name in layer_type.messages]
        for field in layer_type.positional:
            assert any(field in owner.fields_by_name for owner in owners), (layer_type.name, field)
