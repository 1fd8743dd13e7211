"""The rules of averaging against NumPy in double precision, PyTorch's SGD, and solvers of the engine's."""

import numpy as np
import pytest
from meshes import everywhere, meshes
from small_nets import job_solver, small_job, small_net, small_shard, small_solver

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import UsageError
from sparknet_dsl.runtime import allreduce, worker
from sparknet_dsl.runtime.average import mean
from sparknet_dsl.runtime.averaging import Averaging
from sparknet_dsl.runtime.batches import batch_rows
from sparknet_dsl.runtime.checkpoint import State
from sparknet_dsl.runtime.in_turn import InTurn
from sparknet_dsl.runtime.rule import Rule
from sparknet_dsl.runtime.worker import Trained

SIZE = 70_000  # more than is worked on at a time


@pytest.fixture(autouse=True)
def fresh_engine():
    """Nothing of the test before, and one thread: equal bits take equal numbers of threads."""
    worker._engines.forget()
    caffe_ext.set_num_threads(1)


def equal(one: State, other: State) -> None:
    assert one.common.keys() == other.common.keys() and len(one.own) == len(other.own)
    for first, second in zip((one.common, *one.own), (other.common, *other.own), strict=True):
        assert first.keys() == second.keys()
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])


# The arithmetic, with arrays in place of training


def normal(*seed):
    return np.random.default_rng(seed).standard_normal(SIZE, np.float32)


def begin():
    return State(0, 0, {"weights": normal(9)})


def made_up(workers, seed=0):
    """What workers trained to: weights and histories."""
    return [(normal(seed, p), normal(seed, p, 1)) for p in range(workers)]


def rule(averaging=None, rows=(1, 1), **settings):
    workers = len(rows)
    return Rule(None, averaging or Averaging(), workers, sum(rows), SIZE, **settings)


def turns(rule, shared, own, trained, rows):
    history = rule.averaging.momentum != "RESET"
    done = [
        Trained([0.5], 8, 1.0, partition, weights.copy(), h.copy() if history else None)
        for partition, (weights, h) in enumerate(trained)
    ]
    return [rule.turn(shared, own[p] if own else (), done[p], rows[p]) for p in range(len(rows))]


def after(rule, state, trained, rows=(1, 1)):
    """The state after a round."""
    shared, own = rule.share(state)
    done = turns(rule, shared, own, trained, rows)
    return rule.state(state.round + 1, 0, rule.average(shared, done), [turn.own for turn in done])


def test_the_plain_rule_is_the_mean_bit_for_bit():
    trained, state = made_up(3), begin()
    before = state.weights.copy()
    for averaging in (
        Averaging(),
        Averaging(outer_rate=1, outer_momentum=0, outer_nesterov=False),
        Averaging(weighting="ROWS"),
    ):
        found = after(rule(averaging, (7, 7, 7)), state, trained, (7, 7, 7))
        np.testing.assert_array_equal(found.weights, mean([weights for weights, _ in trained]))
        np.testing.assert_array_equal(found.history, mean([history for _, history in trained]))
        assert found.own == () and set(found.common) == {"weights", "history"}
    np.testing.assert_array_equal(state.weights, before)


def test_partitions_count_by_their_rows():
    rows, trained = (100, 200, 700), made_up(3)
    found = after(rule(Averaging(weighting="ROWS"), rows), begin(), trained, rows)
    for which, got in enumerate((found.weights, found.history)):
        arrays = [each[which].astype(np.float64) for each in trained]
        np.testing.assert_allclose(got, 0.1 * arrays[0] + 0.2 * arrays[1] + 0.7 * arrays[2], rtol=0, atol=1e-6)


def test_momentum_is_averaged_kept_or_forgotten():
    trained, histories = made_up(2), {}
    for momentum in ("AVERAGE", "LOCAL", "RESET"):
        which = rule(Averaging(momentum=momentum))
        shared, own = which.share(after(which, begin(), trained))
        starts = [dict(zip(which.shared, shared, strict=True)) for _ in range(2)]
        for start, mine in zip(starts, own, strict=False):
            start.update(zip(which.own, mine, strict=True))
        histories[momentum] = [start.get("history") for start in starts]
    average = mean([history for _, history in trained])
    np.testing.assert_array_equal(histories["AVERAGE"], [average, average])
    np.testing.assert_array_equal(histories["LOCAL"], [history for _, history in trained])
    assert histories["RESET"] == [None, None]


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("rate", "momentum"), [(0.7, 0.9), (0.5, 0.0), (1.0, 0.5)])
def test_the_outer_optimiser_is_sgd_on_what_the_mean_moved(rate, momentum, nesterov):
    outer = rule(Averaging(momentum="RESET", outer_rate=rate, outer_momentum=momentum, outer_nesterov=nesterov))
    state = begin()
    weights, velocity = normal(9).astype(np.float64), np.zeros(SIZE)
    for round in range(4):
        trained = made_up(2, round)
        state = after(outer, state, trained)
        gradient = weights - np.mean([each.astype(np.float64) for each, _ in trained], axis=0)
        velocity = momentum * velocity + gradient
        weights = weights - rate * (gradient + momentum * velocity if nesterov else velocity)
        np.testing.assert_allclose(state.weights, weights, rtol=0, atol=2e-5)
    assert ("velocity" in state.common) == (momentum > 0)


def test_the_outer_optimiser_is_that_of_diloco():
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.from_numpy(normal(9).astype(np.float64)))
    optimiser = torch.optim.SGD([parameter], lr=0.7, momentum=0.9, nesterov=True)
    rows = (1, 1, 1)
    outer, state = rule(Averaging(momentum="LOCAL", outer_rate=0.7, outer_momentum=0.9), rows), begin()
    for round in range(4):
        trained = made_up(3, round)
        state = after(outer, state, trained, rows)
        average = np.mean([weights.astype(np.float64) for weights, _ in trained], axis=0)
        parameter.grad = parameter.detach() - torch.from_numpy(average)
        optimiser.step()
        np.testing.assert_allclose(state.weights, parameter.detach().numpy(), rtol=0, atol=2e-5)


def test_elastic_averaging_is_that_of_its_paper():
    """Zhang et al. 2015, algorithm 1's steps a) and b) for all workers at once; beta = p alpha."""
    rows, beta = (1, 1, 1, 1), 0.9
    elastic, state = rule(Averaging(momentum="RESET", moving_rate=beta), rows), begin()
    centre, alpha = normal(9).astype(np.float64), beta / len(rows)
    own = [centre.copy() for _ in rows]
    for round in range(4):
        starts = [mine["weights"] for mine in state.own] or [state.weights for _ in rows]
        for start, expected in zip(starts, own, strict=True):
            np.testing.assert_allclose(start, expected, rtol=0, atol=1e-5)
        moved = [normal(round, p) for p in range(len(rows))]
        state = after(elastic, state, [(s + m, m) for s, m in zip(starts, moved, strict=True)], rows)
        own = [x + m for x, m in zip(own, moved, strict=True)]
        differences = [alpha * (x - centre) for x in own]
        own = [x - difference for x, difference in zip(own, differences, strict=True)]
        centre = centre + np.sum(differences, axis=0)
        np.testing.assert_allclose(state.weights, centre, rtol=0, atol=1e-5)


def test_what_elastic_averaging_takes_from_workers_it_gives_to_the_centre():
    rows, trained = (100, 300), made_up(2)
    averaging = Averaging(momentum="LOCAL", moving_rate=0.6, weighting="ROWS")
    found = after(rule(averaging, rows), begin(), trained, rows)
    taken = sum(w.astype(np.float64) - own["weights"] for (w, _), own in zip(trained, found.own, strict=True))
    np.testing.assert_allclose(found.weights - begin().weights, taken, rtol=0, atol=1e-5)
    assert [set(arrays) for arrays in found.own] == [{"weights", "history"}] * 2


@pytest.mark.parametrize("exchange", ["bf16", "int8"])
def test_what_travels_in_fewer_bytes_stays_close(exchange):
    packed, plain = rule(Averaging(exchange=exchange)), rule()
    state = exact = begin()
    for round in range(5):
        trained = made_up(2, round)
        state, exact = after(packed, state, trained), after(plain, exact, trained)
        # A change is at most 12; half a step of 12 / 127, with what the step before left over.
        for name in ("weights", "history"):
            assert 0 < np.abs(state.common[name] - exact.common[name]).max() < 0.06
    wanted = {"int8": {"residual", "history_residual"}, "bf16": set()}[exchange]
    assert [set(own) for own in state.own] == ([wanted] * 2 if wanted else [])


OUTER = Averaging(outer_rate=0.7, outer_momentum=0.9)
APART = [Averaging(exchange="int8"), Averaging(exchange="bf16"), OUTER]


@pytest.mark.parametrize("averaging", APART)
def test_statistics_are_averaged_whatever_the_rule(averaging):
    which, state = rule(averaging, statistics=((0, 2), (17, 18), (SIZE - 1, SIZE))), begin()
    exact = [0, 1, 17, SIZE - 1]
    for round in range(2):
        trained = made_up(2, round)
        state = after(which, state, trained)
        average = mean([weights for weights, _ in trained])
        np.testing.assert_array_equal(state.weights[exact], average[exact])
        assert not np.array_equal(state.weights[2:17], average[2:17])


EVERY = [
    Averaging(weighting="ROWS"),
    OUTER,
    Averaging(momentum="LOCAL", moving_rate=0.9),
    Averaging(exchange="bf16"),
    Averaging(exchange="int8", momentum="LOCAL"),
]


@pytest.mark.parametrize("averaging", EVERY)
@pytest.mark.parametrize("rows", [(5,), (3, 4), (3, 4, 5)])
def test_workers_among_themselves_average_as_a_driver_does(averaging, rows, monkeypatch):
    """To the bit, each with all others over connections, in several blocks."""
    monkeypatch.setattr(allreduce, "BLOCK", 4096)
    which = rule(averaging, rows, statistics=((3, 9),))
    state = after(which, begin(), made_up(len(rows)), rows)
    shared, own = which.share(state)
    expected = which.average(shared, turns(which, shared, own, made_up(len(rows), 1), rows))

    def work(mesh):
        turn = turns(which, shared, own, made_up(len(rows), 1), rows)[mesh.rank]
        means, _ = mesh.mean(turn.give, turn.weight)
        return which.settle(shared, tuple(means))

    for settled in everywhere(meshes(len(rows)), work):
        assert len(settled) == len(expected) == len(which.shared)
        for got, wanted in zip(settled, expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"outer_rate": 0}, "outer_rate 0: a number above 0"),
        ({"outer_rate": np.nan}, "outer_rate nan"),
        ({"outer_momentum": 1}, "outer_momentum 1: a number from 0 to below 1"),
        ({"moving_rate": 1.5}, "moving_rate 1.5: a number from 0 to 1"),
        ({"moving_rate": 0.9, "outer_rate": 0.7}, "are two rules"),
        ({"moving_rate": 0.9, "exchange": "int8"}, "in int8 would lose something for good"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(UsageError, match=message):
        Averaging(**settings)


# With the engine: whole rounds, without Spark


class Last:
    """Keeps the last state."""

    def trained(self, done, seconds):
        pass

    def reached(self, state):
        self.state = state


def train(averaging, job, shards, steps, state=None):
    """The state after rounds of `steps`, with a worker for each shard."""
    solver = job_solver(job)
    rows = sum(shard.rows for shard in shards)
    which = Rule(job, averaging, len(shards), rows, solver.flat_history.size, solver.net.statistics)
    last = Last()
    start = state or State(0, 0, {"weights": solver.net.flat_data.copy()})
    InTurn(shards, which).leg(start, steps, last)
    return last.state


def parts(folder, rows, workers):
    return [small_shard(folder, rows, p, workers) for p in range(workers)]


def feed(net, seed, shards, number, batch):
    """Feeds `net` the batches that the workers of `shards` see in their iteration `number`, one after the other."""
    chosen = [batch_rows(seed, p, shard.rows, number * batch, batch) for p, shard in enumerate(shards)]
    for name, top, factor in (("image", "data", 0.01), ("label", "label", 1)):
        rows = [shard.columns[name][some] for shard, some in zip(shards, chosen, strict=True)]
        net.blobs[top].data[...] = np.concatenate(rows) * np.float32(factor)


@pytest.mark.parametrize(
    "averaging",
    [Averaging(), Averaging(momentum="LOCAL", weighting="ROWS"), Averaging(outer_rate=1, outer_momentum=0)],
)
def test_one_worker_equals_the_plain_solver(tmp_path, averaging):
    job = small_job(small_net(), small_solver(momentum=0.9, weight_decay=0.004))
    shards = parts(tmp_path, 50, 1)
    state = train(averaging, job, shards, [3, 4, 1, 4])
    plain = job_solver(job)
    plain.step(12, lambda number: feed(plain.net, job.seed, shards, number, 8))
    np.testing.assert_array_equal(state.weights, plain.net.flat_data)
    np.testing.assert_array_equal(state.history, plain.flat_history)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("workers", [2, 3])
def test_averaging_each_step_equals_one_solver_with_a_larger_batch(tmp_path, workers, momentum):
    """Plain SGD at tau 1; an outer momentum is then that of the one solver, whose rate is the same throughout."""
    batch, rounds = 8, 8
    averaging = Averaging(momentum="RESET", outer_momentum=momentum, outer_nesterov=False)
    job = small_job(small_net(batch), small_solver(weight_decay=0.004), send_history=False)
    shards = parts(tmp_path, 24 * workers, workers)
    state = train(averaging, job, shards, [1] * rounds)

    large = small_solver(weight_decay=0.004, momentum=momentum)
    one = job_solver(small_job(small_net(batch * workers), large, run="one"))
    start = job_solver(job).net.flat_data.copy()
    one.net.flat_data[:] = start
    one.step(rounds, lambda number: feed(one.net, job.seed, shards, number, batch))
    assert np.abs(state.weights - start).max() > 0.01
    np.testing.assert_allclose(state.weights, one.net.flat_data, rtol=1e-5, atol=1e-6)


def test_rows_of_unequal_partitions_count_the_same(tmp_path):
    """A step on all rows of each partition, weighted by rows, is one step on all rows together."""
    shards = parts(tmp_path, 30, 5)
    columns = {name: [shard.columns[name] for shard in shards] for name in ("image", "label")}
    split = [
        {name: np.concatenate(values[some]) for name, values in columns.items()} for some in (slice(1), slice(1, 5))
    ]
    sizes = (6, 24)
    solver = small_solver(weight_decay=0.004)
    start = job_solver(small_job(small_net(), solver)).net.flat_data.copy()

    def stepped(images, labels):
        one = job_solver(small_job(small_net(len(labels)), solver))
        one.net.flat_data[:] = start
        one.net.blobs["data"].data[...] = images * np.float32(0.01)
        one.net.blobs["label"].data[...] = labels
        one.step(1)
        return one.net.flat_data.copy()

    done = [Trained([0.5], 8, 1.0, p, stepped(part["image"], part["label"]), None) for p, part in enumerate(split)]
    assert [len(part["label"]) for part in split] == list(sizes)
    found = {}
    for weighting in ("ROWS", "EQUAL"):
        which = Rule(None, Averaging(weighting=weighting, momentum="RESET"), 2, 30, 0)
        given = [which.turn((start,), (), trained, rows) for trained, rows in zip(done, sizes, strict=True)]
        found[weighting] = mean([turn.give[0] for turn in given], [turn.weight for turn in given])
    whole = stepped(*(np.concatenate(columns[name]) for name in ("image", "label")))
    np.testing.assert_allclose(found["ROWS"], whole, rtol=1e-5, atol=1e-6)
    assert np.abs(found["EQUAL"] - whole).max() > 1e-3


@pytest.mark.parametrize(
    "averaging",
    [
        Averaging(momentum="LOCAL", outer_rate=0.7, outer_momentum=0.9),
        Averaging(momentum="LOCAL", moving_rate=0.9),
        Averaging(exchange="int8"),
    ],
)
def test_the_state_is_all_that_a_run_needs_to_go_on(tmp_path, averaging):
    job = small_job(small_net(), small_solver(momentum=0.9))
    shards = parts(tmp_path, 60, 2)
    whole = train(averaging, job, shards, [3, 3, 2, 2])
    half = train(averaging, job, shards, [3, 3])
    worker._engines.forget()
    equal(train(averaging, job, shards, [2, 2], half), whole)
    assert whole.own and all(set(own) == set(averaging.own) for own in whole.own)


@pytest.mark.parametrize("averaging", [*APART, Averaging(moving_rate=0.9)])
def test_batch_norm_under_every_rule(tmp_path, averaging):
    norm = 'layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }'
    job = small_job(small_net(extra=norm), small_solver(momentum=0.9))
    net = job_solver(job).net
    ((begins, ends),) = net.statistics
    net.params["bn"][2].data[...] = 5.0
    assert net.flat_data[begins:ends].tolist() == [0.0] * 6 + [5.0]
    shards = parts(tmp_path, 60, 2)
    net.flat_data[:] = train(averaging, job, shards, [4, 4, 4]).weights
    assert (net.params["bn"][1].data > 0).all()
    params = {layer: [blob.data for blob in blobs] for layer, blobs in net.params.items()}
    assert np.isfinite(worker.test(shards[0], 0, job, params).metrics["loss"])
