"""Layers written in Python: the contract, their parameters, their errors, and who may do what while they run."""

import gc
import threading
import traceback
import weakref
from typing import Any

import numpy as np
import pytest
import python_layers
from google.protobuf import text_format
from python_layers import Gain, Hook

from sparknet_dsl import caffe_ext as caffe
from sparknet_dsl.errors import EngineError, LayerError
from sparknet_dsl.proto import caffe_pb2

INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 dim: 6 dim: 6 } } }'
LABEL = 'layer { name: "l" type: "Input" top: "l" input_param { shape { dim: 4 dim: 8 dim: 4 dim: 4 } } }'
LOSS = "loss_weight: 1"
CONV = """layer { name: "conv" type: "Convolution" bottom: "x" top: "c" param { lr_mult: 1 }
  convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }"""


@pytest.fixture(autouse=True)
def no_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hook, "actions", {})


def python(
    layer: str, bottoms: str, top: str, extra: str = "", param_str: str = "", module: str = "python_layers"
) -> str:
    bottom = " ".join(f'bottom: "{name}"' for name in bottoms.split())
    return (
        f'layer {{ name: "{top}" type: "Python" {bottom} top: "{top}" {extra} python_param '
        f'{{ module: "{module}" layer: "{layer}" param_str: "{param_str}" }} }}'
    )


def net_of(*layers: str) -> caffe_pb2.NetParameter:
    return text_format.Parse("".join(layers), caffe_pb2.NetParameter())


def build(*layers: str, **settings: Any) -> caffe.Net:
    return caffe.Net(net_of(*layers), caffe.TRAIN, **{"seed": 1, **settings})


def rows(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("memory", ["reuse", "lean"])
def test_it_trains_where_values_are_given_away_between_passes(memory: str) -> None:
    layers = (
        INPUT,
        CONV,
        python("Gain", "c", "y", param_str="1.5"),
        'layer { name: "r" type: "ReLU" bottom: "y" top: "y" }',
    )
    end = 'layer { name: "e" type: "Reduction" bottom: "y" top: "e" loss_weight: 1 }'
    nets = [build(*layers, end, memory=way) for way in ("all", memory)]
    for _ in range(3):
        losses = [float(net.forward(x=rows(4, 3, 6, 6))["e"]) for net in nets]
        assert losses[0] == losses[1]
        for net in nets:
            net.clear_param_diffs()
            net.backward()
        for name in ("conv", "y"):
            np.testing.assert_array_equal(nets[0].params[name][0].diff, nets[1].params[name][0].diff)


def test_a_loss_in_python_is_the_engines() -> None:
    own = build(INPUT, LABEL, CONV, python("EuclideanLoss", "c l", "loss", "loss_weight: 2"))
    native = build(
        INPUT, LABEL, CONV, 'layer { name: "e" type: "EuclideanLoss" bottom: "c" bottom: "l" top: "e" loss_weight: 2 }'
    )
    for net in (own, native):
        net.forward(x=rows(4, 3, 6, 6), l=rows(4, 8, 4, 4))
        net.clear_param_diffs()
        net.backward()
    assert own.loss == pytest.approx(native.loss, rel=1e-5)
    # As Caffe's example, the class does not look at its top's diff, where the loss weight stands.
    np.testing.assert_allclose(2 * own.flat_diff, native.flat_diff, rtol=1e-4, atol=1e-5)


def test_parameters_start_as_setup_left_them_and_learn() -> None:
    frozen = CONV.replace("lr_mult: 1", "lr_mult: 0")
    text = [INPUT, LABEL, frozen, python("Gain", "c", "g", "", "1.5"), python("EuclideanLoss", "g l", "loss", LOSS)]
    net = build(*text)
    np.testing.assert_array_equal(net.params["g"][0].data, np.full(8, 1.5))
    assert net.flat_data[-8:].tolist() == [1.5] * 8
    param = caffe_pb2.SolverParameter(base_lr=0.005, lr_policy="fixed", net_param=net_of(*text))
    solver = caffe.get_solver(param)
    solver.net.blobs["x"].data[...] = rows(4, 3, 6, 6)
    solver.net.blobs["l"].data[...] = 3 * solver.net.forward(["c"])["c"]
    losses = solver.step(40)
    assert losses[-1] < losses[0] / 10
    assert solver.net.params["g"][0].data.mean() > 2


def test_parameters_are_saved_shared_and_filled_once(tmp_path) -> None:
    shared = 'param { name: "p" }'
    net = build(INPUT, python("Gain", "x", "a", shared, "2"), python("Gain", "a", "b", shared, "5"))
    net.forward(x=np.ones((4, 3, 6, 6)))
    assert (net.blobs["b"].data == 4).all()  # the first one's value counts
    net.params["b"][0].data[...] = 3
    net.save(tmp_path / "n.caffemodel")
    again = build(INPUT, python("Gain", "x", "a", param_str="7"), weights=tmp_path / "n.caffemodel")
    assert (again.params["a"][0].data == 3).all()


def test_what_the_object_knows() -> None:
    net = build(INPUT, python("Gain", "x", "g", param_str="2"), 'layer { name: "r" type: "ReLU" bottom: "g" top: "r" }')
    layer = net.layers[1]
    assert isinstance(layer, Gain) and net.layer_dict["g"] is layer
    assert (layer.name, layer.type, layer.phase, layer.param_str) == ("g", "Python", caffe.TRAIN, "2")
    assert [blob.shape for blob in layer.blobs] == [(3,)]
    layer.blobs[0].data[...] = 7
    assert (net.params["g"][0].data == 7).all()
    assert (net.layers[2].type, net.layers[2].blobs) == ("ReLU", [])


def test_reshape_runs_before_each_pass_and_those_below_follow() -> None:
    shapes = iter([(4, 3, 6, 6), (2, 5), (7, 5)])
    Hook.actions = {
        "reshape": lambda self, bottom, top: top[0].reshape(*next(shapes)),
        "forward": lambda self, bottom, top: top[0].data.fill(2),
    }
    text = python("Hook", "x", "h"), 'layer { name: "p" type: "Power" bottom: "h" top: "p" power_param { power: 3 } }'
    Hook.forward, forward = lambda self, bottom, top: self.act("forward", bottom, top), Hook.forward
    try:
        net = build(INPUT, *text)
        for shape in [(2, 5), (7, 5)]:
            result = net.forward()["p"]
            assert result.shape == shape and (result == 8).all()
    finally:
        Hook.forward = forward


def test_views_that_a_layer_keeps_are_current() -> None:
    seen = []
    Hook.actions = {
        "setup": lambda self, bottom, top: setattr(self, "kept", bottom[0]),
        "forward": lambda self, bottom, top: seen.append((self.view.copy(), self.kept.data.copy())),
    }
    net = build(INPUT, CONV, python("Hook", "c", "h"))
    net.layers[2].view = net.blobs["c"].data
    for scale in (1, 2):
        net.forward(x=scale * np.ones((4, 3, 6, 6)))
        np.testing.assert_array_equal(seen[-1][0], net.blobs["c"].data)
        np.testing.assert_array_equal(seen[-1][1], net.blobs["c"].data)
    assert not np.array_equal(seen[0][0], seen[1][0])


# ---- errors ----


def fail(*_: object) -> None:
    raise KeyError("the user's own")


@pytest.mark.parametrize("verb", ["setup", "reshape", "forward", "backward"])
def test_exceptions_name_the_layer_and_keep_their_traceback(verb: str) -> None:
    text = [INPUT, CONV, python("Hook", "c", "h", LOSS)]
    net = build(*text)
    Hook.actions = {verb: fail}
    with pytest.raises(
        LayerError, match=r"layer `h` \(Python\): KeyError: \"the user's own\" \(.*, line \d+\)"
    ) as caught:
        build(*text)
        net.forward(x=rows(4, 3, 6, 6))
        net.backward()
    assert caught.value.kind == "code"
    assert isinstance(caught.value.__cause__, KeyError)
    assert "fail" in [frame.name for frame in traceback.extract_tb(caught.value.__cause__.__traceback__)]
    Hook.actions = {}
    net.forward(x=rows(4, 3, 6, 6))
    net.backward()
    np.testing.assert_array_equal(net.blobs["h"].data, net.blobs["c"].data)


def test_control_c_stays_what_it_is() -> None:
    net = build(INPUT, python("Hook", "x", "h"))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    Hook.actions = {"forward": interrupt}
    with pytest.raises(KeyboardInterrupt):
        net.forward()
    Hook.actions = {}
    net.forward()


@pytest.mark.parametrize(
    ("layer", "module", "says"),
    [
        ("Gain", "no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("Missing", "python_layers", "module `python_layers` has no class `Missing` that is derived from Layer"),
        ("NO_LAYER", "python_layers", "has no class `NO_LAYER`"),
        ("", "python_layers", "python_param must name a module and a layer"),
        ("Gain", "python_layers", "ValueError: could not convert string to float"),
    ],
)
def test_classes_that_cannot_be_made(layer: str, module: str, says: str) -> None:
    with pytest.raises(LayerError, match=says):
        build(INPUT, python(layer, "x", "g", module=module, param_str="many"))


def test_blobs_hold_parameters_only() -> None:
    Hook.actions = {"setup": lambda self, bottom, top: self.blobs.append(np.zeros(3))}
    with pytest.raises(LayerError, match="only hold what"):
        build(INPUT, python("Hook", "x", "h"))


def test_missing_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_layers, "Empty", type("Empty", (caffe.Layer,), {}), raising=False)
    with pytest.raises(LayerError, match=r"Empty lacks the method reshape\(bottom, top\)"):
        build(INPUT, python("Empty", "x", "h"))


def test_an_init_that_does_not_call_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    own = type("Own", (Hook,), {"__init__": lambda self, param: setattr(self, "mine", param.python_param.layer)})
    monkeypatch.setattr(python_layers, "Own", own, raising=False)
    net = build(INPUT, python("Own", "x", "h"))
    assert net.layers[1].mine == "Own" and net.layers[1].name == "h"


# ---- who may do what ----


def test_a_layer_looks_at_its_own_net_but_cannot_run_it() -> None:
    net = build(INPUT, CONV, python("Hook", "c", "h"))
    sums = []
    Hook.actions = {"forward": lambda self, bottom, top: sums.append(net.blobs["x"].data.sum())}
    net.forward(x=np.ones((4, 3, 6, 6)))
    assert sums == [432]
    for call in (net.forward, net.reshape, net.backward):
        Hook.actions = {"forward": lambda self, bottom, top, call=call: call()}
        with pytest.raises(LayerError, match="a layer cannot run the net that it is in"):
            net.forward()
    Hook.actions = {}
    net.forward()


def test_a_layer_runs_another_net() -> None:
    inner = build(INPUT, 'layer { name: "p" type: "Power" bottom: "x" top: "p" power_param { scale: 2 } }')

    def run(self, bottom, top):
        top[0].data[...] = inner.forward(x=bottom[0].data)["p"]

    Hook.actions = {"forward": run}
    net = build(INPUT, python("Hook", "x", "h"))
    assert (net.forward(x=np.ones((4, 3, 6, 6)))["h"] == 2).all()


def test_a_layer_that_tries_to_run_its_own_net_draws_no_batch() -> None:
    memory = """layer { name: "m" type: "MemoryData" top: "x" top: "l"
      memory_data_param { batch_size: 2 channels: 1 height: 1 width: 1 } }"""
    net = build(memory, python("Hook", "x", "h"))
    net.set_input_arrays(np.arange(6).reshape(6, 1, 1, 1), np.zeros(6))
    Hook.actions = {"forward": lambda self, bottom, top: net.forward()}
    with pytest.raises(LayerError, match="a layer cannot run the net that it is in"):
        net.forward()
    Hook.actions = {}
    assert net.forward()["h"].ravel().tolist() == [2, 3]


def test_a_layer_builds_a_net_that_has_one_too() -> None:
    def inner(self, bottom, top):
        self.net = build(INPUT, python("Gain", "x", "g", param_str="3"))

    def run(self, bottom, top):
        top[0].data[...] = self.net.forward(x=bottom[0].data)["g"]

    Hook.actions = {"setup": inner, "forward": run}
    net = build(INPUT, python("Hook", "x", "h"), python("Gain", "h", "y", param_str="2"))
    assert (net.forward(x=np.ones((4, 3, 6, 6)))["y"] == 6).all()


def test_other_threads_are_refused_while_it_runs() -> None:
    net = build(INPUT, python("Hook", "x", "h"))
    refused = []

    def other() -> None:
        for attempt in (lambda: net.blobs["x"].data, net.forward, net.clear_param_diffs):
            with pytest.raises(EngineError, match="computing in another thread") as caught:
                attempt()
            refused.append(caught.value)

    def wait(*_: object) -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    Hook.actions = {"forward": wait}
    net.forward()
    assert len(refused) == 3


def test_nets_go_with_their_last_reference() -> None:
    net = build(INPUT, python("Gain", "x", "g", param_str="1"))
    layer = weakref.ref(net.layers[1])
    kept = net.blobs["g"]
    net.forward()
    del net
    gc.collect()
    assert layer() is None
    assert kept.data.shape == (4, 3, 6, 6)


# ---- the dry run ----


def test_the_dry_run_does_not_run_the_users_code() -> None:
    net = net_of(
        INPUT, python("Any", "x", "h", module="not_there"), 'layer { name: "r" type: "ReLU" bottom: "h" top: "r" }'
    )
    report = caffe.check_net(net, caffe.TRAIN)
    assert report.problems == []
    assert report.blobs == {"x": (4, 3, 6, 6), "h": None, "r": None}
    assert caffe.check_net(net, caffe.TRAIN, shapes={"h": [2, 5]}).blobs["r"] == (2, 5)
