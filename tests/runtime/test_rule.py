"""The rules of averaging against NumPy in double precision, PyTorch's SGD, and solvers of the engine's."""

import dataclasses

import numpy as np
import pytest
from small_nets import job_solver, small_job, small_net, small_shard, small_solver

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import UsageError
from sparknet_dsl.runtime import worker
from sparknet_dsl.runtime.average import mean
from sparknet_dsl.runtime.batches import batch_rows
from sparknet_dsl.runtime.rule import Rule, Standing, next_standing
from sparknet_dsl.runtime.worker import train_round

SIZE = 70_000  # more than is worked on at a time


@pytest.fixture(autouse=True)
def fresh_engine():
    """Nothing of the test before, and one thread: equal bits take equal numbers of threads."""
    worker._engines.forget()
    caffe_ext.set_num_threads(1)


def normal(seed, size=SIZE):
    return np.random.default_rng(seed).standard_normal(size, np.float32)


def made_up(workers, seed=0, size=SIZE):
    return [{"weights": normal([seed, p], size), "history": normal([seed, p, 1], size)} for p in range(workers)]


def equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


# The arithmetic


def test_the_plain_rule_is_the_mean_bit_for_bit():
    trained, standing = made_up(3), Standing({"weights": normal(9)})
    before = standing.common["weights"].copy()
    after = next_standing(Rule(), standing, trained, [10, 10, 10])
    expected = {name: mean([arrays[name] for arrays in trained]) for name in ("weights", "history")}
    equal(after.common, expected)
    assert after.own == ()
    np.testing.assert_array_equal(standing.common["weights"], before)
    outer = Rule(outer_rate=1, outer_momentum=0, outer_nesterov=False)
    equal(next_standing(outer, standing, trained, [10, 10, 10]).common, expected)


def test_partitions_count_by_their_rows():
    trained, rule = made_up(3), Rule(weighting="ROWS")
    after = next_standing(rule, Standing({"weights": normal(9)}), trained, [100, 200, 700])
    for name in ("weights", "history"):
        arrays = [each[name].astype(np.float64) for each in trained]
        expected = 0.1 * arrays[0] + 0.2 * arrays[1] + 0.7 * arrays[2]
        np.testing.assert_allclose(after.common[name], expected, rtol=0, atol=1e-6)
    assert [rule.share([100, 200, 700], p) for p in range(3)] == pytest.approx([0.1, 0.2, 0.7])
    assert [Rule().share([100, 200, 700], p) for p in range(3)] == pytest.approx([1 / 3] * 3)
    # Equal partitions: the plain mean, to the bit.
    equal(
        next_standing(rule, Standing({"weights": normal(9)}), trained, [5, 5, 5]).common,
        next_standing(Rule(), Standing({"weights": normal(9)}), trained, [5, 5, 5]).common,
    )


def test_momentum_is_averaged_kept_or_forgotten():
    trained, standing = made_up(2), Standing({"weights": normal(9)})
    after = {m: next_standing(Rule(momentum=m), standing, trained, [1, 1]) for m in ("AVERAGE", "LOCAL", "RESET")}
    starts = {m: [Rule(momentum=m).start(s.common, s.of(p))[1] for p in range(2)] for m, s in after.items()}
    average = mean([each["history"] for each in trained])
    np.testing.assert_array_equal(starts["AVERAGE"], [average, average])
    np.testing.assert_array_equal(starts["LOCAL"], [each["history"] for each in trained])
    assert starts["RESET"] == [None, None]
    assert Rule().start(standing.common, standing.of(0)) == (standing.common["weights"], None)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("rate", "momentum"), [(0.7, 0.9), (0.5, 0.0), (1.0, 0.5)])
def test_the_outer_optimiser_is_sgd_on_what_the_mean_moved(rate, momentum, nesterov):
    rule = Rule(momentum="RESET", outer_rate=rate, outer_momentum=momentum, outer_nesterov=nesterov)
    standing = Standing({"weights": normal(9)})
    weights, velocity = normal(9).astype(np.float64), np.zeros(SIZE)
    for round in range(4):
        trained = made_up(2, round)
        standing = next_standing(rule, standing, trained, [1, 1])
        # Sutskever et al. 2013 in the form of PyTorch's SGD, which DiLoCo uses.
        gradient = weights - np.mean([each["weights"].astype(np.float64) for each in trained], axis=0)
        velocity = momentum * velocity + gradient
        weights = weights - rate * (gradient + momentum * velocity if nesterov else velocity)
        np.testing.assert_allclose(standing.common["weights"], weights, rtol=0, atol=2e-5)
    assert ("velocity" in standing.common) == (momentum > 0)


def test_the_outer_optimiser_is_that_of_diloco():
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.from_numpy(normal(9).astype(np.float64)))
    outer = torch.optim.SGD([parameter], lr=0.7, momentum=0.9, nesterov=True)
    rule = Rule(momentum="RESET", outer_rate=0.7, outer_momentum=0.9)
    standing = Standing({"weights": normal(9)})
    for round in range(4):
        trained = made_up(3, round)
        standing = next_standing(rule, standing, trained, [1, 1, 1])
        average = np.mean([each["weights"].astype(np.float64) for each in trained], axis=0)
        parameter.grad = parameter.detach() - torch.from_numpy(average)
        outer.step()
        np.testing.assert_allclose(standing.common["weights"], parameter.detach().numpy(), rtol=0, atol=2e-5)


def test_elastic_averaging_is_that_of_its_paper():
    """Zhang et al. 2015, algorithm 1's steps a) and b) for all workers at once; beta = p alpha."""
    workers, beta = 4, 0.9
    rule = Rule(momentum="RESET", moving_rate=beta)
    standing = Standing({"weights": normal(9)})
    centre, alpha = normal(9).astype(np.float64), beta / workers
    own = [centre.copy() for _ in range(workers)]
    for round in range(4):
        trained = []
        for p in range(workers):
            start, history = rule.start(standing.common, standing.of(p))
            assert history is None
            np.testing.assert_allclose(start, own[p], rtol=0, atol=1e-5)
            moved = normal([round, p])
            trained.append({"weights": start + moved})
            own[p] += moved
        standing = next_standing(rule, standing, trained, [1] * workers)
        differences = [alpha * (x - centre) for x in own]
        for x, difference in zip(own, differences, strict=True):
            x -= difference
        centre += np.sum(differences, axis=0)
        np.testing.assert_allclose(standing.common["weights"], centre, rtol=0, atol=1e-5)


def test_what_elastic_averaging_takes_from_workers_it_gives_to_the_centre():
    rule, rows = Rule(momentum="LOCAL", moving_rate=0.6, weighting="ROWS"), [100, 300]
    standing, trained = Standing({"weights": normal(9)}), made_up(2)
    after = next_standing(rule, standing, trained, rows)
    taken = sum(t["weights"].astype(np.float64) - o["weights"] for t, o in zip(trained, after.own, strict=True))
    np.testing.assert_allclose(after.common["weights"] - standing.common["weights"], taken, rtol=0, atol=1e-5)
    assert [set(arrays) for arrays in after.own] == [{"weights", "history"}] * 2


@pytest.mark.parametrize("exchange", ["bf16", "int8"])
def test_what_travels_in_fewer_bytes_stays_close(exchange):
    """The mean of the weights is off by half a step at most, and with feedback the next one makes up for it."""
    rule = Rule(exchange=exchange)
    start = normal(9)
    plain = standing = Standing({"weights": start})
    for round in range(5):
        trained = made_up(2, round)
        plain = next_standing(Rule(), plain, trained, [1, 1])
        standing = next_standing(rule, standing, trained, [1, 1])
        # A change is at most 12; half a step of 12 / 127, with what the step before left over.
        for name in ("weights", "history"):
            assert 0 < np.abs(standing.common[name] - plain.common[name]).max() < 0.06
    wanted = {"int8": {"residual", "history_residual"}, "bf16": set()}[exchange]
    assert [set(standing.of(p)) for p in range(2)] == [wanted] * 2


@pytest.mark.parametrize(
    "rule", [Rule(exchange="int8"), Rule(exchange="bf16"), Rule(outer_rate=0.7, outer_momentum=0.9)]
)
def test_statistics_are_averaged_whatever_the_rule(rule):
    """A variance that a rounded message or an outer step made negative would be the end of a net."""
    exact, rows = np.array([0, 17, SIZE - 1]), [1, 1]
    standing = Standing({"weights": normal(9)})
    for round in range(2):
        trained = made_up(2, round)
        standing = next_standing(rule, standing, trained, rows, exact)
        average = mean([each["weights"] for each in trained])
        np.testing.assert_array_equal(standing.common["weights"][exact], average[exact])
        assert not np.array_equal(standing.common["weights"][1:17], average[1:17])


RULES = {
    "rows": Rule(weighting="ROWS"),
    "outer": Rule(momentum="RESET", outer_rate=0.7, outer_momentum=0.9),
    "elastic": Rule(momentum="LOCAL", moving_rate=0.9),
    "bf16": Rule(exchange="bf16"),
}


@pytest.mark.parametrize("name", RULES)
def test_a_slice_may_be_averaged_by_itself(name):
    """As the members of a ring do, each its own; int8, whose blocks begin with the slice, is rounded otherwise."""
    rule, rows = RULES[name], [3, 4]
    whole = standing = Standing({"weights": normal(9)})
    cuts = [slice(0, 40_001), slice(40_001, SIZE)]
    slices = [Standing({"weights": standing.common["weights"][cut]}) for cut in cuts]
    for round in range(3):
        trained = made_up(2, round)
        whole = next_standing(rule, whole, trained, rows)
        for index, cut in enumerate(cuts):
            some = [{name: array[cut] for name, array in arrays.items()} for arrays in trained]
            slices[index] = next_standing(rule, slices[index], some, rows)
    for which in ("weights", *set(whole.common) - {"weights"}):
        np.testing.assert_array_equal(np.concatenate([s.common[which] for s in slices]), whole.common[which])
    for p in range(2):
        for which in whole.of(p):
            np.testing.assert_array_equal(np.concatenate([s.of(p)[which] for s in slices]), whole.of(p)[which])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"outer_rate": 0}, "outer_rate 0: a number above 0"),
        ({"outer_rate": np.nan}, "outer_rate nan"),
        ({"outer_momentum": 1}, "outer_momentum 1: a number from 0 to below 1"),
        ({"moving_rate": 1.5}, "moving_rate 1.5: a number from 0 to 1"),
        ({"moving_rate": 0.9, "outer_rate": 0.7}, "are two rules"),
        ({"moving_rate": 0.9, "exchange": "int8"}, "int8 would blur"),
    ],
)
def test_rules_that_make_no_sense(settings, message):
    with pytest.raises(UsageError, match=message):
        Rule(**settings)


# With the engine: a run of rounds, without Spark


def train(rule, job, shards, rounds, tau, standing=None, first=0):
    """`rounds` rounds from round `first` on, with a worker for each shard."""
    standing = standing or Standing({"weights": job_solver(job).net.flat_data.copy()})
    rows = [shard.rows for shard in shards]
    exact = job_solver(job).net.statistics
    for round in range(first, first + rounds):
        done = []
        for p, shard in enumerate(shards):
            weights, history = rule.start(standing.common, standing.of(p))
            done.append(train_round(shard, p, job, weights, history, round, round * tau, tau))
        trained = [{"weights": each.weights, "history": each.history} for each in done]
        standing = next_standing(rule, standing, trained, rows, exact)
    return standing


def parts(folder, rows, workers):
    return [small_shard(folder, rows, p, workers) for p in range(workers)]


@pytest.mark.parametrize(
    "rule",
    [
        Rule(),
        Rule(momentum="LOCAL", weighting="ROWS"),
        Rule(outer_rate=1, outer_momentum=0),
        Rule(momentum="LOCAL", moving_rate=0.5),
    ],
)
def test_one_worker_equals_the_plain_solver(tmp_path, rule):
    job = small_job(small_net(), small_solver(momentum=0.9, weight_decay=0.004))
    (shard,) = parts(tmp_path, 50, 1)
    standing = train(rule, job, [shard], 4, 3)
    plain = job_solver(job)

    def feed(number):
        chosen = batch_rows(job.seed, 0, 50, number * 8, 8)
        plain.net.blobs["data"].data[...] = shard.columns["image"][chosen] * np.float32(0.01)
        plain.net.blobs["label"].data[...] = shard.columns["label"][chosen]

    plain.step(12, feed)
    if rule.moving_rate:  # the one worker is pulled to a centre that follows it
        assert not np.array_equal(standing.common["weights"], plain.net.flat_data)
        return
    np.testing.assert_array_equal(standing.common["weights"], plain.net.flat_data)
    np.testing.assert_array_equal(rule.start(standing.common, standing.of(0))[1], plain.flat_history)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("workers", [2, 3])
def test_averaging_each_step_equals_one_solver_with_a_larger_batch(tmp_path, workers, momentum):
    """Plain SGD at tau 1; an outer momentum is then that of the one solver, whose rate is the same throughout."""
    batch, rounds = 8, 8
    rule = Rule(momentum="RESET", outer_momentum=momentum, outer_nesterov=False)
    job = small_job(small_net(batch), small_solver(weight_decay=0.004))
    shards = parts(tmp_path, 24 * workers, workers)
    weights = train(rule, job, shards, rounds, 1).common["weights"]

    one = job_solver(
        small_job(small_net(batch * workers), small_solver(weight_decay=0.004, momentum=momentum), run="one")
    )
    start = job_solver(job).net.flat_data.copy()
    one.net.flat_data[:] = start

    def feed(number):
        chosen = [batch_rows(job.seed, p, shard.rows, number * batch, batch) for p, shard in enumerate(shards)]
        images, labels = (
            np.concatenate([shard.columns[name][rows] for shard, rows in zip(shards, chosen, strict=True)])
            for name in ("image", "label")
        )
        one.net.blobs["data"].data[...] = images * np.float32(0.01)
        one.net.blobs["label"].data[...] = labels

    one.step(rounds, feed)
    assert np.abs(weights - start).max() > 0.01
    np.testing.assert_allclose(weights, one.net.flat_data, rtol=1e-5, atol=1e-6)


def test_rows_of_unequal_partitions_count_the_same(tmp_path):
    """A step on all rows of each partition, weighted by rows, is one step on all rows together."""
    rows, sizes = 30, [6, 24]
    shards = [small_shard(tmp_path, rows, p, 5) for p in range(5)]
    columns = [shards[0].columns, {n: np.concatenate([s.columns[n] for s in shards[1:]]) for n in ("image", "label")}]
    for part, unequal in zip(columns, sizes, strict=True):
        assert len(part["label"]) == unequal
    solver = small_solver(weight_decay=0.004)
    start = job_solver(small_job(small_net(), solver)).net.flat_data.copy()

    def stepped(images, labels):
        one = job_solver(small_job(small_net(len(labels)), solver))
        one.net.flat_data[:] = start
        one.net.blobs["data"].data[...] = images * np.float32(0.01)
        one.net.blobs["label"].data[...] = labels
        one.step(1)
        return one.net.flat_data.copy()

    trained = [{"weights": stepped(part["image"], part["label"])} for part in columns]
    rule = Rule(weighting="ROWS", momentum="RESET")
    got = next_standing(rule, Standing({"weights": start}), trained, sizes).common["weights"]
    whole = stepped(*(np.concatenate([part[name] for part in columns]) for name in ("image", "label")))
    np.testing.assert_allclose(got, whole, rtol=1e-5, atol=1e-6)
    equal_shares = next_standing(
        dataclasses.replace(rule, weighting="EQUAL"), Standing({"weights": start}), trained, sizes
    )
    assert np.abs(equal_shares.common["weights"] - whole).max() > 1e-3


@pytest.mark.parametrize(
    "rule",
    [
        Rule(momentum="LOCAL", outer_rate=0.7, outer_momentum=0.9),
        Rule(momentum="LOCAL", moving_rate=0.9),
        Rule(exchange="int8"),
    ],
)
def test_the_standing_is_all_that_a_run_needs_to_go_on(tmp_path, rule):
    job = small_job(small_net(), small_solver(momentum=0.9))
    shards = parts(tmp_path, 60, 2)
    whole = train(rule, job, shards, 4, 3)
    half = train(rule, job, shards, 2, 3)
    worker._engines.forget()
    resumed = train(rule, job, shards, 2, 3, half, 2)
    equal(resumed.common, whole.common)
    for p in range(2):
        equal(resumed.of(p), whole.of(p))


def test_batch_norm_under_every_rule(tmp_path):
    """The statistics of the averaged net are the mean of the workers', and its tests have finite losses."""
    norm = 'layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }'
    job = small_job(small_net(extra=norm), small_solver(momentum=0.9))
    net = job_solver(job).net
    (start, stop) = net.statistics[[0, -1]]
    assert [blob.data.size for blob in net.params["bn"]] == [3, 3, 1]
    net.params["bn"][2].data[...] = 5.0
    assert (net.flat_data[net.statistics] == [0] * 6 + [5]).all() and stop - start == 6
    shards = parts(tmp_path, 60, 2)
    for rule in (Rule(exchange="int8"), Rule(outer_rate=0.7, outer_momentum=0.9), Rule(moving_rate=0.9)):
        weights = train(rule, job, shards, 3, 4).common["weights"]
        net.flat_data[:] = weights
        assert (net.params["bn"][1].data > 0).all()
        params = {layer: [blob.data for blob in blobs] for layer, blobs in net.params.items()}
        assert np.isfinite(worker.test(shards[0], 0, job, params).metrics["loss"])
