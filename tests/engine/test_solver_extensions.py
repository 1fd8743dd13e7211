"""What solvers do beyond the golden runs: AdamW, cosine and warm-up against numpy, debug_info, stopping."""

import logging
import math
import pathlib
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import DivergedError, EngineError
from sparknet_dsl.proto import caffe_pb2

NET = text_format.Parse(
    """
    name: "small"
    layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 4 dim: 3 } shape { dim: 4 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" param { } param { lr_mult: 2 decay_mult: 0 }
            inner_product_param { num_output: 5 weight_filler { type: "gaussian" } } }
    layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" top: "loss" }
    """,
    caffe_pb2.NetParameter(),
)
COUNT = 20
RATE = np.repeat([1.0, 2.0], [15, 5])  # lr_mult of each parameter
DECAY = np.repeat([1.0, 0.0], [15, 5])  # decay_mult


def solver_of(**given: Any) -> caffe_ext.Solver:
    return caffe_ext.Solver(
        caffe_pb2.SolverParameter(**{"base_lr": 0.1, "lr_policy": "fixed", "max_iter": 10, **given}), NET, seed=1
    )


def fill(net: caffe_ext.Net, batch: int) -> None:
    random = np.random.default_rng(batch)
    net.blobs["x"].data[...] = random.standard_normal((4, 3))
    net.blobs["t"].data[...] = random.integers(0, 5, 4)


def rates(solver: caffe_ext.Solver, iterations: int) -> list[float]:
    found = []
    for solver.iter in range(iterations):
        found.append(solver.lr)
    return found


# ---- rules and rates ----


def test_adamw_is_the_papers_algorithm() -> None:
    """Loshchilov and Hutter (2019), algorithm 2, in float64, on the gradients that the engine found."""
    lr, beta1, beta2, decay, epsilon = 0.05, 0.9, 0.98, 0.3, 1e-3
    solver = solver_of(
        type="AdamW", base_lr=lr, momentum=beta1, momentum2=beta2, weight_decay=decay, delta=epsilon, iter_size=2
    )
    weights = solver.net.flat_data.astype("f8")
    m, v = np.zeros(COUNT), np.zeros(COUNT)
    for t in range(1, 8):
        solver.step(1, lambda k: fill(solver.net, k))
        gradient = solver.net.flat_diff.astype("f8") / 2
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        step = (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + epsilon)
        weights -= lr * RATE * (step + decay * DECAY * weights)
        np.testing.assert_allclose(solver.net.flat_data, weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(solver.flat_history, [*m, *v], rtol=1e-4, atol=1e-7)


def test_adamw_without_decay_is_adam_up_to_delta() -> None:
    given: dict[str, Any] = {"momentum": 0.9, "delta": 1e-8}
    adam, adamw = solver_of(type="Adam", **given), solver_of(type="AdamW", **given)
    for solver in (adam, adamw):
        solver.step(5, lambda k, net=solver.net: fill(net, k))  # type: ignore[misc]
    np.testing.assert_allclose(adamw.net.flat_data, adam.net.flat_data, rtol=1e-4, atol=1e-5)


def test_cosine_goes_from_base_to_floor() -> None:
    solver = solver_of(lr_policy="cosine", base_lr=0.4, min_lr=0.1, max_iter=8)
    want = [0.1 + 0.3 * (1 + math.cos(math.pi * i / 8)) / 2 for i in range(9)]
    np.testing.assert_allclose(rates(solver, 12), [*want, 0.1, 0.1, 0.1], rtol=1e-6)


@pytest.mark.parametrize(
    "policy",
    [
        {"lr_policy": "fixed"},
        {"lr_policy": "step", "gamma": 0.5, "stepsize": 2},
        {"lr_policy": "exp", "gamma": 0.9},
        {"lr_policy": "inv", "gamma": 0.1, "power": 0.75},
        {"lr_policy": "multistep", "gamma": 0.1, "stepvalue": [2, 6]},
        {"lr_policy": "poly", "power": 2},
        {"lr_policy": "sigmoid", "gamma": 0.3, "stepsize": 5},
        {"lr_policy": "cosine"},
    ],
    ids=lambda policy: str(policy["lr_policy"]),
)
def test_warmup_fades_into_every_policy(policy: dict[str, Any]) -> None:
    alone = rates(solver_of(**policy), 10)
    warm = rates(solver_of(**policy, warmup_iter=4, warmup_start_lr=0.02), 10)
    assert warm[0] == pytest.approx(0.02)
    np.testing.assert_allclose(warm[:4], [0.02 * (1 - i / 4) + alone[i] * i / 4 for i in range(4)])
    assert warm[4:] == alone[4:]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"lr_policy": "cosine", "max_iter": 0}, "max_iter must be at least 1"),
        ({"warmup_iter": -1}, "warmup_iter must be at least 0"),
        ({"type": "Adam", "momentum": 1}, "Adam wants a momentum from 0 to below 1"),
        ({"type": "AdamW", "momentum2": -0.5}, "AdamW wants a momentum2 from 0 to below 1"),
        ({"type": "AdamW", "regularization_type": "L1"}, "AdamW decays the weights themselves"),
    ],
)
def test_refused_settings(given: dict[str, Any], says: str) -> None:
    with pytest.raises(EngineError, match=says):
        solver_of(**given)


def test_restoring_amid_the_warmup_goes_on_bit_for_bit(tmp_path: pathlib.Path) -> None:
    given: dict[str, Any] = {
        "type": "AdamW",
        "momentum": 0.9,
        "weight_decay": 0.1,
        "lr_policy": "multistep",
        "gamma": 0.5,
        "stepvalue": [2, 2, 7],
        "warmup_iter": 6,
    }
    whole = solver_of(**given)
    whole.step(4, lambda k: fill(whole.net, k))
    _, state = whole.snapshot(tmp_path / "s")
    again = solver_of(**given)
    again.restore(state)
    for solver in (whole, again):
        solver.step(6, lambda k, net=solver.net: fill(net, 4 + k))  # type: ignore[misc]
    np.testing.assert_array_equal(again.net.flat_data, whole.net.flat_data)
    np.testing.assert_array_equal(again.flat_history, whole.flat_history)


# ---- stopping, showing ----


def test_actions_between_iterations(tmp_path: pathlib.Path) -> None:
    solver = solver_of(snapshot_prefix=str(tmp_path / "s"), display=1)
    asked: list[int] = []

    def action() -> Any:
        asked.append(solver.iter)
        return {2: "snapshot", 5: "stop"}.get(solver.iter)

    passes: list[int] = []
    solver.solve(feed=passes.append, action=action)
    assert asked == [1, 2, 3, 4, 5] and passes == [0, 1, 2, 3, 4]
    assert {path.name for path in tmp_path.glob("*.caffemodel")} == {"s_iter_2.caffemodel", "s_iter_5.caffemodel"}


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    solver = solver_of(momentum=0.9)
    solver.step(2, lambda k: fill(solver.net, k))
    before, history = solver.net.flat_data.copy(), solver.flat_history.copy()

    def bad(k: int) -> None:
        fill(solver.net, k)
        if k == 1:
            solver.net.blobs["x"].data[...] = np.nan

    with pytest.raises(DivergedError, match="the loss is nan in iteration 3"):
        solver.step(3, bad, finite=True)
    assert solver.iter == 3
    assert np.isfinite(solver.net.flat_data).all() and (solver.net.flat_data != before).any()
    assert np.isfinite(solver.flat_history).all() and (solver.flat_history != history).any()


def test_the_last_display_is_of_the_final_weights(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    solver = solver_of(display=5, snapshot_after_train=False)
    solver.solve(feed=lambda k: fill(solver.net, k))
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0] for line in said] == [
        part for i in (0, 5, 10) for part in (f"iteration {i}", f"iteration {i}, train net")
    ]
    probe = caffe_ext.Net(NET, caffe_ext.TRAIN)
    probe.flat_data[:] = solver.net.flat_data
    fill(probe, 10)
    probe.forward()
    assert said[-1] == f"iteration 10, train net: loss = {probe.loss}"


def test_a_display_takes_no_step_of_the_rate() -> None:
    """With equal step values each evaluation takes one of them; a display is none."""
    given: dict[str, Any] = {"lr_policy": "multistep", "gamma": 0.1, "stepvalue": [2, 2, 2]}
    silent, shown = solver_of(**given), solver_of(**given, display=1)
    for solver in (silent, shown):
        solver.step(5, lambda k, net=solver.net: fill(net, k))  # type: ignore[misc]
    np.testing.assert_array_equal(silent.net.flat_data, shown.net.flat_data)


def test_debug_info_shows_what_each_layer_leaves(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    quiet, loud = solver_of(momentum=0.9, display=2), solver_of(momentum=0.9, display=2, debug_info=True)
    fill(loud.net, 0)
    loud.net.forward()
    before = loud.net.flat_data.copy()
    inner = before[:15].reshape(5, 3) @ loud.net.blobs["x"].data.T
    for solver in (quiet, loud):
        solver.step(2, lambda k, net=solver.net: fill(net, k))  # type: ignore[misc]
    # It shows, and changes nothing.
    np.testing.assert_array_equal(quiet.net.flat_data, loud.net.flat_data)

    said = [record.getMessage() for record in caplog.records if record.name.endswith("debug")]
    assert len(said) == 7 + 5 + 2  # forward, backward, update of iteration 0 only, which is displayed

    def value(start: str) -> float:
        [line] = [line for line in said if line.startswith(start)]
        return float(line.split()[-1])

    # In place, the InnerProduct's top is overwritten later; it shows what it was before.
    assert value("[forward] layer ip, top y data:") == pytest.approx(np.abs(inner).mean(), rel=1e-4)
    assert value("[forward] layer relu, top y data:") == pytest.approx(np.maximum(inner, 0).mean(), rel=1e-4)
    assert value("[forward] layer ip, parameter 0 data:") == pytest.approx(np.abs(before[:15]).mean(), rel=1e-4)
    gradient = value("[backward] layer ip, parameter 1 diff:")
    assert value("[update] layer ip, parameter 1") == pytest.approx(2 * 0.1 * gradient, rel=1e-4)
    assert [line for line in said if line.startswith("[backward] all parameters")]


def test_test_nets_may_have_layers_of_their_own_but_no_other_parameters() -> None:
    def with_test_layer(name: str) -> caffe_pb2.NetParameter:
        net = caffe_pb2.NetParameter()
        net.CopyFrom(NET)
        extra = net.layer.add(name=name, type="InnerProduct", bottom=["x"], top=["z"])
        extra.inner_product_param.num_output = 5
        extra.inner_product_param.bias_term = False
        if name == "ip":
            del net.layer[1:4]
        return net

    param = caffe_pb2.SolverParameter(
        base_lr=0.1, lr_policy="fixed", net_param=NET, test_iter=[1, 1], test_interval=1, test_initialization=False
    )
    param.test_net_param.extend([with_test_layer("own"), with_test_layer("ip")])
    solver = caffe_ext.Solver(param)
    solver.test_nets[0].params["own"][0].data[...] = 7
    solver.test(0)
    assert (solver.test_nets[0].params["own"][0].data == 7).all()
    np.testing.assert_array_equal(solver.test_nets[0].params["ip"][0].data, solver.net.params["ip"][0].data)
    with pytest.raises(EngineError, match="layer `ip` has other parameters in the test net"):
        solver.test(1)
