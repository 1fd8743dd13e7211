"""Nets and solvers under pycaffe's names, by pycaffe's rules."""

import logging
import threading
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from sparknet_dsl import caffe_ext as caffe
from sparknet_dsl.errors import EngineError, LayerError, WeightsError
from sparknet_dsl.proto import caffe_pb2

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 2 dim: 6 dim: 6 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss"
  include { not_stage: "deploy" } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" include { stage: "deploy" } }
"""
LAYERS = ["data", "label", "conv", "relu", "drop", "ip", "loss"]


def message(text: str = NET) -> caffe_pb2.NetParameter:
    return text_format.Parse(text, caffe_pb2.NetParameter())


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    return str(path)


def filled(net: caffe.Net, seed: int = 0) -> caffe.Net:
    rng = np.random.default_rng(seed)
    net.blobs["data"].data[...] = rng.standard_normal(net.blobs["data"].shape)
    if "label" in net.blobs:
        net.blobs["label"].data[...] = rng.integers(0, 5, net.blobs["label"].shape)
    return net


# ---- construction, names ----


def test_names_and_layers(path: str) -> None:
    net = caffe.Net(path, caffe.TRAIN)
    assert list(net._layer_names) == LAYERS == [layer.name for layer in net.layers]
    assert [layer.type for layer in net.layers][2:4] == ["Convolution", "ReLU"]
    assert list(net._blob_names) == list(net.blobs) == ["data", "label", "conv", "ip", "loss"]
    assert (net.inputs, net.outputs) == (["data", "label"], ["loss"])
    assert ([net._blob_names[i] for i in net._inputs], net._outputs) == (net.inputs, [4])
    assert net._blob_loss_weights == [0, 0, 0, 0, 1]
    assert net.bottom_names["loss"] == ["ip", "label"] and net.top_names["relu"] == ["conv"]
    assert (net._bottom_ids(6), net._top_ids(6)) == ([3, 1], [4])
    assert net.layer_dict["conv"] is net.layers[2]
    assert [blob.shape for blob in net.layer_dict["conv"].blobs] == [(3, 2, 3, 3), (3,)]
    assert {name: len(blobs) for name, blobs in net.params.items()} == {"conv": 2, "ip": 2}


def test_ways_to_build(path: str, tmp_path) -> None:
    first = caffe.Net(path, caffe.TRAIN)
    weights = str(tmp_path / "w.caffemodel")
    first.save(weights)
    for net in (
        caffe.Net(path, weights, caffe.TEST),
        caffe.Net(path, caffe.TEST, weights=weights),
        caffe.Net(network_file=path, phase=caffe.TEST, level=0, stages=["deploy"], weights=weights),
    ):
        np.testing.assert_array_equal(net.params["ip"][0].data, first.params["ip"][0].data)
    assert net.outputs == ["label", "prob"]
    with pytest.raises(WeightsError):
        caffe.Net(path, "/nowhere.caffemodel", caffe.TEST)


# ---- passes ----


def test_forward_in_part_gives_the_tops_of_its_last_layer(path: str) -> None:
    net = filled(caffe.Net(path, caffe.TEST))
    whole = {name: values.copy() for name, values in net.forward(["conv"]).items()}
    assert set(whole) == {"conv", "loss"}
    assert set(net.forward(end="ip")) == {"ip"}
    assert set(net.forward(["ip"], start="ip", end="ip")) == {"ip"}
    net.blobs["conv"].data[...] = 0
    assert not np.array_equal(net.forward(start="ip")["loss"], whole["loss"])
    np.testing.assert_array_equal(net.forward(start="conv")["loss"], whole["loss"])
    assert net._forward(0, 6) == pytest.approx(float(whole["loss"]))


def test_a_pass_in_parts_is_the_whole(path: str) -> None:
    net = filled(caffe.Net(path, caffe.TEST))
    want = net.forward()["loss"].copy()
    net.forward(end="conv")
    net.forward(start="relu", end="ip")
    np.testing.assert_array_equal(net.forward(start="loss")["loss"], want)


def test_backward_in_part(path: str) -> None:
    net = filled(caffe.Net(message(NET.replace('name: "small"', "force_backward: true")), caffe.TEST))
    net.forward()
    whole = {name: values.copy() for name, values in net.backward(["conv"]).items()}
    assert set(whole) == {"data", "label", "conv"}
    net.clear_param_diffs()
    assert set(net.backward(end="ip")) == {"conv"}
    np.testing.assert_array_equal(net.blobs["ip"].diff.any(), True)
    assert not net.params["conv"][0].diff.any()
    np.testing.assert_allclose(net.backward(start="drop")["data"], whole["data"], rtol=1e-6)


def test_gradients_from_outside() -> None:
    net = filled(caffe.Net(message("force_backward: true" + NET), caffe.TEST, stages=["deploy"], seed=1))
    net.forward()
    zero = net.backward(prob=np.zeros((4, 5)), label=np.zeros(4))["data"].copy()
    assert not zero.any()
    assert net.backward(prob=np.eye(4, 5))["data"].any()


def test_inputs_by_pycaffes_rules(path: str) -> None:
    net = caffe.Net(path, caffe.TEST)
    label = np.zeros(4)
    net.forward(data=np.full((4, 1, 1, 6), 2), label=label)
    assert (net.blobs["data"].data == 2).all()
    for data, says in [
        (np.zeros((3, 2, 6, 6)), r"input data has shape \(3, 2, 6, 6\); the net wants \(4, 2, 6, 6\)"),
        (np.zeros((4, 2, 5, 6)), "input data: could not broadcast"),
        (np.zeros(4), "input data has shape"),
        ([[1], [2, 3]], "input data: "),
        ({}, "input data"),
    ]:
        with pytest.raises(EngineError, match=says):
            net.forward(data=data, label=label)
    with pytest.raises(EngineError, match="the inputs are data, label; got data"):
        net.forward(data=np.zeros((4, 2, 6, 6)))
    for call in (lambda: net.forward(start="none"), lambda: net.backward(end="none")):
        with pytest.raises(EngineError, match="no layer `none`; it has data, label, conv"):
            call()
    for call in (lambda: net.forward(["none"]), lambda: net.backward(["none"])):
        with pytest.raises(EngineError, match="no blob `none`; it has data, label"):
            call()


@pytest.mark.parametrize("places", [(-1, 3), (0, 7), (5, 3)])
def test_layers_that_there_are_not(path: str, places: tuple[int, int]) -> None:
    net = caffe.Net(path, caffe.TEST)
    with pytest.raises(EngineError, match="there are no layers"):
        net._forward(*places)
    with pytest.raises(EngineError, match="there are no layers"):
        net._backward(*places[::-1])


def test_start_after_end(path: str) -> None:
    with pytest.raises(EngineError, match="there are no layers 5 to 2"):
        caffe.Net(path, caffe.TEST).forward(start="ip", end="conv")


# ---- more rows than a batch ----


@pytest.mark.parametrize("rows", [1, 4, 6, 8, 11])
def test_forward_all(rows: int) -> None:
    net = caffe.Net(message(NET.replace('include { not_stage: "deploy" }', "")), caffe.TEST, stages=["deploy"])
    rng = np.random.default_rng(1)
    data, label = rng.standard_normal((rows, 2, 6, 6)), rng.integers(0, 5, rows)
    out = net.forward_all(["ip"], data=data, label=label)
    assert {name: values.shape for name, values in out.items()} == {
        "prob": (rows, 5),
        "ip": (rows, 5),
        "loss": (-(-rows // 4),),
    }
    for row in range(rows):
        net.blobs["data"].data[...] = data[row]
        net.forward()
        np.testing.assert_allclose(out["prob"][row], net.blobs["prob"].data[0], rtol=1e-5)


def test_forward_backward_all() -> None:
    net = caffe.Net(message("force_backward: true" + NET), caffe.TEST, stages=["deploy"])
    rng = np.random.default_rng(1)
    data, diff = rng.standard_normal((6, 2, 6, 6)), rng.standard_normal((6, 5))
    label = np.zeros(6)
    outs, diffs = net.forward_backward_all(blobs=["ip"], diffs=["ip"], data=data, label=label, prob=diff)
    assert set(outs) == {"label", "prob", "ip"} and set(diffs) == {"data", "label", "ip"}
    assert diffs["data"].shape == data.shape
    prob = outs["prob"]
    np.testing.assert_allclose(diffs["ip"], prob * (diff - (prob * diff).sum(1, keepdims=True)), rtol=1e-4, atol=1e-6)


def test_rows_that_do_not_fit() -> None:
    net = caffe.Net(message(), caffe.TEST)
    for arrays in ({}, {"data": np.zeros((0, 2, 6, 6))}, {"data": np.zeros((3, 2, 6, 6)), "label": np.zeros(2)}):
        with pytest.raises(EngineError, match="equally many rows"):
            net.forward_all(**arrays)
    with pytest.raises(EngineError, match="`conv` is neither an input nor an output"):
        net.forward_backward_all(conv=np.zeros((4, 3, 4, 4)))
    batches = list(net._batch({"label": np.arange(6)}))
    assert [batch["label"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 0, 0]]


# ---- callbacks ----


def test_callbacks_surround_each_layer_and_change_nothing(path: str) -> None:
    plain, watched = (filled(caffe.Net(path, caffe.TRAIN, seed=1)) for _ in range(2))
    calls: list[tuple[str, int]] = []
    for name in ("before_forward", "after_forward", "before_backward", "after_backward"):
        getattr(watched, name)(lambda layer, name=name: calls.append((name, layer)))
    for net in (plain, watched, plain, watched):  # twice: Dropout draws anew
        net.forward()
        net.backward()
    assert watched.loss == plain.loss
    np.testing.assert_array_equal(watched.flat_diff, plain.flat_diff)
    forward = [(when, layer) for layer in range(7) for when in ("before_forward", "after_forward")]
    backward = [(when, layer) for layer in range(6, -1, -1) for when in ("before_backward", "after_backward")]
    assert calls == 2 * (forward + backward)


def test_a_callback_changes_what_layers_see(path: str) -> None:
    net = filled(caffe.Net(path, caffe.TEST))
    net.after_forward(lambda layer: net.blobs["conv"].data.fill(0) if net._layer_names[layer] == "drop" else None)
    np.testing.assert_allclose(net.forward(["ip"])["ip"], np.tile(net.params["ip"][1].data, (4, 1)))


# ---- views, surgery ----


def test_writing_to_views_takes_effect(path: str) -> None:
    net = filled(caffe.Net(path, caffe.TEST))
    data = net.blobs["data"].data
    kept = net.forward(["ip"])["ip"]
    before = kept.copy()
    weight, bias = net.params["conv"]
    weight.data.flat = np.arange(weight.count) / weight.count
    bias.data[1] = 3
    net.forward()
    assert not np.array_equal(kept, before)  # the view shows what was computed anew
    windows = np.lib.stride_tricks.sliding_window_view(data, (3, 3), (2, 3))
    want = np.einsum("nchwij,ocij->nohw", windows, weight.data) + bias.data[:, None, None]
    np.testing.assert_allclose(net.blobs["conv"].data, np.maximum(want, 0), rtol=1e-4, atol=1e-5)
    with pytest.raises(AttributeError):
        weight.data = before


def test_blobs(path: str) -> None:
    net = caffe.Net(path, caffe.TEST)
    blob = net.blobs["data"]
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (4, 2, 6, 6, 288)
    assert tuple(blob.shape) == blob.data.shape == blob.diff.shape and blob.data.dtype == np.float32
    blob.reshape(2, 2, 6, 6)
    net.blobs["label"].reshape(2)
    net.reshape()
    assert net.blobs["ip"].shape == (2, 5) and net.blobs["label"].num == 2 and net.blobs["label"].width == 1


def test_share_with(path: str) -> None:
    first, second = (caffe.Net(path, phase, seed=phase) for phase in (caffe.TRAIN, caffe.TEST))
    filled(second)
    before = second.forward(["ip"])["ip"].copy()
    second.share_with(first)
    second.share_with(first)
    first.share_with(second)
    first.share_with(first)
    first.params["ip"][0].data[...] = 0
    first.params["ip"][1].data[...] = 7
    assert (second.forward(["ip"])["ip"] == 7).all() and not (before == 7).all()
    second.params["ip"][1].data[...] = 8
    assert (first.params["ip"][1].data == 8).all()
    assert first.flat_data.size == 3 * 18 + 3 + 5 * 48 + 5
    with pytest.raises(EngineError, match="shares parameters of another one"):
        _ = second.flat_data


def test_three_nets_share(path: str) -> None:
    def only(*names: str) -> caffe.Net:
        net = message()
        for layer in net.layer:
            if layer.name in ("conv", "ip") and layer.name not in names:
                layer.name += "_own"
        return caffe.Net(net, caffe.TEST)

    whole, left, right = caffe.Net(path, caffe.TEST), only("conv"), only("conv", "ip")
    left.share_with(whole)
    right.share_with(whole)
    third = only("ip")
    third.share_with(right)
    whole.params["ip"][1].data[...] = 5
    assert (third.params["ip"][1].data == 5).all()
    left.share_with(right)
    whole.params["conv"][1].data[...] = 6
    assert (left.params["conv"][1].data == 6).all()


def test_a_solver_trains_what_its_test_net_shares(tmp_path) -> None:
    param = caffe_pb2.SolverParameter(
        net_param=message(), base_lr=0.1, lr_policy="fixed", test_iter=[1], test_interval=100, random_seed=1
    )
    solver = caffe.SGDSolver(param)
    test = solver.test_nets[0]
    test.share_with(solver.net)
    filled(solver.net)
    solver.step(1)
    np.testing.assert_array_equal(test.params["ip"][0].data, solver.net.params["ip"][0].data)
    borrowed = caffe.SGDSolver(param)
    borrowed.net.share_with(solver.net)
    filled(borrowed.net)
    with pytest.raises(EngineError, match="shares parameters of another one"):
        borrowed.step(1)


def test_sharing_that_does_not_fit_changes_nothing(path: str) -> None:
    net = caffe.Net(path, caffe.TEST, seed=1)
    before = net.flat_data.copy()
    other = caffe.Net(message(NET.replace("num_output: 5", "num_output: 6")), caffe.TEST)
    with pytest.raises(LayerError, match=r"layer `ip` .*parameter 0 is 5 × 48 here and 6 × 48 in the other net"):
        net.share_with(other)
    np.testing.assert_array_equal(net.flat_data, before)
    other.params["conv"][0].data[...] = 9
    assert not (net.params["conv"][0].data == 9).any()


def test_nets_that_share_serve_one_thread_together(path: str) -> None:
    first, second = caffe.Net(path, caffe.TEST), caffe.Net(path, caffe.TEST)
    second.share_with(first)
    failures = []

    def other() -> None:
        for _ in range(200):
            try:
                second.forward()
            except EngineError as error:
                failures.append(str(error))

    thread = threading.Thread(target=other)
    thread.start()
    for _ in range(200):
        try:
            first.forward()
        except EngineError as error:
            failures.append(str(error))
    thread.join()
    assert all("computing in another thread" in failure for failure in failures)


# ---- solvers ----


def solver_param(**settings: Any) -> caffe_pb2.SolverParameter:
    return caffe_pb2.SolverParameter(
        **{"net_param": message(), "base_lr": 0.1, "lr_policy": "fixed", "random_seed": 1, **settings}
    )


@pytest.mark.parametrize("type", ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_solver_classes(type: str) -> None:
    kind = getattr(caffe, f"{type}Solver")
    own = kind(solver_param(delta=1e-4, momentum2=0.99))
    named = caffe.get_solver(solver_param(type=type, delta=1e-4, momentum2=0.99))
    assert isinstance(named, kind) and isinstance(named, caffe.Solver) and own.param.type == type
    other = caffe.get_solver(solver_param(type="AdaGrad" if type != "AdaGrad" else "Adam", delta=1e-4))
    results = []
    for solver in (own, named, other):
        filled(solver.net)
        solver.step(3)
        results.append(solver.net.flat_data.copy())
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.allclose(results[0], results[2])


def test_callbacks_of_solvers() -> None:
    solver = caffe.SGDSolver(solver_param(iter_size=2))
    filled(solver.net)
    seen: list[tuple[str, int, bool]] = []
    solver.add_callback(
        lambda: seen.append(("start", solver.iter, False)),
        lambda: seen.append(("gradients", solver.iter, bool(solver.net.flat_diff.any()))),
    )
    solver.step(2)
    assert seen == [("start", 0, False), ("gradients", 0, True), ("start", 1, False), ("gradients", 1, True)]


def test_a_loop_of_ones_own_is_step() -> None:
    stepped, own = caffe.SGDSolver(solver_param()), caffe.SGDSolver(solver_param())
    for solver in (stepped, own):
        filled(solver.net)
    stepped.step(3)
    for _ in range(3):
        own.net.clear_param_diffs()
        own.net.forward()
        own.net.backward()
        own.apply_update()
    assert own.iter == 3
    np.testing.assert_array_equal(own.net.flat_data, stepped.net.flat_data)


# ---- the process ----


def test_gpus_are_warned_of_and_scripts_go_on() -> None:
    caffe.set_mode_cpu()
    with pytest.warns(RuntimeWarning, match=r"set_mode_gpu\(\) changes nothing: this engine computes on the CPU"):
        caffe.set_mode_gpu()
    with pytest.warns(RuntimeWarning, match=r"set_device\(3\)") as caught:
        caffe.set_device(3)
    assert caught[0].filename == __file__
    assert caffe.has_nccl() is False


def test_random_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparknet_dsl.caffe_ext import common

    monkeypatch.setattr(common, "_seeds", None)
    drawn = []
    for seed in (5, 5, 6):
        caffe.set_random_seed(seed)
        drawn.append([caffe.Net(message(), caffe.TEST).flat_data.copy() for _ in range(2)])
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2]) and not np.array_equal(*drawn[0])


def test_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    package = logging.getLogger("sparknet_dsl.caffe_ext")
    monkeypatch.setattr(package, "handlers", [])
    monkeypatch.setattr(package, "level", package.level)
    caffe.init_log()
    caffe.init_log(0, True)
    assert len(package.handlers) == 1 and package.level == logging.INFO
    caffe.log("100 % done")
    assert caplog.messages == ["100 % done"]
    caffe.init_log(2)
    caffe.log("unseen")
    assert caplog.messages == ["100 % done"]


def test_debug_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sparknet_dsl.caffe_ext")
    net = filled(caffe.Net(message("debug_info: true" + NET), caffe.TEST))
    net.forward()
    mean = np.abs(net.blobs["ip"].data).mean(dtype="f8")
    assert f"[forward] layer ip, top ip data: {mean:g}" in caplog.messages
    weight = np.abs(net.params["ip"][0].data).mean(dtype="f8")
    assert f"[forward] layer ip, parameter 0 data: {weight:g}" in caplog.messages
    net.backward()
    mean = np.abs(net.params["conv"][0].diff).mean(dtype="f8")
    assert f"[backward] layer conv, parameter 0 diff: {mean:g}" in caplog.messages
    mean = np.abs(net.blobs["conv"].diff).mean(dtype="f8")
    assert f"[backward] layer relu, bottom conv diff: {mean:g}" in caplog.messages


def test_names_that_scripts_use() -> None:
    from sparknet_dsl.caffe_ext.proto import caffe_pb2 as messages

    assert messages is caffe.proto.caffe_pb2 is caffe_pb2
    assert (caffe.TRAIN, caffe.TEST) == (0, 1)
    assert "Convolution" in caffe.layer_type_list()
    for name in caffe.__all__:
        assert getattr(caffe, name) is not None, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = caffe.nothing
