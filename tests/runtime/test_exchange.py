"""Both strategies of averaging on a real Spark: equal to each other, to the loop by hand, and after losses."""

import dataclasses
import os
import pathlib
import re
import signal
import sys
import time

import numpy as np
import pytest
import small_nets
from pyspark import cloudpickle
from small_nets import SmallSource, job_solver, small_job, small_net, small_shard, small_solver

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import ClusterError, DivergedError
from sparknet_dsl.runtime import choice, ring, worker
from sparknet_dsl.runtime.average import mean
from sparknet_dsl.runtime.averaging import Averaging
from sparknet_dsl.runtime.checkpoint import State
from sparknet_dsl.runtime.in_turn import InTurn
from sparknet_dsl.runtime.ring import Ring
from sparknet_dsl.runtime.rule import Rule
from sparknet_dsl.runtime.shards import local_folder
from sparknet_dsl.runtime.shuffle import Shuffle
from sparknet_dsl.runtime.spark import Cluster

# Workers do not have these files.
cloudpickle.register_pickle_by_value(small_nets)
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS = 50  # 25 and 25, or 17, 17 and 16
STEPS = (3, 2, 1)


class Watch:
    def __init__(self):
        self.figures, self.states, self.reasons, self.left_out = [], [], [], []

    def trained(self, done, seconds):
        assert seconds > 0
        self.figures.append(done)

    def reached(self, state):
        self.states.append(state)

    def again(self, reason):
        self.reasons.append(reason)

    def dropped(self, reason):
        self.left_out.append(reason)


@dataclasses.dataclass(frozen=True)
class Harmed(Rule):
    """Before its `round`, worker 2 (or the one of `partition`) does something to itself, once ("": again and again)."""

    partition: int = 1
    round: int = 1
    marker: str = ""
    what: str = ""

    def train(self, shard, partition, shared, own, round, iteration, steps):
        if (partition, round) == (self.partition, self.round) and not (
            self.marker and pathlib.Path(self.marker).exists()
        ):
            if self.marker:
                pathlib.Path(self.marker).touch()
            if self.what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.what == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            elif self.what == "bug":
                raise ZeroDivisionError("a bug")
        if (partition, round, self.what) == (1, self.round, "diverge"):
            raise DivergedError("training diverged: in worker 2")
        return super().train(shard, partition, shared, own, round, iteration, steps)


@dataclasses.dataclass(frozen=True)
class Weighted(Rule):
    """Workers count for as much as the number that they have."""

    def train(self, shard, partition, shared, own, round, iteration, steps):
        turn = super().train(shard, partition, shared, own, round, iteration, steps)
        return dataclasses.replace(turn, weight=float(partition + 2))


@pytest.fixture(autouse=True)
def one_thread():
    """Equal bits take equal numbers of threads."""
    caffe_ext.set_num_threads(1)


@pytest.fixture
def clusters(spark):
    return lambda workers, deadline=20.0: Cluster("", workers, spark.context, deadline=deadline)


def job(cluster, momentum="AVERAGE"):
    solver = small_solver(momentum=0.9)
    return small_job(small_net(), solver, run=cluster.run, send_history=momentum != "RESET")


def rule_of(job, workers, averaging=None, kind=Rule, **settings):
    """The rule, the plain one unless said otherwise."""
    return kind(job, averaging or Averaging(), workers, ROWS, job_solver(job).flat_history.size, **settings)


def exchanges(cluster, rule):
    rows = cluster.rows("train", SmallSource(ROWS))
    return {"spark": Shuffle(cluster, rows, rule), "ring": Ring(cluster, rows, rule, cluster.deadline)}


def start(job) -> State:
    return State(0, 0, {"weights": job_solver(job).net.flat_data.copy()})


def train(exchange, job, steps=STEPS) -> Watch:
    watch = Watch()
    exchange.leg(start(job), steps, watch)
    return watch


def by_hand(folder, job, workers, momentum, weights=None) -> State:
    shards = [small_shard(folder, ROWS, p, workers) for p in range(workers)]
    here = dataclasses.replace(job, run="by hand")
    state, own = start(here), [None] * workers
    for steps in STEPS:
        at = (state.round, state.iteration, steps)
        done = [worker.train_round(shards[p], p, here, state.weights, own[p], *at) for p in range(workers)]
        histories = [each.history for each in done]
        common, mine = {"weights": mean([each.weights for each in done], weights)}, ()
        own = [None] * workers
        if momentum == "AVERAGE":
            common["history"] = mean(histories, weights)
            own = [common["history"]] * workers
        elif momentum == "LOCAL":
            own, mine = histories, tuple({"history": history} for history in histories)
        state = State(state.round + 1, state.iteration + steps, common, mine)
    return state


def assert_equal(one: State, other: State) -> None:
    assert (one.round, one.iteration, len(one.own)) == (other.round, other.iteration, len(other.own))
    for first, second in zip((one.common, *one.own), (other.common, *other.own), strict=True):
        assert first.keys() == second.keys()
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize("momentum", ["AVERAGE", "LOCAL", "RESET"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_both_strategies_equal_the_loop_by_hand(clusters, tmp_path, workers, momentum):
    with clusters(workers) as cluster:
        mine = job(cluster, momentum)
        expected = by_hand(tmp_path, mine, workers, momentum)
        for name, exchange in exchanges(cluster, rule_of(mine, workers, Averaging(momentum=momentum))).items():
            watch = train(exchange, mine)
            assert_equal(watch.states[-1], expected)
            assert [[len(each.losses) for each in done] for done in watch.figures] == [[n] * workers for n in STEPS]
            assert [sum(each.rows for each in done) for done in watch.figures] == [8 * n * workers for n in STEPS]
            assert [state.round for state in watch.states] == ([1, 2, 3] if name == "spark" else [3])
            assert watch.reasons == []


@pytest.mark.parametrize(
    "averaging",
    [
        Averaging("ROWS", outer_rate=0.7, outer_momentum=0.9),
        Averaging(momentum="LOCAL", moving_rate=0.9),
        Averaging(exchange="bf16"),
        Averaging(exchange="int8", momentum="LOCAL"),
    ],
)
def test_both_strategies_follow_every_rule(clusters, tmp_path, averaging):
    """To the bit, with a layer whose statistics go apart, and as in one process."""
    norm = 'layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }'
    with clusters(3) as cluster:
        mine = small_job(small_net(extra=norm), small_solver(momentum=0.9), run=cluster.run)
        statistics = job_solver(mine).net.statistics
        watch = Watch()
        shards = [small_shard(tmp_path, ROWS, p, 3) for p in range(3)]
        here = rule_of(dataclasses.replace(mine, run="here"), 3, averaging, statistics=statistics)
        InTurn(shards, here).leg(start(mine), STEPS, watch)
        for exchange in exchanges(cluster, rule_of(mine, 3, averaging, statistics=statistics)).values():
            assert_equal(train(exchange, mine).states[-1], watch.states[-1])


def test_weights_of_workers_count_in_both_strategies(clusters, tmp_path):
    with clusters(3) as cluster:
        mine = job(cluster)
        expected = by_hand(tmp_path, mine, 3, "AVERAGE", [2.0, 3.0, 4.0])
        for exchange in exchanges(cluster, rule_of(mine, 3, kind=Weighted)).values():
            assert_equal(train(exchange, mine).states[-1], expected)


@pytest.mark.parametrize("momentum", ["AVERAGE", "LOCAL"])
def test_legs_go_on_where_the_last_one_ended(clusters, tmp_path, momentum, monkeypatch):
    monkeypatch.setattr(ring, "LEG_SECONDS", 0.0)
    with clusters(2) as cluster:
        mine = job(cluster, momentum)
        exchange = exchanges(cluster, rule_of(mine, 2, Averaging(momentum=momentum)))["ring"]
        watch = train(exchange, mine)
        assert watch.states[-1].round == 1  # the time of a leg is over with the first round
        exchange.leg(watch.states[-1], STEPS[1:], watch)
        exchange.leg(watch.states[-1], STEPS[2:], watch)
        assert [state.round for state in watch.states] == [1, 2, 3]
        assert_equal(watch.states[-1], by_hand(tmp_path, mine, 2, momentum))


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("kill", r"worker 2 .* is lost: .* Python worker exited unexpectedly \(crashed\)"),
        ("stop", "worker 2 .* is late: nothing for"),
        ("bug", "worker 2 .* is lost: .*: ZeroDivisionError: a bug"),
    ],
)
def test_a_loss_in_the_middle_of_a_leg_changes_nothing(clusters, tmp_path, what, reason):
    with clusters(2, 2.0) as cluster:
        mine = job(cluster)
        rule = rule_of(mine, cluster.workers, kind=Harmed, round=2, marker=str(tmp_path / "harmed"), what=what)
        watch = train(exchanges(cluster, rule)["ring"], mine)
        assert (tmp_path / "harmed").exists()
        assert_equal(watch.states[-1], by_hand(tmp_path, mine, 2, "AVERAGE"))
        assert len(watch.figures) == len(STEPS)  # each round once
        assert len(watch.reasons) == 1
        assert re.search(reason, watch.reasons[0])


def test_a_lost_process_changes_nothing_through_spark(clusters, tmp_path):
    with clusters(2) as cluster:
        mine = job(cluster)
        rule = rule_of(mine, cluster.workers, kind=Harmed, round=1, marker=str(tmp_path / "harmed"), what="kill")
        watch = train(exchanges(cluster, rule)["spark"], mine)
        assert (tmp_path / "harmed").exists()
        assert_equal(watch.states[-1], by_hand(tmp_path, mine, 2, "AVERAGE"))


def test_a_late_process_is_left_behind_through_spark(clusters, tmp_path):
    """In the first round already, where only the other worker tells how long one takes."""
    with clusters(2, 2.0) as cluster:
        mine = job(cluster)
        rule = rule_of(mine, cluster.workers, kind=Harmed, round=0, marker=str(tmp_path / "harmed"), what="stop")
        watch = train(exchanges(cluster, rule)["spark"], mine)
        assert_equal(watch.states[-1], by_hand(tmp_path, mine, 2, "AVERAGE"))
        assert len(watch.figures) == len(STEPS)
        assert len(watch.reasons) == 1
        assert re.search(r"worker 2 \(.*\) is late: nothing for \d+ s, where .* s are usual", watch.reasons[0])


@pytest.mark.parametrize("name", ["spark", "ring"])
def test_all_workers_may_be_late(clusters, tmp_path, name):
    """A single one has nobody who waits for it: how long a round takes, the rounds before have told."""
    with clusters(1, 1.0) as cluster:
        mine = job(cluster)
        rule = rule_of(mine, 1, kind=Harmed, partition=0, round=2, marker=str(tmp_path / "harmed"), what="stop")
        watch = train(exchanges(cluster, rule)[name], mine)
        assert (tmp_path / "harmed").exists()
        assert_equal(watch.states[-1], by_hand(tmp_path, mine, 1, "AVERAGE"))
        assert len(watch.reasons) == 1 and "late: nothing for" in watch.reasons[0]


@pytest.mark.parametrize("averaging", [Averaging("ROWS", "LOCAL", moving_rate=0.9), Averaging(exchange="int8")])
def test_a_late_worker_is_dropped(clusters, tmp_path, averaging):
    """The mean is that of the others; what is its own the late one keeps, and in the next round it is there again."""
    with clusters(3, 3.0) as cluster:
        mine = job(cluster, averaging.momentum)
        rows = cluster.rows("train", SmallSource(ROWS))
        harm = {"round": 1, "marker": str(tmp_path / "harmed"), "what": "stop"}
        watch = train(Shuffle(cluster, rows, rule_of(mine, 3, averaging, Harmed, **harm), "DROP"), mine)
        assert watch.reasons == []
        assert len(watch.left_out) == 1 and "worker 2" in watch.left_out[0]
        assert [len(done) for done in watch.figures] == [3, 2, 3]

        here = rule_of(dataclasses.replace(mine, run="here"), 3, averaging)
        shards = [small_shard(tmp_path, ROWS, partition, 3) for partition in range(3)]
        state = start(mine)
        for steps in STEPS:
            shared, own = here.share(state)
            turns = [
                here.train(shard, partition, shared, own[partition] if own else (), state.round, state.iteration, steps)
                for partition, shard in enumerate(shards)
            ]
            there = [turns[0], turns[2]] if state.round == 1 else turns
            kept = [turn.own for turn in turns]
            if state.round == 1 and own:
                kept[1] = own[1]
            state = here.state(state.round + 1, state.iteration + steps, here.average(shared, there), kept)
        assert_equal(watch.states[-1], state)


def test_what_is_late_again_and_again_is_an_error(clusters, tmp_path):
    with clusters(2, 1.0) as cluster:
        mine = job(cluster)
        rule = rule_of(mine, 2, kind=Harmed, round=0, marker="", what="stop")
        with pytest.raises(ClusterError, match=r"worker 2 \(.*\) is late: .* \(attempt 4 of 4\)"):
            train(exchanges(cluster, rule)["spark"], mine)


def test_nothing_is_left_of_a_rounds_shuffle(clusters, tmp_path):
    with clusters(2) as cluster:
        mine = job(cluster)
        exchange = exchanges(cluster, rule_of(mine, 2))["spark"]
        (folder, *_) = cluster.each(cluster.rows("train", SmallSource(ROWS)), lambda shard, partition: local_folder())
        files = []

        class Counting(Watch):
            def reached(self, state):
                found = [path for path in folder.rglob("*") if path.is_file()]
                files.append(len([path for path in found if "sparknet-" not in str(path)]))

        exchange.leg(start(mine), [1] * 20, Counting())
        assert len(files) == 20
        assert max(files[1:]) <= files[0]


@pytest.mark.parametrize("name", ["spark", "ring"])
def test_a_workers_error_comes_out_as_it_is_after_the_last_whole_round(clusters, tmp_path, name):
    with clusters(3) as cluster:
        mine = job(cluster)
        exchange = exchanges(cluster, rule_of(mine, cluster.workers, kind=Harmed, round=2, what="diverge"))[name]
        watch = Watch()
        started = time.monotonic()
        with pytest.raises(DivergedError, match="training diverged: in worker 2"):
            exchange.leg(start(mine), STEPS, watch)
        assert time.monotonic() - started < 15
        assert watch.states[-1].round == 2
        assert len(watch.figures) == 2
        assert watch.reasons == []


def test_losses_without_end_are_an_error(clusters, tmp_path):
    with clusters(2) as cluster:
        mine = job(cluster)
        rows = cluster.rows("train", SmallSource(ROWS))
        rule = rule_of(mine, cluster.workers, kind=Harmed, round=0, marker=str(tmp_path / "no" / "such"), what="bug")
        with pytest.raises(ClusterError, match=r"worker 2 .* is lost: .*: FileNotFoundError"):
            train(Ring(cluster, rows, rule, 5.0, attempts=2), mine)


def test_what_is_chosen(clusters, monkeypatch):
    with clusters(2) as cluster:
        rows, rule = cluster.rows("train", SmallSource(ROWS)), rule_of(job(cluster), cluster.workers)
        found, name, notes = choice.choose("AUTO", cluster, rows, rule, 1000)
        assert (type(found), name) == (Ring, "RING")
        assert "averages by ring: 1,000 numbers took" in notes[0]
        assert choice.choose("SPARK", cluster, rows, rule, 1000)[1:] == ("SPARK", ())
        assert choice.choose("RING", cluster, rows, rule, 1000)[1:] == ("RING", ())

        monkeypatch.setattr(Cluster, "secured", lambda self: "spark.authenticate")
        assert choice.choose("AUTO", cluster, rows, rule, 1000)[1:] == (
            "SPARK",
            ("averages through Spark, since spark.authenticate is set",),
        )
        with pytest.raises(ClusterError, match=r"but spark\.authenticate is set: take spark, or auto"):
            choice.choose("RING", cluster, rows, rule, 1000)


def test_workers_that_cannot_connect_average_through_spark(clusters, monkeypatch):
    monkeypatch.setattr(choice, "PROBE_SECONDS", 2.0)
    # A network for examples, where nobody is.
    monkeypatch.setattr(Cluster, "address", ("192.0.2.1", "127.0.0.1"))
    with clusters(2) as cluster:
        rows, rule = cluster.rows("train", SmallSource(ROWS)), rule_of(job(cluster), cluster.workers)
        _, name, notes = choice.choose("AUTO", cluster, rows, rule, 1000)
    assert name == "SPARK"
    assert "the driver cannot be reached at 192.0.2.1" in notes[0]


def test_one_worker_needs_no_exchange(clusters, monkeypatch):
    with clusters(1) as cluster:
        monkeypatch.setattr(choice, "seconds", None)  # no probe
        rows = cluster.rows("train", SmallSource(ROWS))
        assert choice.choose("AUTO", cluster, rows, rule_of(job(cluster), cluster.workers), 1000)[1:] == (
            "RING",
            (),
        )
