"""Solvers against what BVLC Caffe 1.0 computed, and how they are run: feeding, tests, snapshots."""

import json
import logging
import math
import pathlib
from typing import Any, Literal

import numpy as np
import pytest
from google.protobuf import text_format
from shared import shared, shared_names

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import DivergedError, EngineError, OutputError, WeightsError
from sparknet_dsl.proto import caffe_pb2


def golden(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray], pathlib.Path]:
    folder = shared(f"golden/solvers/{name}")
    with np.load(folder / "case.npz") as case:
        return json.loads((folder / "meta.json").read_text()), dict(case), folder


def assert_close(got: Any, want: np.ndarray, meta: dict[str, Any], what: str) -> None:
    """The comparison of golden/README.md."""
    tolerance = meta["tolerance"]
    got = np.asarray(got)
    assert got.shape == want.shape, what
    bound = tolerance["atol"] * max(1.0, np.abs(want).max(initial=0.0)) + tolerance["rtol"] * np.abs(want)
    assert (np.abs(got - want) <= bound).all(), f"{what}: off by up to {np.abs(got - want).max():g}"


def set_params(net: caffe_ext.Net, case: dict[str, np.ndarray]) -> None:
    for key, values in case.items():
        kind, _, rest = key.partition(":")
        if kind == "param":
            layer, index = rest.rsplit(":", 1)
            net.params[layer][int(index)].data[...] = values


def check_params(net: caffe_ext.Net, case: dict[str, np.ndarray], meta: dict[str, Any], done: int) -> None:
    wanted = [key for key in case if key.startswith(f"params:{done}:")]
    assert wanted
    for key in wanted:
        layer, index = key.split(":", 2)[2].rsplit(":", 1)
        assert_close(net.params[layer][int(index)].data, case[key], meta, key)


def run(solver: caffe_ext.Solver, case: dict[str, np.ndarray], meta: dict[str, Any], until: int) -> list[float]:
    """Steps with the recorded batches, in calls of several lengths, and compares at each checkpoint."""
    losses: list[float] = []
    while solver.iter < until:
        stop = min([n for n in meta["checkpoints"] if n > solver.iter] + [until])
        first = solver.iter * meta["iter_size"]

        def feed(k: int, first: int = first) -> None:
            for blob in meta["inputs"]:
                solver.net.blobs[blob].data[...] = case[f"in:{(first + k) % meta['K']}:{blob}"]

        losses += solver.step(stop - solver.iter, feed)
        if solver.iter in meta["checkpoints"]:
            check_params(solver.net, case, meta, solver.iter)
    return losses


@pytest.mark.parametrize("memory", ["all", "reuse", "lean"])
@pytest.mark.parametrize("name", shared_names("golden/solvers"))
def test_golden(name: str, memory: Literal["all", "reuse", "lean"], monkeypatch: pytest.MonkeyPatch) -> None:
    meta, case, folder = golden(name)
    monkeypatch.chdir(folder)
    solver = caffe_ext.Solver("solver.prototxt", memory=memory)
    set_params(solver.net, case)
    losses = run(solver, case, meta, meta["iters"])
    assert_close(losses, case["loss"], meta, "loss")


@pytest.mark.parametrize("name", shared_names("golden/solvers"))
def test_golden_rates(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    meta, case, folder = golden(name)
    monkeypatch.chdir(folder)
    solver = caffe_ext.Solver(folder / "solver.prototxt", folder / "net.prototxt")
    rates = []
    for i in range(meta["iters"]):
        solver.iter = i
        rates.append(solver.lr)
    np.testing.assert_allclose(rates, case["lr"], rtol=1e-5)
    # A pure function of the iteration, not of the way there.
    for i in (meta["iters"] - 1, 3, 11):
        solver.iter = i
        assert solver.lr == rates[i]


def test_golden_is_there() -> None:
    names = shared_names("golden/solvers")
    assert not names or len(names) >= 30


@pytest.mark.parametrize("name", ["snapshot_sgd_binaryproto", "snapshot_adadelta_binaryproto", "snapshot_adam_hdf5"])
def test_caffes_snapshots(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    meta, case, folder = golden(name)
    monkeypatch.chdir(folder)
    solver = caffe_ext.Solver("solver.prototxt")
    snapshot = meta["snapshot"]
    solver.restore(snapshot["state"])
    assert solver.iter == snapshot["iter"] == 10
    check_params(solver.net, case, meta, 10)
    assert len(solver.history) == snapshot["n_history"]
    for index, values in enumerate(solver.history):
        np.testing.assert_array_equal(values, case[f"history:{index}"])
    run(solver, case, meta, 20)  # compares at 20


@pytest.mark.parametrize("type", ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam", "AdamW"])
def test_restoring_goes_on_bit_for_bit(type: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    momentum = 0.0 if type in ("AdaGrad", "RMSProp") else 0.9
    param = settings(type=type, momentum=momentum, lr_policy="multistep", gamma=0.5, stepvalue=[2, 2, 7])

    def feed(solver: caffe_ext.Solver, first: int) -> Any:
        return lambda k: fill(solver.net, first + k)

    whole = caffe_ext.Solver(param, NET, seed=3)
    whole.step(4, feed(whole, 0))
    model, state = whole.snapshot("snap")
    assert (model, state) == ("snap_iter_4.caffemodel", "snap_iter_4.solverstate")
    assert sorted(path.name for path in tmp_path.iterdir()) == [model, state]
    losses = whole.step(6, feed(whole, 4))

    again = caffe_ext.Solver(param, NET, seed=99)
    again.restore(state)
    assert again.iter == 4
    assert again.step(6, feed(again, 4)) == losses
    np.testing.assert_array_equal(again.net.flat_data, whole.net.flat_data)
    np.testing.assert_array_equal(again.flat_history, whole.flat_history)


# ---- a small net ----

NET = text_format.Parse(
    """
    name: "small"
    layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 4 dim: 3 } shape { dim: 4 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" param { } param { lr_mult: 2 decay_mult: 0 }
            inner_product_param { num_output: 5 weight_filler { type: "gaussian" } } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" top: "loss" }
    layer { name: "hits" type: "Accuracy" bottom: "y" bottom: "t" top: "hits" include { phase: TEST } }
    """,
    caffe_pb2.NetParameter(),
)


def settings(**given: Any) -> caffe_pb2.SolverParameter:
    return caffe_pb2.SolverParameter(**{"base_lr": 0.1, "lr_policy": "fixed", "max_iter": 10, **given})


def fill(net: caffe_ext.Net, batch: int) -> None:
    random = np.random.default_rng(batch)
    net.blobs["x"].data[...] = random.standard_normal((4, 3))
    net.blobs["t"].data[...] = random.integers(0, 5, 4)


def solver_of(**given: Any) -> caffe_ext.Solver:
    return caffe_ext.Solver(settings(**given), NET, seed=1)


# ---- settings ----


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"type": "Sgd"}, 'unknown solver type "Sgd"; known: .*SGD'),
        ({"lr_policy": "linear"}, 'unknown lr_policy "linear"; known: .*poly'),
        ({"lr_policy": "step"}, "needs stepsize"),
        ({"lr_policy": "step", "stepsize": 0}, "stepsize must be at least 1"),
        ({"iter_size": 0}, "iter_size must be at least 1"),
        ({"regularization_type": "L3"}, 'unknown regularization_type "L3"'),
        ({"type": "AdaGrad", "momentum": 0.9}, "AdaGrad takes no momentum"),
        ({"test_iter": [1]}, "set test_interval"),
        (
            {"test_iter": [1], "test_interval": 1, "test_state": [caffe_pb2.NetState()] * 2},
            "test_state must be given once",
        ),
        ({"solver_type": 1, "type": "SGD"}, "solver_type and type exclude each other"),
    ],
)
def test_refused_settings(given: dict[str, Any], says: str) -> None:
    with pytest.raises(EngineError, match=says):
        solver_of(**given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "exactly one of net, .* has none"),
        ({"net": "a", "train_net": "b"}, "has net, train_net"),
        ({"net": "absent.prototxt"}, "cannot read absent.prototxt"),
        ({"train_net_param": NET, "test_iter": [1]}, "test_iter must be given once for each test net: 0 times, not 1"),
    ],
)
def test_refused_nets(given: dict[str, Any], says: str) -> None:
    with pytest.raises(EngineError, match=says):
        caffe_ext.Solver(settings(**given))


def test_random_seed_decides_the_first_weights() -> None:
    first = caffe_ext.Solver(settings(net_param=NET, random_seed=5)).net.flat_data
    np.testing.assert_array_equal(first, caffe_ext.Solver(settings(net_param=NET, random_seed=5)).net.flat_data)
    np.testing.assert_array_equal(first, caffe_ext.Solver(settings(random_seed=1), NET, seed=5).net.flat_data)
    assert (first != caffe_ext.Solver(settings(net_param=NET)).net.flat_data).any()


def test_states_choose_layers() -> None:
    staged = caffe_pb2.NetParameter()
    staged.CopyFrom(NET)
    staged.layer[3].include[0].CopyFrom(caffe_pb2.NetStateRule(stage=["extra"]))
    state = caffe_pb2.NetState(stage=["extra"])
    solver = caffe_ext.Solver(
        settings(train_state=state, test_state=[caffe_pb2.NetState(), state], test_iter=[1, 1], test_interval=1), staged
    )
    assert [("hits" in net.blobs) for net in (solver.net, *solver.test_nets)] == [True, False, True]
    assert [net.phase for net in (solver.net, *solver.test_nets)] == [caffe_ext.TRAIN, caffe_ext.TEST, caffe_ext.TEST]


def test_poly_ends_at_zero() -> None:
    solver = solver_of(lr_policy="poly", power=0.5, max_iter=4)
    rates = []
    for solver.iter in range(7):
        rates.append(solver.lr)
    np.testing.assert_allclose(rates, [0.1 * math.sqrt(1 - i / 4) if i < 4 else 0 for i in range(7)], atol=1e-8)
    with pytest.raises(EngineError, match="iteration -1"):
        solver.iter = -1


# ---- stepping ----


def test_feed_counts_passes_and_losses_are_means() -> None:
    solver = solver_of(iter_size=3)
    seen: list[int] = []

    def feed(k: int) -> None:
        seen.append(k)
        fill(solver.net, k)

    losses = solver.step(2, feed)
    assert seen == list(range(6)) and solver.iter == 2 and len(losses) == 2
    probe = caffe_ext.Net(NET, caffe_ext.TRAIN, seed=1)
    first = []
    for k in range(3):
        fill(probe, k)
        probe.forward()
        first.append(probe.loss)
    assert losses[0] == pytest.approx(np.mean(first), rel=1e-6)


def test_one_update_by_hand() -> None:
    solver = solver_of(weight_decay=0.5, momentum=0.9, clip_gradients=0.01)
    before = solver.net.flat_data.copy()
    fill(solver.net, 0)
    solver.step(1)
    # Diffs keep the raw gradients.
    gradient = solver.net.flat_diff.astype("f8")
    gradient *= 0.01 / np.linalg.norm(gradient)
    gradient[:15] += 0.5 * before[:15]
    gradient[15:] *= 2
    np.testing.assert_allclose(solver.net.flat_data, before - 0.1 * gradient, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(solver.flat_history, 0.1 * gradient, rtol=1e-4, atol=1e-7)


def test_an_error_in_feed_leaves_whole_iterations() -> None:
    solver = solver_of(iter_size=2)
    at_end: list[np.ndarray] = []

    def feed(k: int) -> None:
        if k == 2:
            at_end.append(solver.net.flat_data.copy())
        if k == 3:
            raise KeyboardInterrupt
        fill(solver.net, k)

    with pytest.raises(KeyboardInterrupt):
        solver.step(5, feed)
    assert solver.iter == 1
    np.testing.assert_array_equal(solver.net.flat_data, at_end[0])
    solver.step(1, lambda k: fill(solver.net, k))  # and goes on
    assert solver.iter == 2


def test_history_views_are_live_and_outlive_the_solver() -> None:
    solver = solver_of(momentum=0.9, type="Adam")
    assert [values.shape for values in solver.history] == [(5, 3), (5,)] * 2
    flat, second = solver.flat_history, solver.history[2]
    fill(solver.net, 0)
    solver.step(1)
    assert flat.any() and second.any()
    np.testing.assert_array_equal(flat[20:35], second.ravel())
    flat[:] = 0
    assert not solver.history[0].any()
    del solver
    flat[:] = 7
    assert (second == 7).all()


def test_frozen_parameters_stay() -> None:
    net = caffe_pb2.NetParameter()
    net.CopyFrom(NET)
    net.layer[1].param[0].lr_mult = 0
    solver = caffe_ext.Solver(settings(weight_decay=0.1, momentum=0.9), net, seed=1)
    before = solver.net.flat_data.copy()
    solver.step(3, lambda k: fill(solver.net, k))
    np.testing.assert_array_equal(solver.net.flat_data[:15], before[:15])
    assert (solver.net.flat_data[15:] != before[15:]).all()


def test_smoothed_loss() -> None:
    solver = solver_of(average_loss=3)
    assert math.isnan(solver.smoothed_loss)
    losses = solver.step(5, lambda k: fill(solver.net, k))
    assert solver.smoothed_loss == pytest.approx(np.mean(losses[-3:]))


# ---- tests and snapshots on the way ----


def test_test_nets_use_the_trained_weights() -> None:
    solver = solver_of(test_iter=[3], test_interval=100, test_compute_loss=True)
    solver.step(5, lambda k: fill(solver.net, k))
    test_net = solver.test_nets[0]
    results = solver.test(0, lambda k: fill(test_net, k))
    probe = caffe_ext.Net(NET, caffe_ext.TEST)
    probe.params["ip"][0].data[...] = solver.net.params["ip"][0].data
    probe.params["ip"][1].data[...] = solver.net.params["ip"][1].data
    losses, hits = [], []
    for k in range(3):
        fill(probe, k)
        out = probe.forward()
        losses.append(float(out["loss"]))
        hits.append(float(out["hits"]))
    assert results == {"hits": pytest.approx(np.mean(hits)), "loss": pytest.approx(np.mean(losses))}


@pytest.mark.parametrize(("initial", "want"), [(True, [0, 4, 8]), (False, [4, 8])])
def test_when_tests_run(initial: bool, want: list[int]) -> None:
    solver = solver_of(
        test_iter=[2], test_interval=4, test_initialization=initial, max_iter=9, snapshot_after_train=False
    )
    seen: list[tuple[int, int, int]] = []
    solver.solve(feed=lambda k: fill(solver.net, k), test_feed=lambda net, k: seen.append((solver.iter, net, k)))
    assert seen == [(iter, 0, k) for iter in want for k in range(2)]


def test_solve(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    (tmp_path / "net.prototxt").write_text(text_format.MessageToString(NET))
    param = settings(net="net.prototxt", snapshot=4, max_iter=10, display=5, random_seed=1, iter_size=2)
    (tmp_path / "my_solver.prototxt").write_text(text_format.MessageToString(param))
    passes: list[int] = []
    solver = caffe_ext.get_solver(tmp_path / "my_solver.prototxt")
    solver.solve(feed=passes.append)
    assert passes == list(range(21))  # one more for the last display
    # Without snapshot_prefix the solver file's name is the prefix; the last snapshot is of max_iter.
    written = {path.name for path in tmp_path.glob("my_solver_iter_*")}
    assert written == {f"my_solver_iter_{n}.{kind}" for n in (4, 8, 10) for kind in ("caffemodel", "solverstate")}
    shown = [record.getMessage().split(":")[0] for record in caplog.records]
    assert shown == [f"iteration {n}{part}" for n in (0, 5, 10) for part in ("", ", train net")]
    again = caffe_ext.get_solver(tmp_path / "my_solver.prototxt")
    again.solve(tmp_path / "my_solver_iter_8.solverstate", passes.append)
    assert again.iter == 10 and passes[21:] == [0, 1, 2, 3, 4]


def test_a_loss_that_is_nan_ends_solve() -> None:
    solver = solver_of()
    solver.net.flat_data[:] = np.nan
    with pytest.raises(DivergedError, match="the loss is nan in iteration 0"):
        solver.solve()


def test_snapshots_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    solver = solver_of()
    with pytest.raises(EngineError, match="set snapshot_prefix"):
        solver.snapshot()
    with pytest.raises(OutputError, match="cannot write"):
        solver.snapshot(tmp_path / "absent" / "s")
    with pytest.raises(EngineError, match="snapshot_diff"):
        solver_of(snapshot_diff=True).snapshot(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_states_of_other_nets_change_nothing(tmp_path: pathlib.Path) -> None:
    _, state = solver_of(momentum=0.9).snapshot(tmp_path / "s")
    other = caffe_pb2.NetParameter()
    other.CopyFrom(NET)
    other.layer[1].inner_product_param.num_output = 6
    for solver, says in [
        (caffe_ext.Solver(settings(), other, seed=2), r"history 0: .* 5 × 3.* 6 × 3"),
        (solver_of(type="Adam"), "has 2 history arrays; this solver has 4"),
    ]:
        before = solver.net.flat_data.copy()
        with pytest.raises(WeightsError, match=says):
            solver.restore(state)
        assert solver.iter == 0
        np.testing.assert_array_equal(solver.net.flat_data, before)


def test_a_moved_snapshot_finds_its_weights(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    solver = solver_of()
    solver.snapshot("a/s")
    (tmp_path / "a").rename(tmp_path / "b")
    again = caffe_ext.Solver(settings(), NET, seed=9)
    again.restore("b/s_iter_0.solverstate")
    np.testing.assert_array_equal(again.net.flat_data, solver.net.flat_data)


def test_weights_named_by_the_solver(tmp_path: pathlib.Path) -> None:
    first = caffe_ext.Net(NET, caffe_ext.TRAIN, seed=7)
    first.save(tmp_path / "w.caffemodel")
    solver = solver_of(weights=[f"{tmp_path / 'w.caffemodel'}, {tmp_path / 'w.caffemodel'}"])
    np.testing.assert_array_equal(solver.net.flat_data, first.flat_data)
